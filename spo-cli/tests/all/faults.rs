//! Disks, rights, clocks and data that fail in the middle of a run: a clear error, and a run that goes on bit for bit
//! once the fault is mended.
#![cfg(unix)]

use crate::left::{assert_same, left};
use crate::support::{Ended, ended, path, small_run, spo};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A directory in which a run file, its data and the run lie.
struct Place {
    dir: TempDir,
    file: String,
    out: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = small_run(dir.path());
        let text = fs::read_to_string(&file).unwrap() + "[checkpoints]\nevery-steps = 1\n";
        fs::write(&file, text).unwrap();
        Self { file: path(&file), out: dir.path().join("run"), dir }
    }

    /// A place whose training data are a file of its own.
    fn with_data() -> (Self, PathBuf) {
        let place = Self::new();
        let data = place.dir.path().join("pairs.jsonl");
        let row = |index: usize| {
            format!(
                "{{\"prompt\": \"Why {index}?\", \"response_a\": \"Because of {index}.\", \"response_b\": \"No.\", \
                \"prefs\": {{\"honesty\": 1, \"helpfulness\": -1}}}}\n"
            )
        };
        fs::write(&data, (0..40).map(row).collect::<String>()).unwrap();
        let text = fs::read_to_string(&place.file).unwrap();
        let built_in = text.lines().find(|line| line.contains("pairs.train.jsonl.gz")).unwrap().to_owned();
        fs::write(&place.file, text.replace(&built_in, "path = \"pairs.jsonl\"")).unwrap();
        (place, data)
    }

    fn whole(&self) -> BTreeMap<String, Vec<u8>> {
        let ended = spo(&["train", &self.file]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let left = left(&self.out);
        fs::remove_dir_all(&self.out).unwrap();
        left
    }

    fn resume(&self) -> Ended {
        spo(&["train", "--resume", self.out.to_str().unwrap()])
    }

    #[track_caller]
    fn goes_on(&self, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
        let ended = self.resume();
        assert_eq!(ended.code, 0, "{what}:\n{}", ended.err);
        assert_same(&left(&self.out), expected, what);
    }

    /// A run that breaks off in its second round, as its files may not grow beyond a limit of this many bytes.
    fn broken_off(&self, blocks: usize) -> Ended {
        let script = format!("trap '' XFSZ; ulimit -f {blocks} && exec \"$0\" train \"$1\"");
        ended(Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_spo"), &self.file]))
    }
}

#[track_caller]
fn refused(found: &Ended, words: &[&str]) {
    assert_eq!(found.code, 1, "{}", found.err);
    for word in words {
        assert!(found.err.contains(word), "no {word:?} in:\n{}", found.err);
    }
    assert!(!found.err.contains("panicked"), "{}", found.err);
}

/// Whether file systems can be mounted for a command of one's own.
fn may_mount() -> bool {
    let can = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    let can = can.is_ok_and(|output| output.status.success());
    if !can {
        println!("skipped: no file system may be mounted here");
    }
    can
}

#[test]
fn a_full_disk() {
    if !may_mount() {
        return;
    }
    let place = Place::new();
    let expected = place.whole();
    let whole: usize = expected.values().map(Vec::len).sum();
    // The disk, a directory of its own, is full at several points of the run; then it is enlarged.
    for share in [0.2, 0.4, 0.6, 0.8] {
        let script = "mount -t tmpfs -o size=\"$2\" tmpfs \"$3\" || exit 99\n\
            \"$0\" train \"$1\" 2>\"$4/refused\"; echo $? >\"$4/refused.code\"; ls \"$3\" >>\"$4/refused.code\"\n\
            \"$0\" train --allow disk \"$1\" 2>\"$4/full\"; echo $? >\"$4/full.code\"\n\
            mount -o remount,size=256m \"$3\" || exit 99\n\
            \"$0\" train --resume \"$3\" 2>\"$4/resumed\"; echo $? >\"$4/resumed.code\"\n\
            cp -r \"$3\" \"$4/kept\"";
        let (disk, log) = (place.dir.path().join("run"), place.dir.path().join(format!("log-{share}")));
        fs::create_dir_all(&disk).unwrap();
        fs::create_dir_all(&log).unwrap();
        let size = format!("{}k", (share * whole as f64) as usize / 1024);
        let (disk, target) = (path(&disk), path(&log));
        let arguments = ["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_spo"), &place.file, &size, &disk, &target];
        let ended = ended(Command::new("unshare").args(arguments));
        assert_eq!(ended.code, 0, "{}", ended.err);
        let read = |name: &str| fs::read_to_string(log.join(name)).unwrap();
        assert_eq!(read("full.code").trim(), "1", "{}", read("full"));
        let full = read("full");
        assert!(full.contains("No space left on device") || full.contains("no room on the disk"), "{full}");
        for words in ["free some space", "--resume"] {
            assert!(full.contains(words), "no {words:?} in:\n{full}");
        }
        assert_eq!(read("refused.code").trim(), "1", "nothing is begun:\n{}", read("refused"));
        for words in ["no room on the disk", "MiB are to be written", "--allow disk"] {
            assert!(read("refused").contains(words), "no {words:?} in:\n{}", read("refused"));
        }
        assert_eq!(read("resumed.code").trim(), "0", "{}", read("resumed"));
        assert_same(&left(&log.join("kept")), &expected, &format!("{share} of the disk"));
    }
}

