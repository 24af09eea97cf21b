//! The program killed, interrupted and started again: what it leaves is what an undisturbed run leaves, bit for bit.
#![cfg(unix)]

use crate::left::{assert_same, left};
use crate::support::{self, Ended, path, small_run, spo};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A run file with everything that a kill may hit: warm-up, evaluations on the way, checkpoints after every step, the
/// best of each round, a policy that is kept aside for early stopping.
const MORE: &str = r#"
[warmup]
dimensions = ["honesty"]
steps = 3
[checkpoints]
every-steps = 1
keep-best = "loss"
"#;
const SETS: [&str; 3] =
    ["training.steps=4", "training.eval-every=2", "rounds.0.early-stopping={ metric = \"loss\", patience = 9 }"];

struct Place {
    _dir: TempDir,
    file: String,
    out: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = small_run(dir.path());
        let text = std::fs::read_to_string(&file).unwrap() + MORE;
        std::fs::write(&file, text).unwrap();
        Self { file: path(&file), out: dir.path().join("run"), _dir: dir }
    }

    fn train(&self, sets: &[&str]) -> Vec<String> {
        let mut arguments = vec!["train".to_owned(), self.file.clone()];
        arguments.extend(SETS.iter().chain(sets).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        arguments
    }

    fn resume(&self, more: &[&str]) -> Vec<String> {
        let arguments = ["train", "--resume", self.out.to_str().unwrap()];
        arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    }

    /// What an undisturbed run leaves, and how long it takes; the place is empty again then.
    fn whole(&self, sets: &[&str]) -> (BTreeMap<String, Vec<u8>>, Duration) {
        let started = Instant::now();
        let ended = spo(&self.train(sets));
        let took = started.elapsed();
        assert_eq!(ended.code, 0, "{}", ended.err);
        let left = left(&self.out);
        self.clear();
        (left, took)
    }

    fn clear(&self) {
        std::fs::remove_dir_all(&self.out).unwrap();
    }

    /// Goes on to the end; from the start where the run was killed before it had begun.
    fn go_on(&self, sets: &[&str]) -> Ended {
        let ended = spo(&self.resume(&[]));
        let ended = if ended.err.contains("no run has begun here") { spo(&self.train(sets)) } else { ended };
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended
    }

    /// A run that a termination signal ended after a step of its second round.
    fn interrupted(&self) {
        let mut child = Running::start(&self.train(&["training.steps=6"]));
        child.wait_for("round-2-helpfulness step 3/");
        child.signal("-TERM");
        let (code, rest) = child.end();
        assert_eq!(code, Some(130), "{rest}");
    }

    fn checkpoints(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.out.join("checkpoints")).unwrap();
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
        files.sort();
        files
    }

    fn last_event(&self) -> String {
        let events = std::fs::read_to_string(self.out.join("events.jsonl")).unwrap();
        events.lines().last().unwrap().to_owned()
    }
}

struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Running {
    fn start(arguments: &[String]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
        Self::spawn(command.args(arguments))
    }

    fn spawn(command: &mut Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    fn wait_for(&mut self, words: &str) {
        let mut seen = vec![];
        for line in self.lines.by_ref().map(Result::unwrap) {
            if line.contains(words) {
                return;
            }
            seen.push(line);
        }
        panic!("no {words:?} in:\n{}", seen.join("\n"));
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Its exit code and what it still said.
    fn end(mut self) -> (Option<i32>, String) {
        let rest: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        (self.child.wait().unwrap().code(), rest.join("\n"))
    }
}

/// Starts the program and kills it after a while, if it is not done by then.
fn killed(arguments: &[String], after: Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Numbers in [0, 1) from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// `SPO_KILLS=50` kills that often; `SPO_KILL_SEED` draws other moments.
#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let place = Place::new();
    let (expected, took) = place.whole(&[]);
    let mut random = Random(number("SPO_KILL_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1));
    let (kills, mut done) = (number("SPO_KILLS", 6), 0);
    while done < kills {
        killed(&place.train(&[]), took.mul_f64(random.next()));
        done += 1;
        // What goes on may be killed too.
        while done < kills && random.next() < 0.4 {
            killed(&place.resume(&[]), took.mul_f64(random.next()));
            done += 1;
        }
        let ended = place.go_on(&[]);
        let from = ended.err.lines().find(|line| line.contains("going on from")).unwrap_or("from the start");
        println!("kill {done}: {from}");
        assert!(!ended.err.contains("damaged"), "a kill damages nothing:\n{}", ended.err);
        assert_same(&left(&place.out), &expected, &format!("kill {done}, {from}"));
        place.clear();
    }
}

#[test]
fn signals_end_a_run_after_a_step_with_a_checkpoint() {
    let place = Place::new();
    // Checkpoints by the signal alone.
    let sets = ["training.steps=30", "checkpoints.every-steps=0", "checkpoints.every-minutes=0"];
    let (expected, _) = place.whole(&sets);
    for signal in ["-INT", "-TERM"] {
        let mut child = Running::start(&place.train(&sets));
        child.wait_for("round-1-honesty step ");
        child.signal(signal);
        let (code, rest) = child.end();
        assert_eq!(code, Some(130), "{rest}");
        for words in ["stopping after this step", "interrupted", "spo train --resume"] {
            assert_eq!(rest.matches(words).count(), 1, "{words:?} once in:\n{rest}");
        }
        assert_eq!(place.checkpoints().len(), 1);
        let ended = place.go_on(&sets);
        assert!(ended.err.contains("going on from step "), "{}", ended.err);
        assert_eq!(place.checkpoints().len(), 1, "none is written where none is due");
        assert_same_but_checkpoints(&place, &expected, signal);
        place.clear();
    }
}

/// The signal's own checkpoint stays among the last ones.
fn assert_same_but_checkpoints(place: &Place, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    let mut found = left(&place.out);
    found.retain(|name, _| !name.starts_with("checkpoints/-"));
    let mut expected = expected.clone();
    expected.retain(|name, _| !name.starts_with("checkpoints/-"));
    assert_same(&found, &expected, what);
}

#[test]
fn a_signal_while_data_are_read_ends_the_program_at_once() {
    let place = Place::new();
    let data = place.out.with_extension("jsonl");
    let row = |index: usize| format!("{{\"prompt\": \"Why {index}?\", \"chosen\": \"Yes.\", \"rejected\": \"No.\"}}\n");
    std::fs::write(&data, (0..400_000).map(row).collect::<String>()).unwrap();
    let sets =
        [format!("data.0.path={}", path(&data)), "data.0.dimension=honesty".into(), "data.0.limit=400000".into()];
    let mut child = Running::start(&place.train(&sets.each_ref().map(String::as_str)));
    child.wait_for("rows read");
    child.signal("-INT");
    let (code, rest) = child.end();
    assert_eq!(code, Some(130), "{rest}");
    assert!(rest.contains("interrupted while data and model were read"), "{rest}");
    assert!(!place.out.exists(), "nothing was begun");
    assert_eq!(spo(&place.train(&[])).code, 0, "and nothing is in the way");
}

#[test]
fn a_second_signal_ends_a_run_at_once_and_harms_nothing() {
    let place = Place::new();
    // Long steps, so that the second signal comes in the middle of one.
    let sets = ["data.0.limit=600", "training.pairs-per-step=300", "warmup.steps=1", "training.steps=2"];
    let (expected, _) = place.whole(&sets);
    let twice = || {
        let mut child = Running::start(&place.train(&sets));
        child.wait_for("round-1-honesty step 1/");
        // Into the next step.
        std::thread::sleep(Duration::from_millis(100));
        child.signal("-INT");
        child.wait_for("stopping after this step");
        child.signal("-INT");
        let (code, rest) = child.end();
        assert_eq!(code, Some(130), "{rest}");
        !place.last_event().contains("run-stopped")
    };
    // Where the step was over before the second signal, the run ended in order: that is another test.
    let at_once = (0..5).any(|_| {
        twice() || {
            place.clear();
            false
        }
    });
    assert!(at_once, "the second signal was never in time");
    place.go_on(&sets);
    assert_same(&left(&place.out), &expected, "two signals");
}

/// Damage by name, and what it does to a file's bytes.
type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: [Damage; 3] = [
    ("a flipped byte", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }),
    ("a cut end", |bytes| bytes.truncate(bytes.len() - 1)),
    ("an empty file", Vec::clear),
];

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

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_taken() {
    let place = Place::new();
    let (expected, _) = place.whole(&["training.steps=6"]);
    place.interrupted();
    let (whole, name) = (place.out.with_extension("whole"), |path: &Path| path.file_name().unwrap().to_owned());
    std::fs::rename(&place.out, &whole).unwrap();
    let mut tried = 0;
    for (what, damage) in DAMAGES {
        for count in 1..=2 {
            copy_all(&whole, &place.out);
            let files = place.checkpoints();
            assert_eq!(files.len(), 2, "keep-last");
            for file in &files[2 - count..] {
                let mut bytes = std::fs::read(file).unwrap();
                damage(&mut bytes);
                std::fs::write(file, bytes).unwrap();
            }
            let ended = place.go_on(&[]);
            let said = |file: &Path, word: &str| {
                let name = name(file).into_string().unwrap();
                ended.err.lines().any(|line| line.contains(word) && line.contains(&name))
            };
            assert!(files[2 - count..].iter().all(|file| said(file, "damaged")), "{what}:\n{}", ended.err);
            match count {
                1 => assert!(said(&files[0], "going on from step"), "{what}:\n{}", ended.err),
                _ => assert!(ended.err.contains("going on from the end of"), "{what}:\n{}", ended.err),
            }
            assert_same(&left(&place.out), &expected, what);
            place.clear();
            tried += 1;
        }
    }
    assert_eq!(tried, 6);
}

#[test]
fn the_quickstart_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("quick");
    let sets = ["data.0.limit=64", "data.1.limit=64", "warmup.steps=2", "training.steps=4", "training.warmup-steps=0"];
    let fast = ["evaluation.kl-samples=2", "evaluation.kl-max-new-tokens=4", "evaluation.samples=1"];
    let mut arguments: Vec<String> = ["quickstart", "--device", "cpu", "--out"].map(String::from).to_vec();
    arguments.push(path(&out));
    arguments.extend(sets.iter().chain(&fast).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
    assert_eq!(spo(&arguments).code, 0);
    let expected = left(&out);
    std::fs::remove_dir_all(&out).unwrap();
    let mut child = Running::start(&arguments);
    child.wait_for("round-1-honesty step 1/");
    child.signal("-TERM");
    assert_eq!(child.end().0, Some(130));
    let ended = spo(&["train", "--resume", out.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("going on from"), "{}", ended.err);
    let mut found = left(&out);
    // The signal's own checkpoint.
    found.retain(|name, _| !name.starts_with("checkpoints/"));
    let expected = expected.into_iter().filter(|(name, _)| !name.starts_with("checkpoints/")).collect();
    assert_same(&found, &expected, "the quickstart");
}

#[test]
fn a_changed_run_goes_on_only_if_that_is_allowed() {
    let place = Place::new();
    place.interrupted();
    let file = Path::new(&place.file);
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replace("pairs-per-step = 4", "pairs-per-step = 5")).unwrap();
    let refused = spo(&place.resume(&[]));
    assert_eq!(refused.code, 2, "{}", refused.err);
    for words in ["run-file: was rounds.0.arms.0.pairs-per-step = 4", "is", "pairs-per-step = 5", "--allow run-file"] {
        assert!(refused.err.contains(words), "no {words:?} in:\n{}", refused.err);
    }
    assert_eq!(spo(&place.resume(&["--allow", "data,model,version"])).code, 2, "another change is allowed");
    let ended = spo(&place.resume(&["--allow", "run-file"]));
    assert_eq!(ended.code, 0, "{}", ended.err);
    let events = std::fs::read_to_string(place.out.join("events.jsonl")).unwrap();
    assert!(events.contains("although something has changed: run-file: was"), "the run remembers it");
    let again = spo(&place.resume(&[]));
    assert_eq!(again.code, 0, "from then on the run is the changed one:\n{}", again.err);
}

#[test]
fn relative_paths_of_arguments_are_those_of_the_first_start() {
    let place = Place::new();
    let dir = place.out.parent().unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    copy_all(&assets.join("stories260K"), &dir.join("here/model"));
    std::fs::copy(assets.join("truthfulqa/pairs.train.jsonl.gz"), dir.join("here/pairs.jsonl.gz")).unwrap();
    let paths = ["model.path=model", "data.0.path=[\"pairs.jsonl.gz\"]", "token-cache=tokens", "training.steps=6"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    command.args(place.train(&paths)).current_dir(dir.join("here"));
    let mut child = Running::spawn(&mut command);
    child.wait_for("round-2-helpfulness step 3/");
    child.signal("-TERM");
    assert_eq!(child.end().0, Some(130));
    std::fs::create_dir(dir.join("there")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    let ended = support::ended(command.args(place.resume(&[])).current_dir(dir.join("there")));
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(dir.join("here/tokens").is_dir() && std::fs::read_dir(dir.join("there")).unwrap().next().is_none());
}

#[test]
fn another_build_of_the_same_version_must_be_allowed() {
    let place = Place::new();
    place.interrupted();
    let other = place.out.with_extension("program");
    std::fs::copy(env!("CARGO_BIN_EXE_spo"), &other).unwrap();
    let resume = |more: &[&str]| support::ended(Command::new(&other).args(place.resume(more)));
    let same = resume(&["--set", "seed=99"]);
    assert!(same.err.contains("run-file: ") && !same.err.contains("version: "), "the same bytes:\n{}", same.err);
    // What stands behind its end does not change what a program does.
    std::fs::OpenOptions::new().append(true).open(&other).unwrap().write_all(b"another build").unwrap();
    let refused = resume(&[]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    for words in ["version: the run began with another build of spo", "--allow version"] {
        assert!(refused.err.contains(words), "no {words:?} in:\n{}", refused.err);
    }
    let ended = resume(&["--allow", "version"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn two_processes_do_not_share_a_run_directory() {
    let place = Place::new();
    let mut child = Running::start(&place.train(&["training.steps=100000"]));
    child.wait_for("warmup step 1/");
    let second = spo(&place.resume(&[]));
    assert_eq!(second.code, 1);
    let holder = format!("another spo is running here (process {})", child.child.id());
    assert!(second.err.contains(&holder) && second.err.contains("wait for it"), "{}", second.err);
    child.signal("-TERM");
    assert_eq!(child.end().0, Some(130), "the first one was not disturbed");
    let again = spo(&place.train(&[]));
    assert!(again.err.contains("--resume") && again.code == 1, "a run is not begun over another:\n{}", again.err);
}
