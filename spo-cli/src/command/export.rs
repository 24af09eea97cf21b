//! `spo export`

mod card;

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use clap::{Args, ValueEnum};
use serde_json::json;
use spo_data::{DataError, DataSpec, TextSpec, load_bytes};
use spo_hub::{HubError, Kind, Name, Pushed, Settings};
use spo_model::export::{self, Base, GgufType, Manifest, ModelFiles, Parity, Probe};
use spo_model::load::{LoadOptions, Storage, load_gguf};
use spo_model::lora::{
    Condition, LoraSpec, load_adapter, load_adapter_for, merge_adapter, merge_adapter_at, merge_adapter_for,
    save_adapter,
};
use spo_model::{CausalLm, device};

use super::quickstart::TEST_PAIRS;
use crate::error::CliError;
use crate::hub;
use crate::output::{Output, note};
use crate::places::{Place, PointArguments};
use crate::scoring::check_rows;
use crate::steering::SteerArguments;

/// Write a model as a Hugging Face directory or a GGUF file, with an adapter merged into it if one is named
///
/// What was written is read back and compared with the model in memory on 8 pairs; manifest.json in the directory says
/// how close it was. An adapter is merged in f32 into the weights as the model's files have them; of a conditional policy
/// --weights says at which point of its front, or with --format peft it becomes a plain adapter; so does a policy for many
/// users whose run has `films = false` for the user of --steer. GGUF takes the
/// families that were compared with llama.cpp, with a BPE tokenizer, and refuses what it would compute otherwise.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Model directory or GGUF file; or a policy of a run, RUN:POLICY, the best one of a round RUN:ROUND@best
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Adapter directory in PEFT's format
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    point: PointArguments,
    #[command(flatten)]
    steering: SteerArguments,
    /// Merge the adapter into the model; that of a run's policy is merged in any case
    #[arg(long, requires = "adapter")]
    merge: bool,
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// Number format of the weights; hf: as they are, or f32, bf16, f16; gguf: f16, or f32, q8_0
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Directory to write; must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// hf: most bytes of a file of weights, with KB, MB or GB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    max_shard_size: usize,
    /// Upload what was written to a model repository of the Hugging Face Hub, which is made where it is not there, with a
    /// model card; HF_TOKEN must be set
    #[arg(long, value_name = "ORG/NAME", help_heading = "Hub")]
    push: Option<String>,
    /// Make the repository a private one
    #[arg(long, requires = "push", help_heading = "Hub")]
    private: bool,
    /// Where to compute: auto, cpu, vulkan, metal, wgpu, cuda, or with an index: cuda:0
    #[arg(long, default_value = "auto", help_heading = "Device")]
    device: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Hugging Face directory
    Hf,
    /// File for llama.cpp and its relatives
    Gguf,
    /// Adapter directory: that of a policy by itself, of a conditional one the plain adapter that it is at --weights or for the
    /// user of --steer
    Peft,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    F16,
    #[value(name = "q8_0")]
    Q8,
}

/// Bytes of `5GB`, `100MB`, `64KB` or a plain number.
fn size(text: &str) -> Result<usize, String> {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000), ("B", 1), ("", 1)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, bytes)| Some((text.strip_suffix(name)?, bytes)))
        .ok_or("expected a number of bytes")?;
    let number: usize = number.trim().parse().map_err(|_| "expected a whole number, with KB, MB or GB behind it")?;
    number.checked_mul(*unit).filter(|bytes| *bytes > 0).ok_or_else(|| "out of range".into())
}

