//! `spo fetch`

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::json;
use spo_hub::{Kind, Name, Want};

use crate::error::CliError;
use crate::hub;
use crate::output::Output;

/// Download a model, adapter, tokenizer or data set of the Hugging Face Hub into the cache, and say where it lies
///
/// The cache is that of Python's huggingface_hub: HF_HOME, HF_HUB_CACHE. Also read are HF_TOKEN, HF_ENDPOINT and
/// HF_HUB_OFFLINE. Only files that spo reads are downloaded: of a model safetensors, configuration and tokenizer. A
/// download that was cut goes on where it ended.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// org/name, hf://org/name@revision, hf://org/name/FILE.gguf, or hf://datasets/org/name
    name: String,
    /// Leave out weights
    #[arg(long)]
    tokenizer: bool,
    /// Of a data set: its configuration
    #[arg(long, value_name = "NAME")]
    hub_config: Option<String>,
    /// Of a data set: its split
    #[arg(long, value_name = "NAME")]
    hub_split: Option<String>,
    /// Of a data set, without --hub-split: rows to train on, or to test on
    #[arg(long, value_enum, default_value_t = Split::Train)]
    split: Split,
    /// One JSON object: name, commit, path, files
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Split {
    /// The split train, or the only one
    Train,
    /// The split test, or else validation
    Test,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        // Here a name is meant even where a directory is called so.
        let text = if self.name.starts_with("hf://") { self.name.clone() } else { format!("hf://{}", self.name) };
        let name = Name::parse(&text, Path::new(""))?.expect("it has the scheme");
        let want = match name.kind {
            Kind::Dataset => Want::Rows {
                config: self.hub_config.clone(),
                split: self.hub_split.clone(),
                test: self.split == Split::Test,
            },
            Kind::Model if self.tokenizer => Want::Tokenizer,
            Kind::Model => Want::Model,
        };
        if name.kind == Kind::Model && (self.hub_config.is_some() || self.hub_split.is_some()) {
            return Err(CliError::argument("--hub-config, --hub-split", name.to_string(), "hf://datasets/org/name"));
        }
        let fetched = hub::fetch(&name, &want)?;
        if self.json {
            return output.json(&json!({
                "name": fetched.name, "commit": fetched.commit, "path": fetched.path, "files": fetched.files,
            }));
        }
        match name.kind {
            Kind::Model => output.line(fetched.path.display()),
            Kind::Dataset => fetched.files.iter().try_for_each(|file| output.line(file.display())),
        }
    }
}
