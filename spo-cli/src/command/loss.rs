//! `spo loss`

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};
use spo_core::loss_table;
use spo_model::device;

use crate::error::CliError;
use crate::output::Output;

/// Compute a loss on given log-probabilities, without a model
///
/// Rows are JSON objects, one per line: chosen_logp, rejected_logp, ref_chosen_logp, ref_rejected_logp, chosen_tokens,
/// rejected_tokens; for spo also earlier, a list of [chosen, rejected] of the earlier policies, oldest first; and what
/// else the objective needs (strength, mixture, chosen_kl, rejected_kl, chosen_safe, rejected_safe, sampled_logp,
/// ref_sampled_logp, chosen_on_policy, rejected_on_policy). Objectives on single answers take logp, ref_logp and label
/// (and kl), those on lists logps, ref_logps and gains.
///
/// JSON keys: objective, options, rows, loss (mean), per_pair, chosen_reward, rejected_reward, margin, and gradient: for each
/// row the derivatives of its own loss, named like the inputs.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the objective; `spo list objectives` shows all
    #[arg(long, value_name = "NAME")]
    objective: String,
    /// An option of the objective; the value is JSON or a word: beta=0.1
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, Value)>,
    /// File with the rows; - is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn key_and_value(argument: &str) -> Result<(String, Value), String> {
    let (key, value) = argument.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let options: Map<String, Value> = self.set.iter().cloned().collect();
        let table = loss_table(&self.objective, &options, &self.rows()?, &device::open("cpu")?)
            .map_err(|source| CliError::Rows { file: self.input.clone(), source })?;
        if self.json { output.pretty_json(&table) } else { show(&table, output) }
    }

    fn rows(&self) -> Result<String, CliError> {
        let mut text = String::new();
        let read = match self.input.as_os_str() == "-" {
            true => std::io::stdin().read_to_string(&mut text),
            false => std::fs::File::open(&self.input).and_then(|mut file| file.read_to_string(&mut text)),
        };
        read.map_err(|source| CliError::io(&self.input, source))?;
        Ok(text)
    }
}

/// The columns side by side, then the mean.
fn show(table: &Value, output: &mut Output) -> Result<(), CliError> {
    let skipped = ["objective", "options", "rows"];
    let columns: Vec<(&String, &Vec<Value>)> = table
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !skipped.contains(&key.as_str()))
        .filter_map(|(key, value)| Some((key, value.as_array()?)))
        .collect();
    for row in 0..columns.first().map_or(0, |(_, values)| values.len()) {
        let cells: Vec<String> = columns.iter().map(|(key, values)| format!("{key} {}", cell(&values[row]))).collect();
        output.line(cells.join("  "))?;
    }
    output.line(format_args!("{}: mean loss {}", table["objective"].as_str().unwrap_or("loss"), cell(&table["loss"])))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(cell).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("d/d{key} {}", cell(value))).collect::<Vec<_>>().join("  ")
        }
        other => other.as_f64().map_or_else(|| other.to_string(), |number| format!("{number:.6}")),
    }
}
