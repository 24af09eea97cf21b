//! The figures of a measurement, as JSON and as a table.

use serde::{Deserialize, Serialize};

use super::Arguments;
use super::setting::{Times, Work};
use crate::inputs::Dtype;

/// One measurement; the keys are those of the JSON output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Figures {
    what: String,
    device: String,
    pairs_per_s: f64,
    tokens_per_s: f64,
    peak_rss_mb: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card_mb: Option<f64>,
    to_first_step_s: f64,
    model_flops_utilisation: f64,
    matmul_gflops: f64,
    epoch_s: Vec<f64>,
    spread: f64,
    pairs: usize,
    tokens: usize,
    threads: usize,
    dtype: Dtype,
    #[serde(flatten)]
    pub details: Details,
}

/// What only some measurements have.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs_per_step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_micro_batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub losses: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_logp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<u32>>,
}

impl Figures {
    pub fn new(what: &str, arguments: &Arguments, device: String, times: Times, work: Work, peak_flops: f64) -> Self {
        let median = median(&times.epochs);
        let slowest = times.epochs.iter().copied().fold(0.0, f64::max);
        let fastest = times.epochs.iter().copied().fold(f64::INFINITY, f64::min);
        Self {
            what: what.into(),
            device,
            pairs_per_s: work.pairs as f64 / median,
            tokens_per_s: work.tokens as f64 / median,
            peak_rss_mb: times.peak_bytes as f64 / f64::from(1 << 20),
            card_mb: times.card_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            to_first_step_s: times.first,
            model_flops_utilisation: work.flops / median / peak_flops,
            matmul_gflops: peak_flops / 1e9,
            spread: (slowest - fastest) / median,
            epoch_s: times.epochs,
            pairs: work.pairs,
            tokens: work.tokens,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            dtype: arguments.dtype,
            details: Details::default(),
        }
    }

    /// What was measured, in words.
    fn title(&self) -> String {
        let mut words = vec![self.what.clone()];
        words.extend(self.details.lora.map(|rank| format!("LoRA {rank}")));
        words.extend(self.details.pairs_per_step.map(|pairs| format!("{pairs} pairs/step")));
        words.extend(self.details.batch.map(|batch| format!("batch {batch}")));
        words.join(", ")
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// A table for people, with what was measured against what below it.
pub(super) fn table(all: &[Figures]) -> String {
    let head =
        ["what", "device", "pairs/s", "tokens/s", "spread", "peak MiB", "card MiB", "first step", "of matmul peak"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|figures| {
        vec![
            figures.title(),
            figures.device.clone(),
            format!("{:.2}", figures.pairs_per_s),
            format!("{:.0}", figures.tokens_per_s),
            format!("{:.0} %", 100.0 * figures.spread),
            format!("{:.0}", figures.peak_rss_mb),
            figures.card_mb.map_or_else(|| "–".into(), |card| format!("{card:.0}")),
            format!("{:.2} s", figures.to_first_step_s),
            format!("{:.1} % of {:.0} GFLOP/s", 100.0 * figures.model_flops_utilisation, figures.matmul_gflops),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
