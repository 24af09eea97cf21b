//! A run that is interrupted anywhere and goes on ends as one that never stopped, bit for bit.

use crate::left::{assert_same, left};
use spo_train::config::RunSpec;
use spo_train::events::sink::{Memory, Record};
use spo_train::events::{Event, Sink};
use spo_train::{Change, Manifest, TrainError, prepare, resume, run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Two rounds with a control, a checkpoint after every step and evaluations on the way.
fn spec(dir: &Path, more: &str) -> RunSpec {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets");
    let text = format!(
        r#"schema = 1
seed = 5
out = "out"
[model]
path = {model:?}
device = "cpu"
[[data]]
path = "pairs.jsonl.gz"
limit = 40
[[data]]
path = {test:?}
split = "test"
limit = 24
[text]
prompt-format = "Question: {{prompt}}\nAnswer:"
response-format = " {{response}}"
[warmup]
dimensions = ["honesty", "helpfulness"]
steps = 2
learning-rate = 1e-3
[training]
steps = 3
pairs-per-step = 4
learning-rate = 5e-4
warmup-steps = 1
eval-every = 2
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
[[rounds.controls]]
name = "free"
lambda = 0.0
[evaluation]
bootstrap-resamples = 40
kl-samples = 4
kl-max-new-tokens = 6
samples = 1
[checkpoints]
every-steps = 1
keep-best = "loss"
{more}"#,
        model = assets.join("stories260K"),
        test = assets.join("truthfulqa/pairs.test.jsonl.gz"),
    );
    std::fs::copy(assets.join("truthfulqa/pairs.train.jsonl.gz"), dir.join("pairs.jsonl.gz")).unwrap();
    std::fs::write(dir.join("run.toml"), text).unwrap();
    RunSpec::from_file(&dir.join("run.toml")).unwrap()
}

/// Breaks a run off at an event, or asks it to stop there.
struct Breaks<'a> {
    at: usize,
    stop: Option<&'a AtomicBool>,
    seen: usize,
}

impl Sink for Breaks<'_> {
    fn event(&mut self, _: f64, _: &Event) -> Result<(), TrainError> {
        self.seen += 1;
        if self.seen == self.at {
            match self.stop {
                Some(stop) => stop.store(true, Ordering::Relaxed),
                None => return Err(TrainError::no_pairs("broken off here")),
            }
        }
        Ok(())
    }
}

fn start(spec: &RunSpec, sink: &mut dyn Sink, stop: &AtomicBool) -> Result<(), TrainError> {
    run(prepare(spec, &mut Memory::default())?, sink, stop).map(|_| ())
}

/// Goes on to the end; what it said.
fn go_on(out: &Path, allow: &[Change]) -> Result<Memory, TrainError> {
    let (mut seen, stop) = (Memory::default(), AtomicBool::new(false));
    let prepared = prepare(&Manifest::read(out)?.spec()?, &mut Memory::default())?;
    resume(prepared, out, allow, &mut seen, &stop)?;
    Ok(seen)
}

fn damaged(seen: &Memory) -> Vec<String> {
    let resumed = seen.0.iter().find_map(|record| match &record.event {
        Event::Resumed { damaged, .. } => Some(damaged.clone()),
        _ => None,
    });
    resumed.unwrap()
}

/// A directory with a run file. All runs of a test are in the same place, as its path is in what they leave.
struct Place {
    _dir: tempfile::TempDir,
    spec: RunSpec,
    out: PathBuf,
}

impl Place {
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), more);
        let out = dir.path().join("out");
        Self { _dir: dir, spec, out }
    }

    /// A run that is not interrupted: what it leaves, and its events. Then the place is empty again.
    fn whole(&self) -> (BTreeMap<String, Vec<u8>>, usize) {
        let mut seen = Memory::default();
        start(&self.spec, &mut seen, &AtomicBool::new(false)).unwrap();
        let left = left(&self.out);
        self.clear();
        (left, seen.0.len())
    }

    fn clear(&self) {
        std::fs::remove_dir_all(&self.out).unwrap();
    }

    /// A run that breaks off at an event.
    fn broken_off(&self, at: usize) {
        let mut breaks = Breaks { at, stop: None, seen: 0 };
        let ended = start(&self.spec, &mut breaks, &AtomicBool::new(false));
        assert!(matches!(ended, Err(TrainError::NoPairs { .. })), "{ended:?}");
    }
}

/// Every how many events a run is broken off; `SPO_RESUME_EVERY=1` breaks it off at all of them.
fn every() -> usize {
    std::env::var("SPO_RESUME_EVERY").ok().and_then(|every| every.parse().ok()).unwrap_or(9)
}

