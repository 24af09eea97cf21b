//! `spo bench`

mod figures;
mod generate;
mod matmul;
mod peak;
mod score;
mod setting;
mod train;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Instant;

use clap::{Args, ValueEnum};
use spo_model::device::{self, MatmulStrategy};

use self::figures::{Figures, table};
use self::setting::Setting;
use crate::error::CliError;
use crate::generation::DecodeArguments;
use crate::inputs::{Dtype, LayoutArguments, TextArguments, matmul_strategy};
use crate::output::Output;

/// When the process started; looked at first thing.
pub(crate) static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Measure how fast a model trains, scores and generates on this machine
///
/// Training runs the optimiser steps of `spo train`: DPO against the model itself, whose log-probabilities are computed
/// before. Scoring fills the cache of log-probabilities. Generation continues the first prompts greedily. Each
/// measurement has a process of its own, one epoch to warm up and then the measured ones; rates are their medians.
///
/// JSON keys: what, device, pairs_per_s (in generation: prompts), tokens_per_s (a prompt counts once for both answers; in
/// generation: new tokens), peak_rss_mb (largest resident memory, MiB), card_mb (memory taken of a graphics card, MiB),
/// to_first_step_s (from the start of the process to the first finished optimiser step, scored batch or generated token),
/// model_flops_utilisation (least operations of the work per second, as a share of matmul_gflops), matmul_gflops (measured
/// peak of matrix products: in f32 on the CPU, in dtype on a card), epoch_s (each measured epoch), spread (largest less
/// smallest of them, over the median), pairs, threads, dtype, with training pairs_per_step, tokens_per_micro_batch, lora and
/// the loss of every step; with scoring mean_logp; with generation batch, new_tokens and the ids of the first answer.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Model directory or GGUF file; or a policy of a run, RUN:POLICY, the best one of a round RUN:ROUND@best
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// File, directory or pattern with the pairs; may be repeated. Required but for --what matmul
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// What to measure; training, scoring and generation if absent
    #[arg(long, value_enum)]
    what: Option<What>,
    /// Where: cpu, vulkan, metal, wgpu, cuda, or with an index: cuda:0; every device present if absent
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Train adapters of this rank on all linear layers instead of all weights
    #[arg(long, value_name = "RANK", value_parser = at_least_one)]
    lora: Option<usize>,
    /// Pairs to measure on, from the beginning of the data
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one)]
    pairs: usize,
    /// Pairs per optimiser step
    #[arg(long, value_name = "N", default_value = "8", value_parser = at_least_one)]
    pairs_per_step: usize,
    /// Prompts continued at once; 1 and 8 if absent
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch: Option<usize>,
    /// Tokens generated for each prompt
    #[arg(long, value_name = "N", default_value = "128", value_parser = at_least_one)]
    new_tokens: usize,
    /// Rows of the products that --what matmul measures
    #[arg(long, value_name = "N", default_value = "2048", value_parser = at_least_one)]
    tokens: usize,
    /// Epochs measured after the first one
    #[arg(long, value_name = "N", default_value = "3", value_parser = at_least_one)]
    epochs: usize,
    /// Change one value of the run file that is trained: training.recompute="blocks"
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// One JSON object per measurement
    #[arg(long)]
    json: bool,
    /// Number format of the weights in memory
    #[arg(long, value_enum, default_value_t = Dtype::F32, help_heading = "Device")]
    dtype: Dtype,
    /// Keep the projections as the file stores them; training needs --lora then
    #[arg(long, help_heading = "Device")]
    as_stored: bool,
    /// How a graphics card multiplies matrices; --what matmul measures this way alone
    #[arg(long, default_value = "auto", value_parser = matmul_strategy, value_name = "STRATEGY", help_heading = "Device")]
    matmul: MatmulStrategy,
    #[command(flatten)]
    decode: DecodeArguments,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    layout: LayoutArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Train,
    Score,
    Generate,
    /// Every way that a graphics card can multiply, on the products of the model
    Matmul,
}

impl What {
    /// What is measured where nothing is named.
    const ALL: [Self; 3] = [Self::Train, Self::Score, Self::Generate];
}

fn at_least_one(argument: &str) -> Result<usize, String> {
    argument.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a whole number of at least 1".into())
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        if self.what == Some(What::Matmul) {
            return matmul::run(self, output);
        }
        if self.data.is_empty() {
            return Err(CliError::argument("--data", "nothing", "a file, a directory or a pattern with the pairs"));
        }
        let mut all = vec![];
        let open = self.open();
        for (what, device, batch) in &open {
            let figures = match open.len() {
                1 => self.measure(*what, device, *batch)?,
                _ => self.in_a_process(*what, device, *batch)?,
            };
            if self.json {
                output.json(&figures)?;
                output.flush()?;
            }
            all.push(figures);
        }
        if self.json { Ok(()) } else { output.line(table(&all)) }
    }

    /// Every measurement that the arguments leave open.
    fn open(&self) -> Vec<(What, String, usize)> {
        let kinds = self.what.map_or_else(|| What::ALL.to_vec(), |what| vec![what]);
        let devices = match &self.device {
            Some(device) => vec![device.clone()],
            None => device::present().map(str::to_owned).collect(),
        };
        let mut open = vec![];
        for device in devices {
            for &what in &kinds {
                let batches = match (what, self.batch) {
                    (What::Generate, None) => [1, 8].into_iter().filter(|batch| *batch <= self.pairs).collect(),
                    (What::Generate, Some(batch)) => vec![batch],
                    _ => vec![1],
                };
                open.extend(batches.into_iter().map(|batch| (what, device.clone(), batch)));
            }
        }
        open
    }

    /// This command again with nothing left open: memory and start-up belong to a process.
    fn in_a_process(&self, what: What, device: &str, batch: usize) -> Result<Figures, CliError> {
        let failed = |source| CliError::Process { source };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(std::env::args_os().skip(1));
        if self.what.is_none() {
            command.args(["--what", what.to_possible_value().expect("no kind is hidden").get_name()]);
        }
        if self.device.is_none() {
            command.args(["--device", device]);
        }
        if self.batch.is_none() {
            command.args(["--batch", &batch.to_string()]);
        }
        if !self.json {
            command.arg("--json");
        }
        let ended = command.stderr(Stdio::inherit()).output().map_err(failed)?;
        match ended.status.code() {
            Some(0) => serde_json::from_slice(&ended.stdout).map_err(|error| failed(error.into())),
            code => Err(CliError::Measurement { code: code.and_then(|code| code.try_into().ok()).unwrap_or(1) }),
        }
    }

    fn measure(&self, what: What, device: &str, batch: usize) -> Result<Figures, CliError> {
        let setting = Setting::new(self, device)?;
        match what {
            What::Train => train::measure(&setting),
            What::Score => score::measure(&setting),
            What::Generate => generate::measure(&setting, batch),
            What::Matmul => unreachable!("it has figures of its own"),
        }
    }
}
