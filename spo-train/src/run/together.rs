//! What processes must have in common before they share a run.

use crate::TrainError;
use crate::config::{Origin, RunPlan, unshared};
use crate::phase::shards::not_shared;
use crate::run::manifest::Manifest;
use crate::run::prepare::Prepared;
use spo_team::{Team, TeamError, tree};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a file that rank 0 has written is looked for: a network's file system shows it late.
const LATE: Duration = Duration::from_secs(60);

/// Settles the number of shards where the run file does not: that of the run in `resumed`, else one for each process.
///
/// # Errors
/// The processes cannot share them, or the steps cannot be cut so.
pub fn settle(plan: &mut RunPlan, team: &Team, resumed: Option<&Path>) -> Result<(), TrainError> {
    team.wait_at_most(Some(Duration::from_secs_f64(plan.parallel.timeout)));
    if !plan.says_shards() {
        let from = match resumed.map(Manifest::read) {
            // One that cannot be read is spoken of when the run is taken up again.
            Some(manifest) => (manifest.map_or(1, |manifest| shards_of(&manifest)), "the run that goes on"),
            None => (team.size(), "the number of processes"),
        };
        if from.0 != plan.parallel.shards {
            plan.parallel.shards = from.0;
            plan.origins.insert("parallel.shards".into(), Origin::Computed { from: from.1.into() });
        }
    }
    let shards = plan.parallel.shards;
    if tree::share(shards, team.rank(), team.size()).is_none() {
        return Err(not_shared(shards, team.size()).into());
    }
    let projects = plan.lora.as_ref().is_some_and(|lora| lora.project > 0);
    let torn = (!team.is_solo() && plan.parallel.shares_moments() && projects).then(|| {
        "`[lora] project` takes directions out of adapters that `optimizer-state = \"sharded\"` tears apart".to_owned()
    });
    match torn.or_else(|| unshared(shards, &plan.rounds, plan.warmup.as_ref())) {
        None => Ok(()),
        Some(right) => Err(TeamError::Contradiction {
            left: format!("the run is shared by {} processes", team.size()),
            right,
            hint: "start fewer processes, or change that".into(),
        }
        .into()),
    }
}

/// The shards of a run that has begun; before there were any, a batch was not cut.
fn shards_of(manifest: &Manifest) -> usize {
    manifest.plan.iter().find_map(|line| line.strip_prefix("parallel.shards = ")?.parse().ok()).unwrap_or(1)
}

/// What the run is made from, which must be the same for every process.
///
/// # Errors
/// A file cannot be read, or a process has others than rank 0.
pub(super) fn same(prepared: &Prepared, team: &Team) -> Result<Manifest, TrainError> {
    let own = Manifest::of(prepared)?;
    let of_root = team.root_unhurried(|| Ok::<_, TrainError>(own.clone()))?;
    let changes: Vec<String> = of_root.changes(&own).into_iter().map(|(_, what)| what).collect();
    match changes.is_empty() {
        true => Ok(own),
        false => Err(TeamError::Contradiction {
            left: format!("rank {} does not have what rank 0 has", team.rank()),
            right: format!("they share a run: {}", changes.join("; ")),
            hint: "give every machine the same program, run file, model and data".into(),
        }
        .into()),
    }
}

/// Makes sure that this process sees the run directory that rank 0 has just written to.
///
/// # Errors
/// It sees another one.
pub(super) fn seen(out: &Path, of_root: &Manifest, team: &Team) -> Result<(), TrainError> {
    if team.is_root() {
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        match Manifest::read(out) {
            Ok(manifest) if manifest.source == of_root.source => return Ok(()),
            _ if begun.elapsed() < LATE => std::thread::sleep(Duration::from_millis(100)),
            _ => {
                return Err(TeamError::Contradiction {
                    left: format!("rank 0 has written to {}", out.display()),
                    right: "this process does not see it".into(),
                    hint: "the run directory must be on a file system that every machine has, such as NFS".into(),
                }
                .into());
            }
        }
    }
}
