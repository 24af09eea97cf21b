//! A program whose rank 1 fails in the middle of a step: this test's own, started by another one.

use spo_core::objective::{Build, Entry, OptionDoc, Ratios, pair};
use spo_core::{CoreError, Needs, Objective, PairLogps, PairLosses};
use spo_team::{Mode, Team, TeamError, Voice};
use spo_train::TrainError;
use spo_train::config::{Registries, RunSpec};
use spo_train::events::sink::Nowhere;
use spo_train::events::{Event, Sink};
use std::path::Path;
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
        if fault == "slow" {
            // Long beside whatever else a machine does.
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let factor = if fault == "nan" && late { f64::NAN } else { self.beta };
        let per_pair = (-(ratios.delta() * factor) + 1.0).clamp_min(0.0).powi_scalar(2);
        Ok(ratios.losses(per_pair, self.beta))
    }
}

/// Says which process is slow.
struct Slow;

impl Sink for Slow {
    fn event(&mut self, _: f64, event: &Event) -> Result<(), TrainError> {
        if let Event::SlowProcess { step, process, .. } = event {
            println!("step {step}: process {process} is slow");
        }
        Ok(())
    }
}

/// The report has a row for each process, and the page too; the event file says what each did, and names none.
fn reported(out: &Path, slow: bool) {
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let (report, page, events) = (read("report.md"), read("report.html"), read("events.jsonl"));
    assert!(report.contains("tokens/s | waited | exchanging"), "{report}");
    assert!(page.contains("exchanging"));
    assert!(!slow || report.contains("process 1 is slow: for "), "{report}");
    assert!(!events.contains("slow-process"));
    let finished = events.lines().filter(|line| line.contains("phase-finished"));
    let rows = finished.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let processes: Vec<_> = rows.map(|row| row["processes"].as_array().unwrap().clone()).collect();
    assert_eq!(processes.len(), 3);
    for of_phase in processes {
        assert_eq!(of_phase.len(), 2);
        for process in of_phase {
            assert!(
                ["tokens", "seconds", "bytes", "peak_bytes"].iter().all(|key| process[*key].as_f64() > Some(0.0)),
                "{process}"
            );
        }
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
        let text =
            text.replace("\"honesty\"", "\"honesty\"\nobjective = \"faulty\"").replace("steps = 2", "steps = 20");
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
    spo_train::run_together(prepared, team.clone(), &mut Slow, &AtomicBool::new(false))?;
    if team.is_root() {
        reported(&dir.join("run"), fault == "slow");
    }
    team.root(|| std::fs::remove_dir_all(&dir).map_err(TrainError::sink))
}

#[test]
fn child() {
    let Ok(fault) = std::env::var("SPO_FAULT") else { return };
    let voice = Voice { waits: |text| eprintln!("{text}"), ends: |error| eprintln!("{error}") };
    let team = Rc::new(spo_team::start(Mode::Mpi, voice).unwrap().team);
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
