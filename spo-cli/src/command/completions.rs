//! `spo completions`

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::CliError;
use crate::output::Output;

/// Write the completions of a shell to standard output
///
/// bash: spo completions bash > ~/.local/share/bash-completion/completions/spo; zsh: into a directory of $fpath, as _spo;
/// fish: into ~/.config/fish/completions/spo.fish; powershell: append to $PROFILE.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_enum)]
    shell: Shell,
}

impl Arguments {
    pub fn run(&self, mut program: Command, output: &mut Output) -> Result<(), CliError> {
        let mut text = vec![];
        clap_complete::generate(self.shell, &mut program, "spo", &mut text);
        output.piece(&String::from_utf8_lossy(&text))
    }
}
