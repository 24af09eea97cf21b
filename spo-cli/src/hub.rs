//! Names of the Hugging Face Hub on the command line: brought into the cache, with a bar on a terminal.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use spo_hub::{Fetched, Kind, Name, Progress, Settings, Want};

use crate::error::CliError;
use crate::output::note;

/// What this process has fetched: a command names a model several times and means the same commit.
static FETCHED: LazyLock<Mutex<HashMap<(String, bool), Fetched>>> = LazyLock::new(Mutex::default);

/// A path as it is, or where the model, adapter or file of a name lies once it is there. A local path wins.
pub(crate) fn model(path: &Path) -> Result<PathBuf, CliError> {
    of_kind(path, &Want::Model)
}

/// As [`model`], without weights.
pub(crate) fn tokenizer(path: &Path) -> Result<PathBuf, CliError> {
    of_kind(path, &Want::Tokenizer)
}

fn of_kind(path: &Path, want: &Want) -> Result<PathBuf, CliError> {
    let Some(name) = Name::parse(&path.to_string_lossy(), Path::new(""))? else { return Ok(path.to_owned()) };
    if name.kind == Kind::Dataset {
        return Err(CliError::argument("the model", name.to_string(), "a model: data sets are named as data"));
    }
    let key = (name.to_string(), *want == Want::Model);
    let known = FETCHED.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    let fetched = match known {
        Some(fetched) => fetched,
        None => fetch(&name, want)?,
    };
    let path = fetched.path.clone();
    FETCHED.lock().unwrap_or_else(PoisonError::into_inner).insert(key, fetched);
    Ok(path)
}

/// Files of rows: those of `hf://datasets/…` in the place of the name.
pub(crate) fn rows(paths: &[PathBuf], test: bool) -> Result<Vec<PathBuf>, CliError> {
    let mut found = vec![];
    for path in paths {
        let text = path.to_string_lossy();
        let name = if text.starts_with("hf://") { Name::parse(&text, Path::new(""))? } else { None };
        match name {
            None => found.push(path.clone()),
            Some(name) if name.kind == Kind::Model => {
                return Err(CliError::argument("the data", name.to_string(), "a data set: hf://datasets/org/name"));
            }
            Some(name) => found.extend(fetch(&name, &Want::Rows { config: None, split: None, test })?.files),
        }
    }
    Ok(found)
}

/// Brings a name into the cache.
pub(crate) fn fetch(name: &Name, want: &Want) -> Result<Fetched, CliError> {
    let mut bar = Bar::default();
    let fetched = spo_hub::fetch(name, want, &Settings::from_env(), &mut |progress| bar.hear(progress))?;
    tracing::info!(name = %fetched.name, commit = %fetched.commit, path = %fetched.path.display(), "of the Hub");
    Ok(fetched)
}

/// What a person at a terminal sees of a transfer.
#[derive(Default)]
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
}

impl Bar {
    pub fn hear(&mut self, progress: Progress) {
        match progress {
            Progress::Note(text) => note(text),
            Progress::Bytes { name, done, total } => {
                let bar = self.bar.get_or_insert_with(|| {
                    let style = "{prefix} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
                    let style = ProgressStyle::with_template(style).expect("the template is well-formed");
                    ProgressBar::new(total).with_style(style).with_prefix(name)
                });
                bar.set_position(done);
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
