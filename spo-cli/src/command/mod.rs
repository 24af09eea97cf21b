//! One file per command: its arguments and what it does.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod loss;
pub(crate) mod plan;
pub(crate) mod quickstart;
pub(crate) mod render;
pub(crate) mod score;
pub(crate) mod serve;
pub(crate) mod sweep;
pub(crate) mod tokenize;
pub(crate) mod train;
pub(crate) mod watch;

use crate::Outcome;
use crate::args::Command;
use crate::error::CliError;
use crate::output::Output;

/// Runs a command.
pub(crate) fn run(command: Command, output: &mut Output) -> Result<Outcome, CliError> {
    let done = |()| Outcome::Done;
    match command {
        Command::Quickstart(arguments) => arguments.run(output),
        Command::Init(arguments) => arguments.run(output).map(done),
        Command::Plan(arguments) => arguments.run(output).map(done),
        Command::Train(arguments) => arguments.run(output),
        Command::Sweep(arguments) => arguments.run(output).map(done),
        Command::Watch(arguments) => arguments.run(output).map(done),
        Command::Serve(arguments) => arguments.run(output).map(done),
        Command::Eval(arguments) => arguments.run(output).map(done),
        Command::Export(arguments) => arguments.run(output).map(done),
        Command::Score(arguments) => arguments.run(output).map(done),
        Command::Generate(arguments) => arguments.run(output).map(done),
        Command::Chat(arguments) => arguments.run(output).map(done),
        Command::Bench(arguments) => arguments.run(output).map(done),
        Command::Data(command) => command.run(output),
        Command::Tokenize(arguments) => arguments.run(output).map(done),
        Command::Render(arguments) => arguments.run(output).map(done),
        Command::Loss(arguments) => arguments.run(output).map(done),
        Command::List(arguments) => arguments.run(output).map(done),
    }
}
