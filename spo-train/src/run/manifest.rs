//! What a run was made from, kept in its directory: whether it can go on as it began.

use crate::TrainError;
use crate::config::spec::{DataEntry, Located, Source};
use crate::config::{Registries, RunPlan, RunSpec};
use crate::persist::directory::{self, Change};
use crate::persist::durable::{self, hash_start};
use crate::persist::journal::checksum;
use crate::run::prepare::Prepared;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spo_data::DataError;
use spo_data::gguf::{Gguf, is_gguf};
use std::path::{Path, PathBuf};

/// A file that a run reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name without directories.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Hash of its bytes, in hex.
    pub blake3: String,
}

/// What a run was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    /// Version of this program.
    pub version: String,
    /// Hash of its executable file, in hex, where that can be read: it tells two builds of a version apart.
    #[serde(default)]
    pub build: Option<String>,
    /// The run file and the changes of it.
    pub source: Source,
    /// Files of the starting model.
    pub model: Vec<Input>,
    /// Data files, in the order of the run file.
    pub data: Vec<Input>,
    /// Names of the Hugging Face Hub, with the commits that they were: a resumed run reads those.
    #[serde(default)]
    pub hub: Vec<Located>,
    /// Every resolved value, one `key = value` a line.
    pub plan: Vec<String>,
}

impl Manifest {
    /// What a prepared run is made from. Reads all its files once.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of(prepared: &Prepared) -> Result<Self, TrainError> {
        let plan = &prepared.plan;
        let data = data_files(&plan.data)?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            build: build(),
            source: prepared.source.clone(),
            model: inputs(&model_files(plan)?)?,
            data: inputs(&data)?,
            hub: plan.hub.clone(),
            plan: values(plan),
        })
    }

    /// The manifest of a run directory.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn read(out: &Path) -> Result<Self, TrainError> {
        let path = out.join(directory::MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => TrainError::NoRun { out: out.into() },
            std::io::ErrorKind::InvalidData => damaged(&path),
            _ => TrainError::io(&path, source),
        })?;
        let sealed: Value = serde_json::from_str(&text).map_err(|_| damaged(&path))?;
        if sealed["blake3"] != checksum(sealed["manifest"].to_string().as_bytes()) {
            return Err(damaged(&path));
        }
        serde_json::from_value(sealed["manifest"].clone()).map_err(|_| damaged(&path))
    }

    pub(crate) fn write(&self, out: &Path) -> Result<(), TrainError> {
        let manifest = serde_json::to_value(self).expect("a manifest is plain data");
        let sealed = serde_json::json!({ "blake3": checksum(manifest.to_string().as_bytes()), "manifest": manifest });
        durable::write(&out.join(directory::MANIFEST), format!("{sealed:#}\n").as_bytes())
    }

    /// The run file with its changes: as it is now, or, where it cannot be read any more, as it was.
    ///
    /// # Errors
    /// It cannot be read, or is not a run file any more.
    pub fn spec(&self) -> Result<RunSpec, TrainError> {
        self.spec_with(Registries::default())
    }

    /// As [`spec`](Self::spec), of a run file that may name what the registries hold.
    ///
    /// # Errors
    /// As [`spec`](Self::spec).
    pub fn spec_with(&self, registries: Registries) -> Result<RunSpec, TrainError> {
        let source = &self.source;
        let now = source.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let text = now.as_deref().unwrap_or(&source.text);
        let mut spec = RunSpec::parse(&source.name, source.path.as_deref(), text, registries)?;
        for argument in &source.arguments {
            spec.apply(argument)?;
        }
        spec.pin(&self.hub);
        Ok(spec)
    }

    /// What is another in `now`, in words.
    pub fn changes(&self, now: &Self) -> Vec<(Change, String)> {
        let mut changes = vec![];
        let counts = |line: &&String| !WITHOUT_RESULT.iter().any(|key| line.split(" = ").next() == Some(key));
        let plan = |a: &[String], b: &[String]| {
            a.iter().filter(counts).filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>()
        };
        // A key that one of two programs does not know of is no change of the run file, where that is the same.
        let same_file = (&self.source.text, &self.source.arguments) == (&now.source.text, &now.source.arguments);
        let programs = (&self.version, &self.build) != (&now.version, &now.build) && same_file;
        let key = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
        let kind = |line: &String, other: &[String]| match programs && other.iter().all(|of| key(of) != key(line)) {
            true => Change::Version,
            false => Change::RunFile,
        };
        for line in plan(&self.plan, &now.plan) {
            changes.push((kind(&line, &now.plan), format!("was {line}")));
        }
        for line in plan(&now.plan, &self.plan) {
            changes.push((kind(&line, &self.plan), format!("is  {line}")));
        }
        for (change, before, after) in [(Change::Data, &self.data, &now.data), (Change::Model, &self.model, &now.model)]
        {
            let missing =
                |a: &[Input], b: &[Input]| a.iter().filter(|one| !b.contains(one)).cloned().collect::<Vec<_>>();
            let (gone, new) = (missing(before, after), missing(after, before));
            let named = |list: &[Input], name: &str| list.iter().any(|one| one.name == name);
            changes.extend(new.iter().map(|input| {
                let what = if named(&gone, &input.name) { "has other bytes" } else { "is new" };
                (change, format!("{} {what}", input.name))
            }));
            let gone = gone.iter().filter(|input| !named(&new, &input.name));
            changes.extend(gone.map(|input| (change, format!("{} is gone", input.name))));
            if changes.iter().all(|(found, _)| *found != change) && before != after {
                changes.push((change, "the files are in another order".into()));
            }
        }
        if self.version != now.version {
            changes
                .push((Change::Version, format!("the run began with spo {}, this is {}", self.version, now.version)));
        } else if let (Some(before), Some(after)) = (&self.build, &now.build)
            && before != after
        {
            let short = |hash: &String| hash.chars().take(12).collect::<String>();
            let (version, before, after) = (&now.version, short(before), short(after));
            let what = format!("the run began with another build of spo {version}: {before}, this is {after}");
            changes.push((Change::Version, what));
        }
        changes
    }
}

