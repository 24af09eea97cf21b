//! `spo chat`

mod commands;
mod conversation;
mod policies;

use std::io::{BufRead, IsTerminal, Write, stdin};
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::Args;
use spo_model::generate::Control;

use crate::error::CliError;
use crate::generation::{DecodeArguments, SamplingArguments};
use crate::inputs::DeviceArguments;
use crate::meta::MetaArguments;
use crate::output::{Output, note};
use crate::places::PointArguments;
use commands::Command;
use conversation::Conversation;
use policies::Policies;

/// Talk to a model, or to the policies of a run
///
/// Reads a message per line, from the terminal or a pipe, and streams the answer. /help lists the commands: /policy
/// changes the policy in the middle of a conversation, /weights how much a conditional one counts each dimension, /meta what
/// one that was trained with meta-prompts is asked for, /compare lets all of them answer. Ctrl-C stops an answer; Ctrl-D or
/// /quit ends.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Model directory, GGUF file, or run directory: then text is laid out as in the run
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Adapter directory in PEFT's format, for a model directory
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Policy of a run to start with; without it the one that the run ended with
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    #[command(flatten)]
    point: PointArguments,
    #[command(flatten)]
    meta: MetaArguments,
    /// System message
    #[arg(long, value_name = "TEXT", help_heading = "Text")]
    system: Option<String>,
    /// Plain layout of a message, with {prompt} in it; \n is a line break. Without it the chat template
    #[arg(long, value_name = "FORMAT", help_heading = "Text")]
    prompt_format: Option<String>,
    /// A user's vector, which `spo steer` made for the policy of --policy, or for the one that the run ended with
    #[arg(long, value_name = "FILE")]
    steer: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    decode: DecodeArguments,
    #[command(flatten)]
    device: DeviceArguments,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let mut policies = Policies::open(self)?;
        policies.select(self.policy.as_deref())?;
        if let Some(weights) = &self.point.weights {
            policies.weigh(weights.clone())?;
        }
        policies.steer(self)?;
        let mut conversation = Conversation::new(policies.text(self), self.meta.meta(policies.meta_prompts())?);
        let interrupts = interrupts()?;
        let terminal = stdin().is_terminal();
        if terminal {
            note(format_args!("{}; /help lists the commands", policies.current()));
        }
        let mut lines = stdin().lock().lines();
        loop {
            if terminal {
                let _ = write!(std::io::stderr(), "\n{}> ", policies.current());
            }
            let Some(line) = lines.next() else { return Ok(()) };
            let line = line.map_err(|source| CliError::io("standard input".as_ref(), source))?;
            interrupts.store(0, Ordering::Relaxed);
            let mut stop = || match interrupts.load(Ordering::Relaxed) {
                0 => Control::Continue,
                _ => Control::Stop,
            };
            let result = match Command::parse(&line) {
                Ok(Command::Quit) => return Ok(()),
                Ok(command) => command.run(&mut conversation, &mut policies, self, &mut stop, output),
                Err(reason) => Err(reason),
            };
            interrupts.store(1, Ordering::Relaxed);
            match result {
                // What is wrong with one line does not end the conversation; what is wrong with the output does.
                Err(error @ CliError::Output { .. }) => return Err(error),
                Err(error) => crate::diagnostic::show(&error),
                Ok(()) => output.flush()?,
            }
        }
    }
}

/// How often Ctrl-C was pressed since the last answer began; 1 or more stops it. Beyond that it says how to end, and
/// then ends.
fn interrupts() -> Result<Arc<AtomicU8>, CliError> {
    let interrupts = Arc::new(AtomicU8::new(1));
    let count = interrupts.clone();
    let handler = move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => {}
        1 => note("\nCtrl-D or /quit ends; Ctrl-C once more ends at once"),
        _ => exit(130),
    };
    ctrlc::set_handler(handler).map_err(|error| CliError::Signal { reason: error.to_string() })?;
    Ok(interrupts)
}
