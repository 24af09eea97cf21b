//! The command line.

use clap::{CommandFactory, Parser, Subcommand};

use crate::command::{
    bench, chat, compare, completions, data, doctor, eval, export, fetch, generate, init, list, loss, man, merge, plan,
    quickstart, render, score, serve, steer, study, sweep, tokenize, train, watch,
};
use crate::error::CliError;
use crate::outcome::Outcome;
use crate::output::Output;

/// Sequential preference optimisation of language models.
#[derive(Debug, Parser)]
#[command(name = "spo", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "\
Models, adapters and tokenizers may be names on the Hugging Face Hub, org/name; data hf://datasets/org/name.
Results go to standard output, progress and errors to standard error.
Exit codes: 0 ok, 1 failed, 2 usage or run file, 3 quality gate missed, 75 one of several processes
failed, 130 interrupted.
Environment: SPO_LOG=info shows what is loaded and how long it takes; NO_COLOR=1 leaves out colours.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Quickstart(quickstart::Arguments),
    Init(init::Arguments),
    Plan(plan::Arguments),
    Train(train::Arguments),
    Sweep(sweep::Arguments),
    Study(study::Arguments),
    Watch(watch::Arguments),
    Serve(serve::Arguments),
    Eval(eval::Arguments),
    Compare(compare::Arguments),
    Score(score::Arguments),
    Steer(steer::Arguments),
    Generate(generate::Arguments),
    Chat(chat::Arguments),
    Export(export::Arguments),
    Merge(merge::Arguments),
    Fetch(fetch::Arguments),
    Bench(bench::Arguments),
    #[command(subcommand)]
    Data(data::Command),
    Tokenize(tokenize::Arguments),
    Render(render::Arguments),
    Loss(loss::Arguments),
    List(list::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

impl Command {
    /// Runs the command.
    pub fn run(self, output: &mut Output) -> Result<Outcome, CliError> {
        let done = |()| Outcome::Done;
        match self {
            Self::Quickstart(arguments) => arguments.run(output),
            Self::Init(arguments) => arguments.run(output).map(done),
            Self::Plan(arguments) => arguments.run(output).map(done),
            Self::Train(arguments) => arguments.run(output),
            Self::Sweep(arguments) => arguments.run(output).map(done),
            Self::Study(arguments) => arguments.run(output).map(done),
            Self::Watch(arguments) => arguments.run(output).map(done),
            Self::Serve(arguments) => arguments.run(output).map(done),
            Self::Eval(arguments) => arguments.run(output).map(done),
            Self::Export(arguments) => arguments.run(output).map(done),
            Self::Merge(arguments) => arguments.run(output).map(done),
            Self::Compare(arguments) => arguments.run(output).map(done),
            Self::Score(arguments) => arguments.run(output).map(done),
            Self::Steer(arguments) => arguments.run(output).map(done),
            Self::Generate(arguments) => arguments.run(output).map(done),
            Self::Chat(arguments) => arguments.run(output).map(done),
            Self::Bench(arguments) => arguments.run(output).map(done),
            Self::Data(command) => command.run(output),
            Self::Tokenize(arguments) => arguments.run(output).map(done),
            Self::Render(arguments) => arguments.run(output).map(done),
            Self::Loss(arguments) => arguments.run(output).map(done),
            Self::List(arguments) => arguments.run(output).map(done),
            Self::Fetch(arguments) => arguments.run(output).map(done),
            Self::Doctor(arguments) => arguments.run(output).map(done),
            Self::Completions(arguments) => arguments.run(Cli::command(), output).map(done),
            Self::Man(arguments) => arguments.run(Cli::command(), output).map(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