/// Keys that may change while a run goes on: they change where and how fast it is computed, and no number.
const WITHOUT_RESULT: [&str; 3] = ["parallel.timeout", "parallel.optimizer-state", "parallel.bandwidth"];

/// Hash of the running program's file, wherever it lies.
fn build() -> Option<String> {
    // On Linux the file that runs can be read even where another one has taken its place.
    let own = Path::new("/proc/self/exe");
    let path = if own.exists() { own.to_owned() } else { std::env::current_exe().ok()? };
    let (_, hasher) = hash_start(&path, u64::MAX).ok()?;
    Some(hasher.finalize().to_hex().to_string())
}

fn damaged(path: &Path) -> TrainError {
    TrainError::Damaged { path: path.into(), reason: "its content does not have the checksum in it".into() }
}

/// The plan's values. Where files are does not matter, only what is in them.
fn values(plan: &RunPlan) -> Vec<String> {
    let place = |key: &str| {
        ["out", "model.path", "lora.start"].contains(&key)
            || ((key.starts_with("data.") || key.starts_with("hub.")) && key.ends_with(".path"))
    };
    let lines = plan.lines().into_iter().filter(|line| !place(&line.key));
    lines.map(|line| format!("{} = {}", line.key, line.value)).collect()
}

fn data_files(entries: &[DataEntry]) -> Result<Vec<PathBuf>, TrainError> {
    let mut files = vec![];
    for pattern in entries.iter().flat_map(|entry| entry.source.path.as_slice()) {
        files.extend(spo_data::files(pattern)?);
    }
    Ok(files)
}

/// Files of the starting model, and of the adapter on it.
fn model_files(plan: &RunPlan) -> Result<Vec<PathBuf>, TrainError> {
    let adapter = plan.lora.as_ref().and_then(|lora| lora.start.as_deref());
    let directories = [Some(plan.model.path.as_path()), adapter].into_iter().flatten();
    Ok(directories.map(files_of).collect::<Result<Vec<_>, _>>()?.concat())
}

/// Weights, tokenizer and configuration: the files of a model directory that a program reads, or a GGUF file with its
/// parts.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    if is_gguf(dir) {
        let file = Gguf::open(dir).map_err(DataError::from)?;
        return Ok(file.paths().map(Path::to_owned).collect());
    }
    let entries = std::fs::read_dir(dir).map_err(|e| TrainError::io(dir, e))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file());
    let read = ["json", "safetensors", "jinja", "txt", "model"];
    let known = |path: &PathBuf| path.extension().is_some_and(|ending| read.iter().any(|known| *known == ending));
    let mut paths: Vec<PathBuf> = paths.filter(known).collect();
    paths.sort();
    Ok(paths)
}

fn inputs(paths: &[PathBuf]) -> Result<Vec<Input>, TrainError> {
    let input = |path: &PathBuf| {
        let (bytes, hasher) = hash_start(path, u64::MAX).map_err(|e| TrainError::io(path, e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Input { name, bytes, blake3: hasher.finalize().to_hex().to_string() })
    };
    paths.iter().map(input).collect()
}
