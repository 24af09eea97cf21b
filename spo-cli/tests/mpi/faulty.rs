//! A program whose rank 1 fails in the middle of a step: this test's own, started by another one.

use spo_core::objective::{Build, Entry, OptionDoc, Ratios, pair};
use spo_core::{CoreError, Needs, Objective, PairLogps, PairLosses};
use spo_team::{Mode, Team, TeamError};
use spo_train::TrainError;
use spo_train::config::{Registries, RunSpec};
use spo_train::events::sink::Nowhere;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What happens at rank 1.
static FAULT: OnceLock<String> = OnceLock::new();
static CALLS: AtomicUsize = AtomicUsize::new(0);

static FAULTY: Entry = Entry {
    name: "faulty",
    formula: "max(0, 1 − β·d)²",
    gradient: "",
    when: "",
    limits: "",
    needs: Needs::REFERENCE,
    options: &[OptionDoc { key: "beta", default: "0.1", meaning: "", ..OptionDoc::POSITIVE }],
    difference_only: true,
    ..Entry::new(Build::Pair(pair::<Faulty>))
};

#[derive(Debug, serde::Deserialize)]
struct Faulty {
    beta: f64,
}

impl Objective for Faulty {
    fn name(&self) -> &'static str {
        FAULTY.name
    }

    fn needs(&self) -> Needs {
        FAULTY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let late = CALLS.fetch_add(1, Ordering::Relaxed) >= 4;
        let fault = FAULT.get().map_or("none", String::as_str);
        assert!(fault != "panic" || !late, "a device failed");
        let ratios = Ratios::new(self.name(), logps)?;
        let factor = if fault == "nan" && late { f64::NAN } else { self.beta };
        let per_pair = (-(ratios.delta() * factor) + 1.0).clamp_min(0.0).powi_scalar(2);
        Ok(ratios.losses(per_pair, self.beta))
    }
}

fn train(team: &Rc<Team>) -> Result<(), TrainError> {
    let fault = std::env::var("SPO_FAULT").unwrap();
    let dir = std::env::temp_dir().join(format!("spo-faulty-{fault}"));
    team.root(|| {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).map_err(TrainError::sink)?;
        let file = crate::support::small_run(&dir);
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("\"honesty\"", "\"honesty\"\nobjective = \"faulty\"").replace("steps = 2", "steps = 8");
        std::fs::write(&file, text).map_err(TrainError::sink)
    })?;
    if fault == "length" {
        team.sum(0, &mut vec![0.0; 8 - team.rank()])?;
    }
    let objectives = spo_core::objective::Registry::builtin().add(&FAULTY);
    let registries = Registries { objectives, ..Registries::default() };
    let file = dir.join("run.toml");
    let text = std::fs::read_to_string(&file).map_err(TrainError::sink)?;
    let spec = RunSpec::parse("run.toml", Some(&file), &text, registries)?;
    let prepared = spo_train::prepare(&spec, &mut Nowhere)?;
    spo_train::run_together(prepared, team.clone(), &mut Nowhere, &AtomicBool::new(false))?;
    team.root(|| std::fs::remove_dir_all(&dir).map_err(TrainError::sink))
}

#[test]
fn child() {
    let Ok(fault) = std::env::var("SPO_FAULT") else { return };
    let team = Rc::new(spo_team::start(Mode::Mpi, |error| eprintln!("{error}")).unwrap().team);
    FAULT.set(if team.is_root() { "none".into() } else { fault }).unwrap();
    let result = train(&team);
    let code = match &result {
        Ok(()) => 0,
        Err(TrainError::Team(TeamError::Elsewhere { code, .. })) => *code,
        Err(TrainError::Team(_) | TrainError::Failed { .. }) => 75,
        Err(_) => 1,
    };
    match &result {
        Ok(()) => println!("rank {} is done", team.rank()),
        Err(error) => {
            team.fail(&error.to_string(), code);
            if team.is_root() {
                eprintln!("{error}");
            }
        }
    }
    drop(team);
    std::process::exit(code.into());
}
