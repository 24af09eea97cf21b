//! A program that scores: started once, one JSON object per line in both directions.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{answer, shortened};
use crate::entry::{Entry, OpenError, decoded};
use crate::{Item, ScoreError, Scorer, Scores, Watch};

/// How often the user's interruption is looked for.
const TICK: Duration = Duration::from_millis(100);

pub(crate) const ENTRY: Entry = Entry {
    name: "command",
    summary: "a program of your own: reads {id, prompt, response, messages, dimension}, writes {id, score}",
    example: "command:python3 scorer.py",
    options: || schema_for!(Options),
    argument: Some("command"),
    check: |options| {
        let options: Options = decoded(options)?;
        if options.command.words().is_none_or(|words| words.is_empty()) {
            return Err(OpenError::Options("command is empty, or a quote in it does not close".into()));
        }
        if !(options.timeout.is_finite() && options.timeout > 0.0) || options.batch == 0 {
            return Err(OpenError::Options("timeout and batch must be above 0".into()));
        }
        Ok(())
    },
    open: |options, opening, _| {
        let options: Options = decoded(options)?;
        let (words, log) = (options.command.words().unwrap_or_default(), opening.log.clone());
        let mut program = Program { words, options, log, directory: opening.directory.clone(), running: None, next: 0 };
        // A program that is not there is told of before anything is sampled.
        program.start()?;
        Ok(Box::new(program))
    },
};

/// Options of `command`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The program with its arguments, as one text in a shell's quoting or as a list. No shell runs it.
    command: Words,
    /// Seconds without any answer after which the program counts as hanging and is started anew.
    #[serde(default = "timeout")]
    timeout: f64,
    /// How often it may be started anew in one call; answers that it has given are kept.
    #[serde(default = "restarts")]
    restarts: usize,
    /// Most requests without an answer at a time.
    #[serde(default = "batch")]
    batch: usize,
}

fn timeout() -> f64 {
    120.0
}

fn restarts() -> usize {
    2
}

fn batch() -> usize {
    64
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

impl Words {
    fn words(&self) -> Option<Vec<String>> {
        match self {
            Self::Text(text) => shlex::split(text),
            Self::List(list) => Some(list.clone()),
        }
    }
}

struct Program {
    words: Vec<String>,
    options: Options,
    log: Option<PathBuf>,
    directory: Option<PathBuf>,
    running: Option<Running>,
    /// Ids go on over calls, so that a late answer is known as one.
    next: u64,
}

struct Running {
    child: Child,
    requests: Sender<String>,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn failed(&self, reason: String, hint: Option<&str>) -> ScoreError {
        ScoreError::Failed { scorer: self.words.join(" "), reason, hint: hint.map(Into::into) }
    }

    fn start(&mut self) -> Result<(), ScoreError> {
        let log = match &self.log {
            None => Stdio::inherit(),
            Some(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| self.failed(format!("has no log: {}: {error}", path.display()), None))?
                .into(),
        };
        let mut command = Command::new(&self.words[0]);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let child = command.args(&self.words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.map_err(|error| {
            self.failed(format!("cannot be started: {error}"), Some("is the program's name right, and in PATH?"))
        })?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked for");
        };
        let (requests, to_send) = channel::<String>();
        let (received, lines) = channel();
        // A program that answers before it has read everything, or the other way round, must not block us.
        std::thread::spawn(move || {
            for line in to_send {
                if input.write_all(line.as_bytes()).and_then(|()| input.flush()).is_err() {
                    break;
                }
            }
        });
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut bytes = vec![];
            while matches!(output.read_until(b'\n', &mut bytes), Ok(1..)) {
                if received.send(String::from_utf8_lossy(&bytes).trim().to_owned()).is_err() {
                    break;
                }
                bytes.clear();
            }
        });
        self.running = Some(Running { child, requests, lines });
        Ok(())
    }

    /// Starts the program anew after a fault, as often as it may be.
    fn restart(&mut self, fault: String, left: &mut usize) -> Result<(), ScoreError> {
        self.running = None;
        match left.checked_sub(1) {
            None => {
                let hint = match &self.log {
                    Some(path) => format!("its standard error is in {}", path.display()),
                    None => "its standard error is above".into(),
                };
                let restarts = self.options.restarts;
                Err(self.failed(format!("{fault}, also after {restarts} new starts"), Some(&hint)))
            }
            Some(fewer) => {
                *left = fewer;
                self.start()
            }
        }
    }

    fn request(&self, id: u64, item: &Item) {
        let mut fields = item.fields();
        fields.shift_insert(0, "id".into(), id.into());
        let running = self.running.as_ref().expect("it is started before");
        // Where its input is closed, its output is soon closed too.
        let _ = running.requests.send(Value::Object(fields).to_string() + "\n");
    }

    /// One line of the program's: which item it is about, and what it says of it.
    fn read(&self, line: &str, open: &BTreeMap<u64, usize>) -> Result<(u64, Option<Scores>), ScoreError> {
        let garbage = |found: String, expected: &str| ScoreError::Garbage {
            scorer: self.words.join(" "),
            found,
            expected: expected.into(),
        };
        let expected = "a JSON object with id and score, scores or null";
        let value: Value = serde_json::from_str(line)
            .map_err(|error| garbage(format!("`{}` ({error})", shortened(line)), expected))?;
        let id = value.get("id").and_then(Value::as_u64);
        let id = id.ok_or_else(|| garbage(format!("`{}` without an id", shortened(line)), expected))?;
        if !open.contains_key(&id) {
            return Err(garbage(format!("`{}`", shortened(line)), "the id of a request that has no answer yet"));
        }
        let scores = answer(&value).map_err(|reason| garbage(format!("`{}`: {reason}", shortened(line)), expected))?;
        Ok((id, scores))
    }
}