#[test]
fn files_that_cannot_grow() {
    let place = Place::new();
    let expected = place.whole();
    let found = place.broken_off(64);
    refused(&found, &["too large", "free some space"]);
    place.goes_on(&expected, "a limit of the size of files");
}

#[test]
fn a_read_only_file_system() {
    if !may_mount() {
        return;
    }
    let place = Place::new();
    let script = "mount --bind \"$2\" \"$2\" && mount -o remount,ro,bind \"$2\" || exit 99\n exec \"$0\" train \"$1\"";
    let root = path(place.dir.path());
    let arguments = ["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_spo"), &place.file, &root];
    refused(&ended(Command::new("unshare").args(arguments)), &["run: Read-only file system"]);
}

/// A copy of the program and of what a run reads, for a user without rights.
struct Nobody {
    place: Place,
    program: PathBuf,
}

impl Nobody {
    fn new() -> Self {
        let place = Place::new();
        let root = place.dir.path();
        let program = root.join("spo");
        fs::copy(env!("CARGO_BIN_EXE_spo"), &program).unwrap();
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let mut text = fs::read_to_string(&place.file).unwrap();
        for name in ["stories260K", "truthfulqa"] {
            let target = root.join(name);
            fs::create_dir(&target).unwrap();
            for entry in fs::read_dir(assets.join(name)).unwrap().map(Result::unwrap) {
                let file = target.join(entry.file_name());
                fs::copy(entry.path(), &file).unwrap();
                fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
            }
            text = text.replace(&path(&assets.join(name)), &path(&target));
        }
        fs::write(&place.file, text).unwrap();
        let nobody = Self { place, program };
        for name in ["", "stories260K", "truthfulqa", "spo"] {
            nobody.allow(name, 0o755);
        }
        nobody
    }

    fn allow(&self, name: &str, mode: u32) {
        fs::set_permissions(self.place.dir.path().join(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Runs the program; as another user where this one is root, who may do anything.
    fn spo(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.place.dir.path());
        let root = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap_or(0) == 0;
        if root {
            command.uid(65534).gid(65534);
        }
        ended(&mut command)
    }
}

#[test]
fn missing_rights() {
    let nobody = Nobody::new();
    let out = path(&nobody.place.out);
    nobody.allow("", 0o555);
    refused(&nobody.spo(&["train", "run.toml"]), &["run: Permission denied"]);
    nobody.allow("", 0o777);
    let ended = nobody.spo(&["train", "run.toml"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let expected = left(&nobody.place.out);
    // Of a run that is over, one file after the other.
    for (name, forbidden, allowed) in [
        ("events.jsonl", 0o000, 0o644),
        ("manifest.json", 0o000, 0o644),
        ("policies", 0o000, 0o755),
        ("lock", 0o000, 0o644),
    ] {
        let name = format!("run/{name}");
        nobody.allow(&name, forbidden);
        refused(&nobody.spo(&["train", "--resume", &out]), &["Permission denied", &name]);
        nobody.allow(&name, allowed);
    }
    nobody.allow("truthfulqa/pairs.train.jsonl.gz", 0o000);
    refused(&nobody.spo(&["train", "--resume", &out]), &["Permission denied", "pairs.train.jsonl.gz"]);
    nobody.allow("truthfulqa/pairs.train.jsonl.gz", 0o644);
    let ended = nobody.spo(&["train", "--resume", &out]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_same(&left(&nobody.place.out), &expected, "rights came and went");
}

#[test]
fn data_that_are_gone_or_broken() {
    let (place, data) = Place::with_data();
    let expected = place.whole();
    refused(&place.broken_off(64), &["too large"]);
    let text = fs::read(&data).unwrap();
    fs::remove_file(&data).unwrap();
    let gone = place.resume();
    assert!(gone.code == 2 && gone.err.contains("`data.0.path`") && gone.err.contains("pairs.jsonl"), "{}", gone.err);
    let line = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(19).unwrap().0;
    for (what, bytes) in [("no JSON", &b"{\"prompt\": "[..]), ("no UTF-8", &b"{\"prompt\": \"\xff\xfe\"}"[..])] {
        fs::write(&data, [&text[..=line], bytes, b"\n", &text[line + 1..]].concat()).unwrap();
        let found = place.resume();
        assert!(
            found.err.contains("pairs.jsonl, line 21") || found.err.contains("pairs.jsonl:21"),
            "{what}:\n{}",
            found.err
        );
        refused(&found, &[]);
    }
    fs::write(&data, text).unwrap();
    place.goes_on(&expected, "the data are back");
}

#[test]
fn a_clock_that_jumps() {
    let place = Place::new();
    let expected = place.whole();
    let day = Duration::from_secs(24 * 3600);
    for (what, time) in [("a year ahead", SystemTime::now() + 365 * day), ("to 1970", SystemTime::UNIX_EPOCH + day)] {
        refused(&place.broken_off(64), &["too large"]);
        // The files are from another time than the process that goes on.
        let mut open = vec![place.out.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    open.push(entry);
                } else {
                    fs::File::options().append(true).open(entry).unwrap().set_modified(time).unwrap();
                }
            }
        }
        let watched = spo(&["watch", place.out.to_str().unwrap(), "--once"]);
        assert_eq!(watched.code, 0, "{}", watched.err);
        place.goes_on(&expected, what);
        fs::remove_dir_all(&place.out).unwrap();
    }
}
