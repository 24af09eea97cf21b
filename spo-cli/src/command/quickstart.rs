//! `spo quickstart`

use std::path::{Path, PathBuf};

use clap::Args;
use spo_data::Tokenizer;
use spo_train::TrainError;

use super::train::{Settings, train};
use crate::error::CliError;
use crate::outcome::Outcome;
use crate::output::{Output, note};
use crate::processes::{Distributed, Processes};

/// What the program carries, by its place in the run directory.
const FILES: &[(&str, &[u8])] = &[
    ("run.toml", include_bytes!("quickstart.toml")),
    ("input/model/config.json", include_bytes!("../../assets/stories260K/config.json")),
    ("input/model/model.safetensors", include_bytes!("../../assets/stories260K/model.safetensors")),
    ("input/model/tokenizer.json", TOKENIZER),
    ("input/model/tokenizer_config.json", TOKENIZER_CONFIG),
    ("input/model/LICENSE.llama2c.MIT", include_bytes!("../../assets/stories260K/LICENSE.llama2c.MIT")),
    ("input/pairs.train.jsonl.gz", include_bytes!("../../assets/truthfulqa/pairs.train.jsonl.gz")),
    ("input/pairs.test.jsonl.gz", TEST_PAIRS),
    ("input/LICENSE.Apache-2.0", include_bytes!("../../assets/truthfulqa/LICENSE.Apache-2.0")),
];
/// Held-out pairs, also what exported models are compared on.
pub(super) const TEST_PAIRS: &[u8] = include_bytes!("../../assets/truthfulqa/pairs.test.jsonl.gz");
const TOKENIZER: &[u8] = include_bytes!("../../assets/stories260K/tokenizer.json");
const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../assets/stories260K/tokenizer_config.json");

/// Train a small built-in model on built-in pairs: two rounds and a control, in minutes
///
/// Writes model, pairs and a commented run file into the run directory, and then is the same as
/// `spo train DIR/run.toml`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

impl Arguments {
    pub fn run(self, output: &mut Output) -> Result<Outcome, CliError> {
        let Settings { out, .. } = &self.settings;
        let out = out.clone().unwrap_or_else(|| "spo-quickstart".into());
        write_inputs(&out)?;
        let file = out.join("run.toml");
        note(format_args!("wrote {} with its model and pairs", file.display()));
        // The run file already names its own directory.
        let spec = Settings { out: None, ..self.settings }.spec(&file)?;
        Processes::start(Distributed::None)?.together(|processes| train(&spec, None, true, false, processes, output))
    }
}

fn write_inputs(out: &Path) -> Result<(), CliError> {
    let occupied = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(TrainError::OutExists { path: out.into() }.into());
    }
    for (name, bytes) in FILES {
        let path: PathBuf = out.join(name);
        let parent = path.parent().unwrap_or(out);
        std::fs::create_dir_all(parent).map_err(|source| CliError::io(parent, source))?;
        std::fs::write(&path, bytes).map_err(|source| CliError::io(&path, source))?;
    }
    Ok(())
}

/// The built-in model's tokenizer.
pub(super) fn tokenizer() -> Result<Tokenizer, CliError> {
    Ok(Tokenizer::from_bytes(TOKENIZER, TOKENIZER_CONFIG, None)?)
}
