//! `spo data conflict`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spo_data::{Conflict, Dataset, Estimate, Tokenizer};

use super::{Source, picture};
use crate::error::CliError;
use crate::output::Output;

/// Show where dimensions want different answers
///
/// For each two dimensions: pairs that both label, how many agree, conflict or tie, the conflict rate and Cohen's κ
/// with 95 % intervals, and the strongest conflicts.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Conflicts to show for each two dimensions
    #[arg(long, value_name = "N", default_value_t = 2)]
    examples: usize,
    /// Draw a map of conflict rates, as an SVG picture
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// A JSON list with one object for each two dimensions
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let tokenizer = self.source.tokenizer()?;
        let data = self.source.load(&tokenizer)?;
        let conflicts = data.conflicts(self.examples);
        if let Some(path) = &self.picture {
            std::fs::write(path, picture::draw(&conflicts)).map_err(|source| CliError::io(path, source))?;
        }
        if self.json {
            let ids = |conflict: &Conflict| -> Vec<&str> {
                conflict.strongest.iter().map(|&index| data.examples[index].id.as_str()).collect()
            };
            let object = |conflict| {
                let mut object = json!(conflict);
                object["strongest"] = json!(ids(conflict));
                object
            };
            return output.pretty_json(&conflicts.iter().map(object).collect::<Vec<_>>());
        }
        if conflicts.is_empty() {
            output.line("fewer than two dimensions are labelled: nothing can conflict")?;
        }
        conflicts.iter().try_for_each(|conflict| show(conflict, &data, &tokenizer, output))
    }
}

fn show(conflict: &Conflict, data: &Dataset, tokenizer: &Tokenizer, output: &mut Output) -> Result<(), CliError> {
    let Conflict { first, second, both, agree, conflict: against, ties, conflict_rate, kappa, strongest } = conflict;
    output.line(format_args!(
        "{first} × {second}: {both} pairs labelled in both, {agree} agree, {against} conflict, {ties} tied"
    ))?;
    if let (Some(rate), Some(kappa)) = (conflict_rate, kappa) {
        let percent = |value: f64| 100.0 * value;
        let (share, low, high) = (percent(rate.value), percent(rate.low), percent(rate.high));
        let Estimate { value, low: least, high: most } = kappa;
        output.line(format_args!(
            "  conflict rate {share:.1} % ({low:.1}–{high:.1}), κ {value:+.2} ({least:+.2} to {most:+.2})"
        ))?;
    }
    for &index in strongest {
        let example = &data.examples[index];
        output.line(format_args!("  {}", example.id))?;
        output.line(format_args!("    prompt       {:?}", tokenizer.decode(&example.prompt)?))?;
        for name in [first, second] {
            if let Some((chosen, _)) = example.pair(name) {
                let text = tokenizer.decode(&example.answers[chosen])?;
                output.line(format_args!("    {name:<12} {text:?}"))?;
            }
        }
    }
    Ok(())
}
