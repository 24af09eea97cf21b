//! Reading an event file while a run still writes it.

use crate::TrainError;
use crate::events::sink::Record;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of what was read is compared to notice that a file was written anew.
const CHECKED: u64 = 256;

/// How far a reader has come in an event file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Bytes read: the end of a line.
    pub offset: u64,
    /// Checksum of the last bytes before it. A resumed run cuts its file back to its checkpoint; then this differs.
    pub check: u32,
}

/// Lines that were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Added {
    /// Whole lines; one that is still being written is left for the next time.
    pub text: String,
    /// Where the next reading begins.
    pub next: Cursor,
    /// Whether the file is no longer the one that was read, so that `text` begins at its start again.
    pub restarted: bool,
}

/// Reads the lines of `path` behind a cursor, at most about `limit` bytes of them.
///
/// # Errors
/// The file cannot be read or is not UTF-8.
pub fn read_added(path: &Path, from: Cursor, limit: u64) -> Result<Added, TrainError> {
    let failed = |e| TrainError::io(path, e);
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let same = from.offset <= length && check(&mut file, from.offset).map_err(failed)? == from.check;
    let start = if same { from.offset } else { 0 };
    let mut bytes = vec![];
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    file.by_ref().take(limit).read_to_end(&mut bytes).map_err(failed)?;
    // A line longer than the limit is read whole.
    while !bytes.contains(&b'\n') && file.by_ref().take(limit).read_to_end(&mut bytes).map_err(failed)? > 0 {}
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let offset = start + bytes.len() as u64;
    let damaged = |_| TrainError::Damaged { path: path.into(), reason: "it is not UTF-8".into() };
    let text = String::from_utf8(bytes).map_err(damaged)?;
    let next = Cursor { offset, check: check(&mut file, offset).map_err(failed)? };
    Ok(Added { text, next, restarted: !same })
}

fn check(file: &mut File, offset: u64) -> std::io::Result<u32> {
    let length = offset.min(CHECKED);
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(offset - length))?;
    file.read_exact(&mut bytes)?;
    Ok(if length == 0 { 0 } else { crc32fast::hash(&bytes) })
}

/// Follows the events of a run from another process.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    cursor: Cursor,
}

impl Follower {
    /// A reader of an event file, from its start.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), cursor: Cursor::default() }
    }

    /// The events added since the last call, and whether they begin at the file's start again.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not an event.
    pub fn poll(&mut self) -> Result<(Vec<Record>, bool), TrainError> {
        let added = read_added(&self.path, self.cursor, u64::MAX)?;
        let parse = |line: &str| {
            serde_json::from_str(line)
                .map_err(|e| TrainError::Damaged { path: self.path.clone(), reason: format!("{e} in: {line}") })
        };
        let records = added.text.lines().map(parse).collect::<Result<_, _>>()?;
        self.cursor = added.next;
        Ok((records, added.restarted))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::events::Event;
    use std::io::Write;

    fn line(text: &str) -> String {
        let record = Record { at: 1.0, event: Event::Warning { text: text.into() } };
        format!("{}\n", serde_json::to_string(&record).unwrap())
    }

    fn texts(records: &[Record]) -> Vec<&str> {
        let text = |record: &'_ Record| match &record.event {
            Event::Warning { text } => text.clone(),
            other => panic!("{other:?}"),
        };
        records.iter().map(text).map(|text| &*text.leak()).collect()
    }

    #[test]
    fn whole_lines_are_read_once_and_a_cut_file_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut file = File::create(&path).unwrap();
        let mut follower = Follower::new(&path);
        assert_eq!(follower.poll().unwrap(), (vec![], false));
        let second = line("two");
        let (half, rest) = second.split_at(9);
        write!(file, "{}{half}", line("one")).unwrap();
        assert_eq!(texts(&follower.poll().unwrap().0), ["one"]);
        assert_eq!(follower.poll().unwrap(), (vec![], false), "half a line is no event yet");
        write!(file, "{rest}").unwrap();
        assert_eq!(texts(&follower.poll().unwrap().0), ["two"]);
        // A resumed run: cut back and written on, longer than before.
        std::fs::write(&path, line("one") + &line("other") + &line("three")).unwrap();
        let (records, restarted) = follower.poll().unwrap();
        assert!(restarted);
        assert_eq!(texts(&records), ["one", "other", "three"]);
        std::fs::write(&path, line("one")).unwrap();
        assert!(follower.poll().unwrap().1, "a shorter file is another one");
        std::fs::write(&path, "no event\n").unwrap();
        assert!(matches!(follower.poll(), Err(TrainError::Damaged { .. })));
    }

    #[test]
    fn a_limit_ends_at_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, "aaaa\nbb\ncccccccccccc\n").unwrap();
        let mut cursor = Cursor::default();
        let mut read = || {
            let added = read_added(&path, cursor, 8).unwrap();
            assert!(!added.restarted);
            cursor = added.next;
            added.text
        };
        assert_eq!([read(), read(), read()], ["aaaa\nbb\n", "cccccccccccc\n", ""]);
    }
}
