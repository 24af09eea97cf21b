//! The command line.

use clap::{Parser, Subcommand};

use crate::command::{
    bench, chat, data, eval, export, generate, init, list, loss, plan, quickstart, render, score, serve, sweep,
    tokenize, train, watch,
};

/// Sequential preference optimisation of language models.
#[derive(Debug, Parser)]
#[command(name = "spo", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "\
Results go to standard output, progress and errors to standard error.
Exit codes: 0 ok, 1 failed, 2 usage or run file, 3 quality gate missed, 130 interrupted.
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
    Watch(watch::Arguments),
    Serve(serve::Arguments),
    Eval(eval::Arguments),
    Score(score::Arguments),
    Generate(generate::Arguments),
    Chat(chat::Arguments),
    Export(export::Arguments),
    Bench(bench::Arguments),
    #[command(subcommand)]
    Data(data::Command),
    Tokenize(tokenize::Arguments),
    Render(render::Arguments),
    Loss(loss::Arguments),
    List(list::Arguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