impl Scorer for Program {
    fn score(&mut self, items: &[Item], watch: Watch) -> Result<Vec<Option<Scores>>, ScoreError> {
        items.iter().try_for_each(|item| item.require_text(&self.words.join(" ")))?;
        let mut scores = vec![None; items.len()];
        let (first, mut sent, mut done) = (self.next, 0, 0);
        self.next += items.len() as u64;
        let mut left = self.options.restarts;
        let mut open: BTreeMap<u64, usize> = BTreeMap::new();
        let timeout = Duration::from_secs_f64(self.options.timeout);
        if self.running.is_none() {
            self.start()?;
        }
        let mut heard = Instant::now();
        while done < items.len() {
            while open.len() < self.options.batch && sent < items.len() {
                self.request(first + sent as u64, &items[sent]);
                open.insert(first + sent as u64, sent);
                sent += 1;
            }
            let running = self.running.as_ref().expect("started above, and anew after a fault");
            let fault = match running.lines.recv_timeout(TICK) {
                Ok(line) if line.is_empty() => None,
                Ok(line) => {
                    let (id, found) = self.read(&line, &open)?;
                    let index = open.remove(&id).expect("it is open");
                    scores[index] = found;
                    done += 1;
                    heard = Instant::now();
                    None
                }
                Err(RecvTimeoutError::Timeout) if heard.elapsed() < timeout => None,
                Err(RecvTimeoutError::Timeout) => Some(format!("gave no answer for {} seconds", self.options.timeout)),
                Err(RecvTimeoutError::Disconnected) => Some("ended before it had answered everything".to_owned()),
            };
            if !watch(done) {
                // What it still computes is of no use to the next call.
                self.running = None;
                return Err(ScoreError::Interrupted);
            }
            if let Some(fault) = fault {
                self.restart(fault, &mut left)?;
                open.iter().for_each(|(id, index)| self.request(*id, &items[*index]));
                heard = Instant::now();
            }
        }
        Ok(scores)
    }
}
