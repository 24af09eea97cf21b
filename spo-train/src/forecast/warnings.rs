//! What looks wrong before a run begins.

use super::{Disk, MemoryForecast, PhaseForecast};
use crate::config::{ArmPlan, RoundPlan};
use crate::persist::directory::policy_name;
use crate::persist::{directory, disk_space};
use crate::run::Prepared;
use crate::step::memory;
use serde_json::Value;
use spo_eval::report::bytes;
use spo_model::device::on_cpu;

/// Held-out pairs below which an accuracy says little: its 95 % interval is wider than 0.2.
const FEW_HELD_OUT: usize = 96;

pub(super) fn of(prepared: &Prepared, phases: &[PhaseForecast], disk: &Disk, need: &MemoryForecast) -> Vec<String> {
    let (plan, mut warnings) = (&prepared.plan, vec![]);
    let out = plan.out.display();
    if plan.out.join(directory::MANIFEST).exists() {
        warnings.push(format!(
            "{out} holds a run already: `spo train --resume {out}` goes on with it, --out names another"
        ));
    }
    for phase in phases.iter().filter(|phase| phase.epochs < 1.0) {
        let (share, rows) = (100.0 * phase.epochs, phase.rows);
        warnings.push(format!("{} sees {share:.0} % of its {rows} rows: raise steps, or set epochs", phase.phase));
    }
    for phase in phases {
        if let Some(count) = phase.without_degrees.filter(|count| *count > 0) {
            let (name, rows) = (&phase.phase, phase.rows);
            warnings
                .push(format!("{name}: {count} of {rows} pairs have no preference degrees, and are trained without"));
        }
    }
    warnings.extend(plan.rounds.iter().filter_map(one_way_hold));
    warnings.extend(plan.rounds.iter().filter_map(ungated_hold));
    for summary in prepared.held_out.summaries().iter().filter(|summary| summary.pairs < FEW_HELD_OUT) {
        let (pairs, dimension) = (summary.pairs, &summary.dimension);
        warnings.push(format!("only {pairs} held-out pairs of {dimension}: its accuracies will be rough"));
    }
    for set in [&prepared.train, &prepared.held_out] {
        warnings.extend(set.dataset.report.unused().map(|line| format!("{}: {line}", set.split)));
        for (reason, count) in set.dataset.report.counts() {
            warnings.push(format!("{}: {count} rows {} (`spo data check` names them)", set.split, reason.describe()));
        }
    }
    if plan.checkpoints.every_steps == 0 && plan.checkpoints.every_minutes == 0.0 {
        warnings
            .push("no checkpoints inside rounds: what a crash interrupts is done again from the round's start".into());
    }
    if let Some(free) = disk_space::free_bytes(&plan.out).filter(|free| *free < disk.total()) {
        let (needed, free) = (bytes(disk.total()), bytes(free));
        warnings.push(format!("the run may write {needed} to {out}, and {free} are free there"));
    }
    let available = memory::available_bytes();
    if on_cpu(&prepared.device) && available > 0 && need.peak as u64 > available {
        let (needed, free) = (bytes(need.peak as u64), bytes(available));
        warnings.push(format!(
            "training needs about {needed} of memory, and {free} are free: [lora], a 16-bit dtype or recompute = \"blocks\" \
             take less"
        ));
    }
    warnings
}

/// A round that is bounded by what it learnt alone.
fn ungated_hold(round: &RoundPlan) -> Option<String> {
    let sampled = round.main().hold.as_ref().is_some_and(|hold| hold.sampled.is_some());
    let name = &round.name;
    (sampled && round.gate.is_none()).then(|| {
        format!(
            "{name} has bounds on samples and no gate: the reward that they are on is over-confident far from its data; a `gate` on \
             the accuracy of pairs needs none"
        )
    })
}

/// A round with bounds whose λ can only slow a loss down.
fn one_way_hold(round: &RoundPlan) -> Option<String> {
    let one_way = |arm: &&ArmPlan| arm.options.get("label-smoothing").and_then(Value::as_f64) == Some(0.0);
    let arm = round.arms.iter().filter(|arm| arm.hold.is_some()).find(one_way)?;
    let name = policy_name(round, arm);
    Some(format!(
        "{name} has bounds and label-smoothing = 0: no pair is ever pushed back, so that what is lost before λ has grown stays lost; \
         label-smoothing = 0.1 lets it be won back"
    ))
}
