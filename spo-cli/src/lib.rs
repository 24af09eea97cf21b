//! The `spo` command as a library, so that a second program with other backends can be built from it.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     spo_cli::main()
//! }
//! ```

mod allocator;
mod args;
mod command;
mod diagnostic;
mod error;
mod generation;
mod goals;
mod hub;
mod inputs;
mod interrupt;
mod logging;
mod meta;
mod outcome;
mod output;
mod places;
mod processes;
mod scorers;
mod scoring;
mod steering;
mod view;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::Parser;

use error::CliError;
use outcome::Outcome;
use output::Output;

/// What shows the progress of a run on the standard error stream: a bar on a terminal, lines elsewhere.
pub fn progress() -> Box<dyn spo_train::Sink> {
    view::progress()
}

/// Libraries of graphics drivers look for a desktop there, and where the variable is missing, as on a server, they write
/// about it to the standard error stream.
fn name_a_runtime_directory() {
    const NAME: &str = "XDG_RUNTIME_DIR";
    if cfg!(target_os = "linux") && std::env::var_os(NAME).is_none() {
        // SAFETY: the program has no other thread yet.
        unsafe { std::env::set_var(NAME, std::env::temp_dir()) };
    }
}

/// Reads the command line, runs the command and says how it ended: 0 ok, 1 failed, 2 usage or run file, 3 quality gate
/// missed, 75 one of several processes failed, 130 interrupted.
pub fn main() -> ExitCode {
    LazyLock::force(&command::bench::STARTED);
    name_a_runtime_directory();
    let cli = args::Cli::parse();
    logging::start();
    let mut output = Output::stdout();
    let result = cli.command.run(&mut output).and_then(|outcome| {
        output.flush()?;
        Ok(outcome)
    });
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::GateMissed) => ExitCode::from(3),
        // The reader of a pipe had enough (`spo … | head`).
        Err(CliError::Output { source }) if source.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(CliError::Told { code }) => ExitCode::from(code),
        Err(error) => {
            diagnostic::show(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