#[test]
fn a_run_that_breaks_off_goes_on_bit_for_bit() {
    let place = Place::new("");
    let (expected, events) = place.whole();
    for at in (1..=events).step_by(every()) {
        place.broken_off(at);
        assert_eq!(damaged(&go_on(&place.out, &[]).unwrap()), Vec::<String>::new(), "event {at}");
        assert_same(&left(&place.out), &expected, &format!("event {at}"));
        place.clear();
    }
}

#[test]
fn a_run_that_is_asked_to_stop_goes_on_bit_for_bit() {
    let place = Place::new("");
    let (expected, events) = place.whole();
    for at in (1..=events).step_by(every()) {
        let stop = AtomicBool::new(false);
        match start(&place.spec, &mut Breaks { at, stop: Some(&stop), seen: 0 }, &stop) {
            Err(TrainError::Interrupted { .. }) => {}
            other => panic!("event {at}: {other:?}"),
        }
        go_on(&place.out, &[]).unwrap();
        assert_same(&left(&place.out), &expected, &format!("event {at}"));
        place.clear();
    }
}

#[test]
fn adapters_and_16_bit_weights_go_on_bit_for_bit() {
    for dtype in ["f32", "bf16"] {
        let mut place = Place::new("[lora]\nrank = 2\n");
        place.spec.apply_set(&format!("model.dtype={dtype}")).unwrap();
        let (expected, _) = place.whole();
        for at in [9, 19, 33] {
            place.broken_off(at);
            go_on(&place.out, &[]).unwrap();
            assert_same(&left(&place.out), &expected, &format!("{dtype}, event {at}"));
            place.clear();
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_all(&path, &target),
            false => assert!(std::fs::copy(&path, &target).is_ok()),
        }
    }
}

#[allow(clippy::ptr_arg)]
fn flip(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn cut(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() - 2);
}

