//! `spo watch`

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;
use spo_train::events::sink::follow::Follower;

use crate::error::CliError;
use crate::output::Output;
use crate::view::{self, Attached};

/// Between two looks at the event file.
const POLL: Duration = Duration::from_millis(500);

/// Watch a run that another process trains, or look at a finished one
///
/// Full screen on a terminal, plain lines otherwise. Ends with the run, or with q; the run goes on.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Plain lines on a terminal too
    #[arg(long)]
    lines: bool,
    /// Show what there is and end
    #[arg(long)]
    once: bool,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let events = self.run.join("events.jsonl");
        if !events.is_file() {
            return Err(CliError::NoRun { path: self.run.clone() });
        }
        if output.terminal && !self.lines && !self.once {
            return view::full_screen(Attached::new(&events));
        }
        self.lines(&events, output)
    }

    fn lines(&self, events: &Path, output: &mut Output) -> Result<(), CliError> {
        let (mut follower, mut attached) = (Follower::new(events), Attached::new(events));
        let mut said = None;
        loop {
            let (records, restarted) = follower.poll()?;
            if restarted {
                output.line("the run was resumed: its events begin again")?;
            }
            for record in &records {
                for line in view::plain_lines(record.at, &record.event) {
                    output.line(line)?;
                }
            }
            attached.update()?;
            let silence = attached.silence();
            if silence.is_some() && said.is_none() {
                output.line(silence.as_deref().unwrap_or_default())?;
            }
            said = silence;
            output.flush()?;
            if self.once || attached.over() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
    }
}
