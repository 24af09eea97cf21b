//! `spo data check`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use spo_data::{Dataset, DatasetStats, GateMiss, GateSpec, Lengths};

use super::Source;
use crate::error::CliError;
use crate::inputs::{finding, incidents};
use crate::outcome::Outcome;
use crate::output::Output;

/// Count, measure and doubt the rows
///
/// Shows how each file was understood, rows dropped, cut or doubtful, pairs and ties per dimension, lengths, how much
/// preference depends on length, duplicates, contradicting labels, and prompts shared with a test set. Exits with 3 when a gate is missed.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Test set that must not share prompts with the files; by itself for a directory whose files are named by split
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Write a line of JSON for every row that was dropped, cut or is doubtful
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Gate: share of rows that may be dropped, 0 to 1
    #[arg(long, value_name = "SHARE", help_heading = "Gates")]
    max_dropped: Option<f64>,
    /// Gate: share of rows that may be cut, 0 to 1
    #[arg(long, value_name = "SHARE", help_heading = "Gates")]
    max_cut: Option<f64>,
    /// Gate: share of examples that may repeat an earlier one, 0 to 1
    #[arg(long, value_name = "SHARE", help_heading = "Gates")]
    max_duplicates: Option<f64>,
    /// Gate: examples whose label contradicts that of the same answers elsewhere
    #[arg(long, value_name = "N", help_heading = "Gates")]
    max_contradictions: Option<f64>,
    /// Gate: absolute correlation of preference and length, 0 to 1
    #[arg(long, value_name = "R", help_heading = "Gates")]
    max_length_correlation: Option<f64>,
    /// Gate: pairs that every dimension must have
    #[arg(long, value_name = "N", help_heading = "Gates")]
    min_pairs: Option<f64>,
    /// Gate: prompts that the files may share with --test
    #[arg(long, value_name = "N", help_heading = "Gates")]
    max_shared: Option<usize>,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<Outcome, CliError> {
        let tokenizer = self.source.tokenizer()?;
        let (data, test) = match (&self.test, self.source.load_splits(&tokenizer)?) {
            (Some(test), _) => (self.source.read(&tokenizer)?, Some(self.source.load_other(test, &tokenizer)?)),
            (None, Some((train, test))) => (train, Some(test)),
            (None, None) => (self.source.read(&tokenizer)?, None),
        };
        if let Some(path) = &self.rows {
            self.write_rows(&data, path)?;
        }
        self.source.require_rows(&data)?;
        let stats = data.stats();
        let tested = test.is_some();
        let shared = match test {
            Some(test) => data.shared_prompts(&test),
            None if self.max_shared.is_some() => {
                let expected = "also --test, or a directory whose files are named by split";
                return Err(CliError::argument("--max-shared", "no test set", expected));
            }
            None => vec![],
        };
        let mut misses = self.gates().check(&data, &stats);
        if let Some(limit) = self.max_shared.filter(|limit| shared.len() > *limit) {
            misses.push(GateMiss {
                gate: "max-shared",
                limit: limit as f64,
                found: shared.len() as f64,
                dimension: None,
            });
        }
        if self.json {
            let report = json!({
                "report": data.report, "stats": stats, "shared_prompts": shared, "missed_gates": misses,
            });
            output.pretty_json(&report)?;
        } else {
            show(&data, &stats, output)?;
            if tested && shared.is_empty() {
                output.line("no prompt is shared with the test set")?;
            }
            let ids = shared.iter().map(|(here, _)| here.as_str());
            found(shared.len(), "prompt", " shared with the test set", ids, output)?;
            for miss in &misses {
                let dimension = miss.dimension.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
                output.line(format_args!(
                    "gate missed: {} = {}, found {}{dimension}",
                    miss.gate, miss.limit, miss.found
                ))?;
            }
        }
        Ok(if misses.is_empty() { Outcome::Done } else { Outcome::GateMissed })
    }

    fn write_rows(&self, data: &Dataset, path: &Path) -> Result<(), CliError> {
        let failed = |source| CliError::io(path, source);
        let mut writer = BufWriter::new(File::create(path).map_err(failed)?);
        data.report.write_incidents(&mut writer).map_err(failed)?;
        writer.flush().map_err(failed)
    }

    fn gates(&self) -> GateSpec {
        GateSpec {
            max_dropped: self.max_dropped,
            max_cut: self.max_cut,
            max_duplicates: self.max_duplicates,
            max_contradictions: self.max_contradictions,
            max_length_correlation: self.max_length_correlation,
            min_pairs: self.min_pairs,
        }
    }
}

fn show(data: &Dataset, stats: &DatasetStats, output: &mut Output) -> Result<(), CliError> {
    for file in &data.report.files {
        output
            .line(format_args!("{}: {} rows, {}, {} ({})", file.file, file.rows, file.format, file.schema, file.why))?;
    }
    for file in &data.report.left_out {
        output.line(format_args!("{file}: left out, of another split"))?;
    }
    for file in &data.report.cached {
        output.line(format_args!("{file}: left out, a cache of `datasets` and not its data"))?;
    }
    output.line(format_args!("{} examples, {} tokens", stats.examples, stats.tokens))?;
    incidents(data).iter().try_for_each(|line| output.line(line))?;
    let name_width = stats.dimensions.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, dimension) in &stats.dimensions {
        let correlation = dimension.length_correlation.map_or_else(|| "–".into(), |r| format!("{r:+.2}"));
        output.line(format_args!(
            "{name:<name_width$}  {} pairs, {} ties; the chosen answer is longer in {}, equal in {}; length correlation {correlation}",
            dimension.pairs, dimension.ties, dimension.chosen_longer, dimension.same_length
        ))?;
    }
    output.line("tokens               min  median    90 %    99 %     max")?;
    let lengths = [("prompt", &stats.prompt_lengths), ("answer", &stats.answer_lengths), ("row", &stats.row_lengths)];
    for (name, Lengths { min, median, p90, p99, max, .. }) in lengths {
        output.line(format_args!("{name:<16}{min:>8}{median:>8}{p90:>8}{p99:>8}{max:>8}"))?;
    }
    histogram(&stats.row_lengths, output)?;
    let (duplicates, contradictions) = (&stats.duplicates, &stats.contradictions);
    found(duplicates.len(), "duplicate", "", duplicates.iter().map(|(here, _)| here.as_str()), output)?;
    let ids = contradictions.iter().map(|(here, _, _)| here.as_str());
    found(contradictions.len(), "contradicting label", "", ids, output)
}

/// Bars of rows by length, in powers of two.
fn histogram(lengths: &Lengths, output: &mut Output) -> Result<(), CliError> {
    const WIDTH: usize = 40;
    let most = lengths.histogram.iter().copied().max().unwrap_or(0).max(1);
    for (power, count) in lengths.histogram.iter().enumerate().filter(|(_, count)| **count > 0) {
        let bar = "█".repeat((count * WIDTH).div_ceil(most));
        output.line(format_args!("  rows below {:>6} tokens {count:>8} {bar}", 1_u64 << power))?;
    }
    Ok(())
}

/// A finding, if there is one.
fn found<'a>(
    count: usize,
    what: &str,
    then: &str,
    ids: impl Iterator<Item = &'a str>,
    output: &mut Output,
) -> Result<(), CliError> {
    if count > 0 { output.line(finding(count, what, then, ids)) } else { Ok(()) }
}