/// In memory and on disk: the same type, or GGUF's own.
#[derive(Debug, Clone, Copy)]
enum Written {
    Hf(Option<Storage>),
    Gguf(GgufType),
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let (written, target) = (self.written()?, self.target()?);
        if self.adapter.is_some() && !self.merge && self.format != Format::Peft {
            return Err(CliError::argument("--adapter", "no --merge", "--merge with it, or --format peft"));
        }
        if self.out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(CliError::Exists { path: self.out.clone() });
        }
        let place = Place::named(&self.model, self.adapter.as_deref(), self.point.weights.as_ref())?;
        let device = device::open(&self.device)?;
        let Some(written) = written else { return self.adapter_alone(place, &device, output) };
        let files = ModelFiles::from_path(&place.model)?.with_ends()?;
        let model = CausalLm::open(&place.model, LoadOptions::default(), &device)?;
        let probe = probe(&model, &place)?;
        // The probe is scored in f32, so that rounding of the type written is all that differs.
        let wide = CausalLm::open(&place.model, LoadOptions { storage: Some(Storage::F32), blocks: None }, &device)?;
        let before = probe.score(&self.acting(wide, &place)?);
        let model = self.merged(model, &place)?;
        let policy = self.written_policy(&place);
        let Place { name, model: dir, adapter, text, meta, .. } = place;
        std::fs::create_dir_all(&self.out).map_err(|error| CliError::io(&self.out, error))?;
        let (saved, dtype, path) = match written {
            Written::Hf(storage) => {
                let model = match storage {
                    Some(storage) => model.clone().stored_as(storage),
                    None => model.clone(),
                };
                let dtype = format!("{:?}", model.dtype()).to_lowercase();
                export::save(&model, &files, &self.out, self.max_shard_size)?;
                let saved =
                    CausalLm::open(&self.out, LoadOptions { storage: Some(Storage::F32), blocks: None }, &device)?;
                (saved, dtype, self.out.clone())
            }
            Written::Gguf(dtype) => {
                let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
                let path = self.out.join(format!("model-{}.gguf", dtype.name()));
                export::save_gguf(&model, &files, &name, dtype, &path)?;
                let wide = LoadOptions { storage: Some(Storage::F32), blocks: None };
                (load_gguf(&path, model.spec(), wide, &device)?, dtype.name().into(), path)
            }
        };
        let after = probe.score(&saved);
        let parity = Parity::check(&probe, &before, &after, allowed(written, &model, &before), &path)?;
        let format = if self.format == Format::Hf { "hf" } else { "gguf" };
        let mut manifest = Manifest::new(format, dtype.clone(), parity.clone());
        (manifest.text, manifest.meta_prompts) = (text, meta);
        manifest.policy = policy;
        if let Some(adapter) = &adapter {
            manifest.base = Some(Base { path: dir.display().to_string(), quantised: None });
            manifest.merged_adapter = Some(adapter.display().to_string());
        }
        manifest.write(&self.out)?;
        note(format_args!(
            "{}: {dtype}; read back, the log-probs of {} answers differ by at most {:.1e} nats",
            path.display(),
            parity.sequences,
            parity.largest_difference
        ));
        let mut result = json!({ "path": path, "manifest": manifest });
        if let Some(target) = &target {
            let pushed = self.upload(target, &card::Facts { path: &path, dtype: &dtype, parity: &parity })?;
            result["pushed"] = json!({ "page": pushed.page, "commit": pushed.commit });
        }
        output.pretty_json(&result)
    }

    /// A place's model with its adapter on it, at its point or for its user.
    fn acting(&self, model: CausalLm, place: &Place) -> Result<CausalLm, CliError> {
        let model = match &place.adapter {
            Some(adapter) => at(load_adapter(model, adapter)?.0, place.point.as_deref()),
            None => model,
        };
        self.steering.on(model, place)
    }

    /// The same with the adapter in its weights.
    fn merged(&self, model: CausalLm, place: &Place) -> Result<CausalLm, CliError> {
        let Some(adapter) = &place.adapter else { return Ok(model) };
        Ok(match (&place.point, &self.steering.steer) {
            (_, Some(user)) => merge_adapter_for(model, adapter, user)?,
            (Some(point), None) => merge_adapter_at(model, adapter, point)?,
            (None, None) => merge_adapter(model, adapter)?,
        })
    }

    /// What the manifest of a whole model says that it is, where that is one of many things that a policy can be.
    fn written_policy(&self, place: &Place) -> Option<String> {
        match &self.steering.steer {
            Some(user) => Some(format!("{} for {}", place.name, user.display())),
            None => place.point.as_ref().map(|_| place.name.clone()),
        }
    }

    /// Where to upload to; what cannot be done is said before anything is written.
    fn target(&self) -> Result<Option<Name>, CliError> {
        let Some(name) = &self.push else { return Ok(None) };
        let name = format!("hf://{}", name.trim_start_matches("hf://"));
        let parsed = Name::parse(&name, Path::new(""))?.filter(|name| name.kind == Kind::Model && name.file.is_none());
        let parsed = parsed.ok_or_else(|| CliError::argument("--push", name, "ORG/NAME"))?;
        if !cfg!(feature = "hub") {
            return Err(HubError::NotBuilt { name: parsed.to_string() }.into());
        }
        if Settings::from_env().token.is_none() {
            let message = "no token is set".into();
            return Err(HubError::Token { name: parsed.to_string(), status: 401, message }.into());
        }
        Ok(Some(parsed))
    }

    fn upload(&self, target: &Name, facts: &card::Facts<'_>) -> Result<Pushed, CliError> {
        let card = card::text(target, &self.model, facts)?;
        let path = self.out.join("README.md");
        std::fs::write(&path, card).map_err(|source| CliError::io(&path, source))?;
        let mut bar = hub::Bar::default();
        let message = concat!("Upload by spo ", env!("CARGO_PKG_VERSION"));
        let settings = Settings::from_env();
        let pushed =
            spo_hub::push(target, &self.out, message, self.private, &settings, &mut |progress| bar.hear(progress))?;
        drop(bar);
        note(format_args!("uploaded to {}", pushed.page));
        Ok(pushed)
    }

    fn written(&self) -> Result<Option<Written>, CliError> {
        let wrong = |found: &str, expected: &str| Err(CliError::argument("--dtype", found, expected));
        Ok(Some(match (self.format, self.dtype) {
            (Format::Peft, None) => return Ok(None),
            (Format::Peft, Some(_)) => return wrong("a number format", "none: an adapter is written in f32"),
            (Format::Hf, None) => Written::Hf(None),
            (Format::Hf, Some(Dtype::F32)) => Written::Hf(Some(Storage::F32)),
            (Format::Hf, Some(Dtype::Bf16)) => Written::Hf(Some(Storage::Bf16)),
            (Format::Hf, Some(Dtype::F16)) => Written::Hf(Some(Storage::F16)),
            (Format::Hf, Some(Dtype::Q8)) => return wrong("q8_0", "f32, bf16 or f16 with --format hf"),
            (Format::Gguf, None | Some(Dtype::F16)) => Written::Gguf(GgufType::F16),
            (Format::Gguf, Some(Dtype::F32)) => Written::Gguf(GgufType::F32),
            (Format::Gguf, Some(Dtype::Q8)) => Written::Gguf(GgufType::Q8),
            (Format::Gguf, Some(Dtype::Bf16)) => return wrong("bf16", "f32, f16 or q8_0 with --format gguf"),
        }))
    }

    /// Writes the adapter of a place by itself, a conditional one at its point or for its user.
    fn adapter_alone(&self, place: Place, device: &Device, output: &mut Output) -> Result<(), CliError> {
        let Some(adapter) = &place.adapter else {
            return Err(CliError::argument("--format", "peft", "hf or gguf: the model has no adapter"));
        };
        let wide = || CausalLm::open(&place.model, LoadOptions { storage: Some(Storage::F32), blocks: None }, device);
        let (model, spec) = match &self.steering.steer {
            Some(user) => load_adapter_for(wide()?, adapter, user)?,
            None => {
                let (model, spec) = load_adapter(wide()?, adapter)?;
                (at(model, place.point.as_deref()), kept(spec))
            }
        };
        let probe = probe(&model, &place)?;
        let before = probe.score(&self.acting(wide()?, &place)?);
        save_adapter(&model, &spec, &place.model.display().to_string(), &self.out)?;
        let after = probe.score(&load_adapter(wide()?, &self.out)?.0);
        let parity = Parity::check(&probe, &before, &after, export::rounding(DType::F32, &before), &self.out)?;
        let mut manifest = Manifest::new("peft", "f32".into(), parity.clone());
        manifest.text.clone_from(&place.text);
        manifest.meta_prompts.clone_from(&place.meta);
        manifest.policy = self.written_policy(&place).or_else(|| Some(place.name.clone()));
        manifest.base = Some(Base { path: place.model.display().to_string(), quantised: None });
        manifest.write(&self.out)?;
        note(format_args!(
            "{}: rank {}; read back, the log-probs of {} answers differ by at most {:.1e} nats",
            self.out.display(),
            spec.total_rank(),
            parity.sequences,
            parity.largest_difference
        ));
        output.pretty_json(&json!({ "path": self.out, "manifest": manifest }))
    }
}