fn damage(path: &Path, how: fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    how(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn every_damaged_file_is_noticed_and_made_again() {
    let place = Place::new("");
    let (expected, events) = place.whole();
    // In the second round, so that there is something of everything.
    place.broken_off(events * 6 / 10);
    let kept = place.out.with_extension("kept");
    std::fs::rename(&place.out, &kept).unwrap();
    let newest = |dir: &str, ending: &str| {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(kept.join(dir)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|found| found == ending));
        files.sort();
        files.pop().unwrap().strip_prefix(&kept).unwrap().to_str().unwrap().to_owned()
    };
    let files = [
        newest("checkpoints", "safetensors"),
        newest("policies/warmup", "safetensors"),
        newest("policies/round-1-honesty", "json"),
        newest("policies/round-1-honesty@best", "safetensors"),
        newest("policies/warmup@best", "json"),
        newest("cache", "logps"),
        "events.jsonl".into(),
        "progress.jsonl".into(),
    ];
    for file in &files {
        for (what, how) in [("flipped", flip as fn(&mut Vec<u8>)), ("cut", cut)] {
            copy_all(&kept, &place.out);
            damage(&place.out.join(file), how);
            let faults = damaged(&go_on(&place.out, &[]).unwrap());
            // The end of these may be missing: it was being written, and nothing refers to it.
            let silent = file.ends_with(".jsonl") && what == "cut";
            assert!(silent || faults.iter().any(|fault| fault.contains(file.as_str())), "{what} {file}: {faults:?}");
            let (mut found, mut wanted) = (left(&place.out), expected.clone());
            if !file.starts_with("checkpoints/") {
                // Stages are done again with what the cache has by then, and their events tell so.
                for left in [&mut found, &mut wanted] {
                    left.remove("summary.json").unwrap();
                    let events = String::from_utf8(left.remove("events.jsonl").unwrap()).unwrap();
                    let kept = events.lines().filter(|line| !line.contains("\"event\":\"scored\""));
                    left.insert("events.jsonl".into(), kept.collect::<Vec<_>>().join("\n").into());
                }
            }
            assert_same(&found, &wanted, &format!("{what} {file}"));
            place.clear();
        }
    }
    for how in [flip as fn(&mut Vec<u8>), cut] {
        copy_all(&kept, &place.out);
        damage(&place.out.join("manifest.json"), how);
        let error = go_on(&place.out, &[]).unwrap_err();
        assert!(matches!(error, TrainError::Damaged { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--allow manifest"));
        let (mut seen, stop) = (Memory::default(), AtomicBool::new(false));
        let prepared = prepare(&place.spec, &mut Memory::default()).unwrap();
        resume(prepared, &place.out, &[Change::Manifest], &mut seen, &stop).unwrap();
        place.clear();
    }
}

#[test]
fn damaged_policies_of_a_running_round_are_noticed_and_made_again() {
    let mut place = Place::new("");
    for change in ["training.steps=5", "rounds.0.early-stopping={ metric = \"loss\", patience = 9 }"] {
        place.spec.apply_set(change).unwrap();
    }
    let mut seen = Memory::default();
    start(&place.spec, &mut seen, &AtomicBool::new(false)).unwrap();
    let expected = left(&place.out);
    place.clear();
    let last =
        |record: &Record| matches!(&record.event, Event::Step(of) if of.phase == "round-1-honesty" && of.step == 5);
    place.broken_off(seen.0.iter().position(last).unwrap() + 1);
    let kept = place.out.with_extension("kept");
    std::fs::rename(&place.out, &kept).unwrap();
    let names = std::fs::read_dir(kept.join("policies")).unwrap().map(|entry| entry.unwrap().file_name());
    let running: Vec<String> =
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.contains("round-1")).collect();
    assert_eq!(running.len(), 2, "{running:?}");
    // Killed while one best policy took the place of another: the new one is whole, the old one partly removed.
    copy_all(&kept, &place.out);
    let best = place.out.join("policies/round-1-honesty@best");
    copy_all(&best, &place.out.join("policies/.round-1-honesty@best.part"));
    std::fs::remove_file(best.join("config.json")).unwrap();
    assert_eq!(damaged(&go_on(&place.out, &[]).unwrap()), Vec::<String>::new());
    assert_same(&left(&place.out), &expected, "a best policy in the middle of being replaced");
    place.clear();
    for (what, how) in [("flipped", flip as fn(&mut Vec<u8>)), ("cut", cut)] {
        for name in &running {
            for file in ["model.safetensors", "config.json", "checksums.json"] {
                copy_all(&kept, &place.out);
                damage(&place.out.join("policies").join(name).join(file), how);
                let faults = damaged(&go_on(&place.out, &[]).unwrap());
                assert!(faults.iter().any(|fault| fault.contains(file)), "{what} {name}/{file}: {faults:?}");
                assert_same(&left(&place.out), &expected, &format!("{what} {name}/{file}"));
                place.clear();
            }
        }
    }
}

/// The changes that resuming is refused for.
fn refused(out: &Path) -> Vec<(&'static str, String)> {
    match go_on(out, &[]) {
        Err(error @ TrainError::Changed { .. }) => {
            assert!(error.hint().unwrap().contains("--resume"), "{:?}", error.hint());
            let TrainError::Changed { changes, .. } = error else { unreachable!() };
            changes
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_has_changed_is_named_and_must_be_allowed() {
    let mut place = Place::new("");
    let dir = place.out.parent().unwrap().to_path_buf();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets");
    copy_all(&assets.join("stories260K"), &dir.join("model"));
    place.spec.apply_set(&format!("model.path={}", dir.join("model").display())).unwrap();
    place.broken_off(20);
    let data = std::fs::read(dir.join("pairs.jsonl.gz")).unwrap();
    std::fs::copy(assets.join("truthfulqa/pairs.test.jsonl.gz"), dir.join("pairs.jsonl.gz")).unwrap();
    assert_eq!(refused(&place.out), [("data", "pairs.jsonl.gz has other bytes".into())]);
    std::fs::write(dir.join("pairs.jsonl.gz"), data).unwrap();
    let config = dir.join("model/tokenizer_config.json");
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + "\n").unwrap();
    assert_eq!(refused(&place.out), [("model", "tokenizer_config.json has other bytes".into())]);

    // A run of another version.
    let manifest = place.out.join("manifest.json");
    let mut sealed: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&manifest).unwrap()).unwrap();
    sealed["manifest"]["version"] = "0.0.9".into();
    // It did not know one of today's keys.
    let plan = sealed["manifest"]["plan"].as_array_mut().unwrap();
    let unknown = plan.iter().position(|line| line.as_str().unwrap().contains(".adam-eps = ")).unwrap();
    let unknown = format!("is  {}", plan.remove(unknown).as_str().unwrap());
    sealed["blake3"] = blake3::hash(sealed["manifest"].to_string().as_bytes()).to_hex()[..32].into();
    std::fs::write(&manifest, sealed.to_string()).unwrap();
    let version = format!("the run began with spo 0.0.9, this is {}", env!("CARGO_PKG_VERSION"));
    let found = refused(&place.out);
    let expected =
        [("version", unknown), ("model", "tokenizer_config.json has other bytes".into()), ("version", version)];
    assert_eq!(found, expected);
    let seen = go_on(&place.out, &[Change::Model, Change::Version]).unwrap();
    let warned = |record: &Record| matches!(&record.event, Event::Warning { text } if text.contains("0.0.9"));
    assert!(seen.0.iter().any(warned), "the run remembers it");
    go_on(&place.out, &[]).unwrap();
}
