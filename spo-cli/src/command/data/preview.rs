//! `spo data preview`

use clap::Args;
use serde_json::{Value, json};
use spo_data::{Example, Segment, Tokenizer};

use super::Source;
use crate::error::CliError;
use crate::output::Output;

/// Show rows as the model sees them
///
/// The part that is trained is green on a terminal, and stands between ⟦ and ⟧ elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Rows to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    rows: usize,
    /// One JSON object per row
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let tokenizer = self.source.tokenizer()?;
        let data = self.source.load(&tokenizer)?;
        for example in data.examples.iter().take(self.rows) {
            if self.json {
                output.json(&object(example, &tokenizer)?)?;
            } else {
                show(example, &tokenizer, output)?;
            }
        }
        Ok(())
    }
}

fn object(example: &Example, tokenizer: &Tokenizer) -> Result<Value, CliError> {
    let answers = (0..example.answers.len()).map(|answer| example.preview(tokenizer, answer));
    let answers: Vec<[Segment; 2]> = answers.collect::<Result<_, _>>()?;
    let labels: serde_json::Map<String, Value> =
        example.labels.iter().map(|(name, label)| (name.clone(), label.sign().into())).collect();
    Ok(json!({ "id": example.id, "labels": labels, "scores": example.scores, "answers": answers }))
}

fn show(example: &Example, tokenizer: &Tokenizer, output: &mut Output) -> Result<(), CliError> {
    let labels: Vec<String> = example.labels.iter().map(|(name, label)| format!("{name} {:+}", label.sign())).collect();
    output.line(format_args!("── {}  {}", example.id, labels.join(", ")))?;
    let (start, end) = if output.colour { ("\x1b[32m", "\x1b[0m") } else { ("⟦", "⟧") };
    for answer in 0..example.answers.len() {
        let [prompt, trained] = example.preview(tokenizer, answer)?;
        let head = if answer == 0 { plain(&prompt.text) } else { "…".into() };
        let text = plain(&trained.text);
        output.line(format_args!("{head}{start}{text}{end}  ({} + {} tokens)", prompt.ids.len(), trained.ids.len()))?;
    }
    Ok(())
}

/// Text that cannot steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{FFFD}' } else { c }).collect()
}