/// What an adapter is written as by itself: one that goes by contexts keeps what makes its coefficients of them.
fn kept(spec: LoraSpec) -> LoraSpec {
    let by_contexts = spec.front.as_ref().is_some_and(|front| matches!(front.condition, Condition::Contexts(_)));
    if by_contexts { spec } else { spec.at_point() }
}

/// The model at a point of its front, if there is one.
fn at(model: CausalLm, point: Option<&[f64]>) -> CausalLm {
    match point {
        Some(point) => model.at_weights(point),
        None => model,
    }
}

/// Built-in pairs in the model's tokens, or random ones for a model whose tokenizer cannot tell them.
pub(super) fn probe(model: &CausalLm, place: &Place) -> Result<Probe, CliError> {
    let spec = DataSpec { limit: Some(8), ..DataSpec::default() };
    let own = place.text.clone().unwrap_or_default();
    let text = TextSpec { max_length: own.max_length.or(Some(model.spec().context)), ..own };
    let tokenizer = place.tokenizer()?;
    let data = match load_bytes("built-in.jsonl.gz", TEST_PAIRS, &spec, &text, &tokenizer) {
        Err(DataError::IdsOnly) => return Ok(Probe::random(model.spec())),
        other => other?,
    };
    check_rows(model.spec(), &data)?;
    Ok(Probe::new(data.examples.iter()))
}

/// How far log-probs may be off: rounding in the narrowest type involved, and for q8_0 a twentieth.
fn allowed(written: Written, model: &CausalLm, before: &[f64]) -> f64 {
    let scale = export::rounding(DType::F32, before) / 1e-4;
    match written {
        Written::Gguf(GgufType::Q8) => 0.05 * scale,
        Written::Gguf(GgufType::F16) | Written::Hf(Some(Storage::Bf16 | Storage::F16)) => 0.02 * scale,
        Written::Hf(_) | Written::Gguf(GgufType::F32) => export::rounding(model.dtype(), before),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("5GB"), Ok(5_000_000_000));
        assert_eq!(size("64 KB"), Ok(64_000));
        assert_eq!(size("12"), Ok(12));
        assert!(size("0").is_err() && size("x").is_err() && size("-1").is_err());
    }
}
