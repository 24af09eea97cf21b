//! A program of the user's that measures every policy: `evaluation.command`.

use crate::TrainError;
use crate::events::Event;
use crate::persist::directory::{self, START};
use crate::run::stages::Driver;
use serde_json::Value;
use spo_eval::Benchmark;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Where the program's standard error goes, in the run directory.
const LOG: &str = "command.log";
/// How often the user's interruption is looked for.
const TICK: Duration = Duration::from_millis(100);
/// Most bytes of a result that are read.
const LARGEST: u64 = 64 << 20;

/// Ends the program where nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Driver<'_> {
    /// Runs the program on a policy and tells what it found. It runs once, however many processes share the run.
    pub(super) fn benchmark(&mut self, policy: &str) -> Result<(), TrainError> {
        let team = self.reporter.team.clone();
        team.root_unhurried(|| self.measure(policy))
    }

    fn measure(&mut self, policy: &str) -> Result<(), TrainError> {
        let Some(command) = &self.plan.evaluation.command else { return Ok(()) };
        let words = shlex::split(command).unwrap_or_default();
        let started = Instant::now();
        let (dir, base) = self.places_of(policy);
        let filled = |word: &String| {
            word.replace("{policy}", &dir.display().to_string())
                .replace("{base}", &base.display().to_string())
                .replace("{name}", policy)
        };
        let words: Vec<String> = words.iter().map(filled).collect();
        let log = self.reporter.out.join(LOG);
        let failed = |reason: String| TrainError::Command {
            command: words.join(" "),
            policy: policy.into(),
            reason,
            log: log.clone(),
        };
        let output = self.output_of(&words, &log, failed)?;
        let (results, seconds) = (results(&output).map_err(failed)?, started.elapsed().as_secs_f64());
        self.reporter.emit(Event::Benchmarked(Benchmark { policy: policy.into(), results, seconds }))
    }

    /// A policy's directory, and that of the model that it belongs to.
    fn places_of(&self, policy: &str) -> (PathBuf, PathBuf) {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        let base = absolute(&self.plan.model.path);
        let start = self.plan.lora.as_ref().and_then(|lora| lora.start.as_deref());
        match policy {
            START => (start.map_or_else(|| base.clone(), absolute), base),
            name => (absolute(&self.reporter.out.join(directory::POLICIES).join(name)), base),
        }
    }

    /// What the program writes until it ends well.
    fn output_of(
        &self,
        words: &[String],
        log: &Path,
        failed: impl Fn(String) -> TrainError,
    ) -> Result<String, TrainError> {
        let errors = OpenOptions::new().create(true).append(true).open(log).map_err(|e| TrainError::io(log, e))?;
        let mut command = Command::new(&words[0]);
        if let Some(directory) = self.prepared.source.path.as_deref().and_then(Path::parent) {
            command.current_dir(directory);
        }
        let child = command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
        let mut running = Running(child.map_err(|error| failed(format!("cannot be started: {error}")))?);
        let output = running.0.stdout.take().expect("it was asked for");
        let (send, read) = channel();
        std::thread::spawn(move || {
            let mut text = vec![];
            let done = output.take(LARGEST).read_to_end(&mut text);
            let _ = send.send(done.map(|_| String::from_utf8_lossy(&text).into_owned()));
        });
        let (started, timeout) = (Instant::now(), self.plan.evaluation.command_timeout);
        let text = loop {
            match read.recv_timeout(TICK) {
                Ok(text) => break text.map_err(|error| failed(format!("cannot be read: {error}")))?,
                Err(RecvTimeoutError::Disconnected) => return Err(failed("cannot be read".into())),
                Err(RecvTimeoutError::Timeout) => self.reporter.check_own_stop()?,
            }
            if started.elapsed().as_secs_f64() > timeout {
                return Err(failed(format!("took longer than command-timeout, {timeout} seconds")));
            }
        };
        let status = running.0.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(text) } else { Err(failed(format!("ended with {status}"))) }
    }
}

/// The numbers of a JSON object, or of the last line where that alone is one; those inside of others have dotted names.
fn results(output: &str) -> Result<BTreeMap<String, f64>, String> {
    let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let value = serde_json::from_str::<Value>(output).or_else(|_| serde_json::from_str(last));
    let shown = || last.chars().take(80).collect::<String>();
    let Ok(Value::Object(table)) = value else {
        return Err(format!("found `{}`, expected a JSON object on standard output", shown()));
    };
    let mut found = BTreeMap::new();
    collect("", &Value::Object(table), &mut found);
    if found.is_empty() { Err(format!("found no number in `{}`", shown())) } else { Ok(found) }
}

fn collect(name: &str, value: &Value, found: &mut BTreeMap<String, f64>) {
    match value {
        Value::Number(number) => found.extend(number.as_f64().map(|number| (name.to_owned(), number))),
        Value::Object(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                collect(&name, value, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::results;

    #[test]
    fn numbers_are_taken_wherever_they_stand() {
        let found =
            results("loading\n{\"results\": {\"arc\": {\"acc,none\": 0.25, \"alias\": \"arc\"}}, \"n\": 7}\n").unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("n".into(), 7.0), ("results.arc.acc,none".into(), 0.25)]);
        assert_eq!(results("{\n \"a\": 1\n}").unwrap()["a"], 1.0);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "0.5", "[1]", "{}", "{\"a\": \"b\"}", "acc 0.5"] {
            assert!(results(text).is_err(), "{text}");
        }
    }
}
