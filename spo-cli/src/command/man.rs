//! `spo man`

use std::path::PathBuf;

use clap::{Args, Command};

use crate::error::CliError;
use crate::output::Output;

/// Write the manual page, or those of all commands into a directory
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory for spo.1, spo-train.1 and so on, such as ~/.local/share/man/man1; it is made where it is not there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Arguments {
    pub fn run(&self, program: Command, output: &mut Output) -> Result<(), CliError> {
        let Some(out) = &self.out else {
            let mut page = vec![];
            // Writing to memory does not fail.
            let _ = clap_mangen::Man::new(program).render(&mut page);
            return output.piece(&String::from_utf8_lossy(&page));
        };
        std::fs::create_dir_all(out).map_err(|source| CliError::io(out, source))?;
        clap_mangen::generate_to(program, out).map_err(|source| CliError::io(out, source))?;
        output.line(format_args!("wrote the pages of all commands to {}", out.display()))
    }
}
