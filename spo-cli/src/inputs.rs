//! What several commands take: a model, a tokenizer, data files, the layout of text.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::{Deserialize, Serialize};
use spo_data::meta::MetaPrompts;
use spo_data::{DataSpec, Dataset, Overflow, Part, Paths, Reason, Record, Registry, TemplateKind, TextSpec, Tokenizer};
use spo_model::CausalLm;
use spo_model::device::{self, MatmulStrategy};
use spo_model::load::{Kept, LoadOptions, Storage};
use spo_model::lora::load_adapter;

use crate::error::CliError;
use crate::hub;
use crate::output::note;

/// Where and in which number format to compute.
#[derive(Debug, Args)]
pub(crate) struct DeviceArguments {
    /// auto, cpu, vulkan, metal, wgpu, cuda, or with an index: cuda:0
    #[arg(long, default_value = "auto", help_heading = "Device")]
    pub device: String,
    /// Number format of the weights in memory
    #[arg(long, value_enum, default_value_t = Dtype::F32, help_heading = "Device")]
    pub dtype: Dtype,
    /// How a graphics card multiplies matrices: a strategy of `spo bench --what matmul`
    #[arg(long, default_value = "auto", value_parser = matmul_strategy, value_name = "STRATEGY", help_heading = "Device")]
    pub matmul: MatmulStrategy,
    /// Keep the projections as the file stores them, in blocks or, on the CPU, in 16-bit floats: less memory, and the numbers
    /// of --dtype f32
    #[arg(long, help_heading = "Device")]
    pub as_stored: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dtype {
    F32,
    Bf16,
    F16,
}

impl Dtype {
    pub fn storage(self) -> Storage {
        match self {
            Self::F32 => Storage::F32,
            Self::Bf16 => Storage::Bf16,
            Self::F16 => Storage::F16,
        }
    }
}

/// A strategy by its name.
pub(crate) fn matmul_strategy(argument: &str) -> Result<MatmulStrategy, String> {
    let known = || MatmulStrategy::ALL.iter().map(|strategy| strategy.name()).collect::<Vec<_>>().join(", ");
    MatmulStrategy::named(argument).ok_or_else(|| format!("expected one of {}", known()))
}

impl DeviceArguments {
    /// Opens the device.
    pub fn open(&self) -> Result<Device, CliError> {
        let device = device::open(&self.device)?;
        device::multiply_by(&device, self.matmul, self.dtype.storage())?;
        Ok(device)
    }

    /// Loads a model, with an adapter if one is named, which is at these weights if it is conditional.
    pub fn load(
        &self,
        device: &Device,
        model: &Path,
        adapter: Option<&Path>,
        point: Option<&[f64]>,
    ) -> Result<CausalLm, CliError> {
        let start = Instant::now();
        let mut loaded = open(model, self.dtype.storage(), self.as_stored, device)?;
        if let Some(adapter) = adapter {
            (loaded, _) = load_adapter(loaded, adapter)?;
            if let Some(point) = point {
                loaded = loaded.at_weights(point);
            }
        }
        tracing::info!(model = %model.display(), ?device, seconds = start.elapsed().as_secs_f64(), "model loaded");
        Ok(loaded)
    }
}

/// Loads a model in this type, its projections as they are stored if that is asked for.
pub(crate) fn open(model: &Path, storage: Storage, as_stored: bool, device: &Device) -> Result<CausalLm, CliError> {
    let blocks = as_stored.then_some(Kept::AsStored);
    let loaded = CausalLm::open(model, LoadOptions { storage: Some(storage), blocks }, device)?;
    if as_stored && !loaded.is_quantised() {
        let found = format!("{} without one in blocks or 16-bit floats", model.display());
        return Err(CliError::argument("--as-stored", found, "a file that stores projections so"));
    }
    Ok(loaded)
}

/// How text becomes tokens: the keys of `[text]` in a run file. A policy of a run, and a model or adapter that spo wrote,
/// have a layout of their own, of which these change parts.
#[derive(Debug, Args)]
pub(crate) struct TextArguments {
    /// chat renders the tokenizer's chat template, plain concatenates text; auto is chat where there is a template and
    /// no format is given. Without it text is laid out as the model's run did, else auto
    #[arg(long, value_enum, help_heading = "Text")]
    template: Option<Template>,
    /// Plain layout of a prompt, with {prompt} in it; \n is a line break
    #[arg(long, value_name = "FORMAT", help_heading = "Text")]
    prompt_format: Option<String>,
    /// Plain layout of an answer, with {response} in it; \n is a line break
    #[arg(long, value_name = "FORMAT", help_heading = "Text")]
    response_format: Option<String>,
    /// System message for prompts that have none
    #[arg(long, value_name = "TEXT", help_heading = "Text")]
    system: Option<String>,
    /// Variables of the chat template as a JSON object: {"enable_thinking": false}
    #[arg(long, value_name = "JSON", value_parser = json_object, help_heading = "Text")]
    template_kwargs: Option<serde_json::Map<String, serde_json::Value>>,
    /// Do not end plain answers with the tokenizer's EOS
    #[arg(long, help_heading = "Text")]
    no_eos: bool,
    /// Tokens that prompt plus longest answer may have
    #[arg(long, value_name = "N", help_heading = "Text")]
    max_length: Option<usize>,
    /// What happens to longer rows; answer-first if the model's run does not say
    #[arg(long, value_enum, help_heading = "Text")]
    overflow: Option<Long>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Template {
    Auto,
    Chat,
    Plain,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Long {
    /// Cut the beginning of the prompt, then the end of the answers
    AnswerFirst,
    /// Keep the first tokens of prompt plus answer
    KeepStart,
    /// Drop the row
    Drop,
}

impl TextArguments {
    /// The layout of a model's text; `own` is that of the run that made it, where one did.
    pub fn spec(&self, own: Option<&TextSpec>) -> TextSpec {
        let mut text = own.cloned().unwrap_or_default();
        let broken = |format: &String| format.replace("\\n", "\n");
        let formats = [&self.prompt_format, &self.response_format];
        if self.template.is_some() || formats.iter().any(|format| format.is_some()) {
            // Template and formats belong together: a part of one layout makes no sense in another.
            text.template = self.template.map_or(TemplateKind::Auto, Template::kind);
            [text.prompt_format, text.response_format] = formats.map(|format| format.as_ref().map(broken));
        }
        if self.system.is_some() {
            text.system.clone_from(&self.system);
        }
        text.template_kwargs.extend(self.template_kwargs.clone().unwrap_or_default());
        text.append_eos &= !self.no_eos;
        text.max_length = self.max_length.or(text.max_length);
        text.overflow = self.overflow.map_or(text.overflow, Long::overflow);
        text
    }
}

impl Template {
    fn kind(self) -> TemplateKind {
        match self {
            Self::Auto => TemplateKind::Auto,
            Self::Chat => TemplateKind::Chat,
            Self::Plain => TemplateKind::Plain,
        }
    }
}

impl Long {
    fn overflow(self) -> Overflow {
        match self {
            Self::AnswerFirst => Overflow::AnswerFirst,
            Self::KeepStart => Overflow::KeepStart,
            Self::Drop => Overflow::Drop,
        }
    }
}

/// How the rows of files read: the keys of `[[data]]` in a run file.
#[derive(Debug, Args)]
pub(crate) struct LayoutArguments {
    /// File format, where the extension does not tell; `spo list formats` shows all
    #[arg(long, value_name = "NAME", help_heading = "Layout")]
    format: Option<String>,
    /// Layout of the rows, where the first rows do not tell; `spo list schemas` shows all
    #[arg(long, value_name = "NAME", help_heading = "Layout")]
    schema: Option<String>,
    /// Name of the dimension in layouts whose one preference has no name
    #[arg(long, value_name = "NAME", help_heading = "Layout")]
    dimension: Option<String>,
    /// A key of the layout that the file names otherwise: prompt=question
    #[arg(long = "column", value_name = "KEY=NAME", value_parser = key_and_name, help_heading = "Layout")]
    columns: Vec<(String, String)>,
    /// Rows to read at most
    #[arg(long, value_name = "N", help_heading = "Layout")]
    limit: Option<usize>,
    /// Which files of a directory to read where their names tell splits, as in train-00000-of-00002.parquet
    #[arg(long, value_enum, default_value_t = FileSplit::All, help_heading = "Layout")]
    split: FileSplit,
    /// Keep tokenised files in this directory and take them from there the next time
    #[arg(long, value_name = "DIR", help_heading = "Layout")]
    token_cache: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileSplit {
    /// All files
    All,
    /// Those of train, where there are others too
    Train,
    /// Those of test, or else validation, where there are some of train too
    Test,
}

fn json_object(argument: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(argument).map_err(|error| format!("{error}; expected a JSON object"))
}

fn key_and_name(argument: &str) -> Result<(String, String), String> {
    let (key, name) = argument.split_once('=').ok_or("expected KEY=NAME")?;
    Ok((key.to_owned(), name.to_owned()))
}

impl LayoutArguments {
    /// Loads files and says how many rows were dropped or changed.
    pub fn load(&self, files: &[PathBuf], text: &TextSpec, tokenizer: &Tokenizer) -> Result<Dataset, CliError> {
        self.load_part(files, self.part(), text, tokenizer)
    }

    /// As [`Self::load`], with a text before every prompt if there is one.
    pub fn load_behind(
        &self,
        meta_prompts: Option<MetaPrompts>,
        files: &[PathBuf],
        text: &TextSpec,
        tokenizer: &Tokenizer,
    ) -> Result<Dataset, CliError> {
        let spec = DataSpec { meta_prompts, ..self.spec(files, self.part(), self.limit)? };
        self.read(spec, text, tokenizer)
    }

    /// The rows of files as text; says which columns nobody read.
    pub fn records(&self, files: &[PathBuf]) -> Result<Vec<Record>, CliError> {
        let (records, report) = Registry::builtin().records(&[self.spec(files, self.part(), self.limit)?])?;
        report.unused().for_each(note);
        Ok(records)
    }

    fn spec(&self, files: &[PathBuf], part: Part, limit: Option<usize>) -> Result<DataSpec, CliError> {
        let files = hub::rows(files, part == Part::Test)?;
        Ok(DataSpec {
            path: Paths::Many(files.iter().map(|file| file.to_string_lossy().into_owned()).collect()),
            format: self.format.clone(),
            schema: self.schema.clone(),
            dimension: self.dimension.clone(),
            columns: self.columns.iter().cloned().collect(),
            limit,
            part,
            ..DataSpec::default()
        })
    }

    fn part(&self) -> Part {
        match self.split {
            FileSplit::All => Part::All,
            FileSplit::Train => Part::Train,
            FileSplit::Test => Part::Test,
        }
    }

    /// Whether no split was asked for.
    pub fn reads_whole_directories(&self) -> bool {
        matches!(self.split, FileSplit::All)
    }

    /// As [`Self::load`], of a part of each directory.
    pub fn load_part(
        &self,
        files: &[PathBuf],
        part: Part,
        text: &TextSpec,
        tokenizer: &Tokenizer,
    ) -> Result<Dataset, CliError> {
        self.read(self.spec(files, part, self.limit)?, text, tokenizer)
    }

    /// As [`Self::load`], of so many rows of each file, unless `--limit` says how many.
    pub fn load_at_most(
        &self,
        files: &[PathBuf],
        rows: usize,
        text: &TextSpec,
        tokenizer: &Tokenizer,
    ) -> Result<Dataset, CliError> {
        self.read(self.spec(files, self.part(), self.limit.or(Some(rows)))?, text, tokenizer)
    }

    fn read(&self, spec: DataSpec, text: &TextSpec, tokenizer: &Tokenizer) -> Result<Dataset, CliError> {
        let start = Instant::now();
        let mut rows = reading();
        let data = match &self.token_cache {
            Some(directory) => spo_data::load_cached(&[spec], text, tokenizer, directory, &mut rows)?.0,
            None => spo_data::load(&[spec], text, tokenizer, &mut rows)?,
        };
        tracing::info!(rows = data.report.rows(), seconds = start.elapsed().as_secs_f64(), "data tokenised");
        Ok(data)
    }
}

/// Tells a person at a terminal how many rows were read, now and then.
fn reading() -> impl FnMut(usize) {
    let bar = ProgressBar::new_spinner().with_message("rows read").with_finish(ProgressFinish::AndClear);
    bar.set_style(ProgressStyle::with_template("{human_pos} {msg}, {per_sec}").expect("the template is valid"));
    move |rows| bar.set_position(rows as u64)
}

/// `count what (first ids)`; `what` is of one thing, an `s` makes it several.
pub(crate) fn finding<'a>(count: usize, what: &str, then: &str, ids: impl Iterator<Item = &'a str>) -> String {
    const NAMED: usize = 3;
    let named: Vec<&str> = ids.take(NAMED).collect();
    let more = if count > NAMED { ", …" } else { "" };
    let several = if count == 1 { "" } else { "s" };
    format!("{count} {what}{several}{then} ({}{more})", named.join(", "))
}

/// Columns that nobody read, one line per file, and what happened to rows, one line per reason.
pub(crate) fn incidents(data: &Dataset) -> Vec<String> {
    let rows = data.report.counts().into_iter().map(|(reason, count)| of_reason(data, reason, count));
    data.report.unused().chain(rows).collect()
}

fn of_reason(data: &Dataset, reason: Reason, count: usize) -> String {
    let of_reason = data.report.incidents.iter().filter(|incident| incident.reason == reason);
    finding(count, "row", &format!(" {}", reason.describe()), of_reason.map(|incident| incident.id.as_str()))
}

/// Rejects a dataset without rows.
pub(crate) fn require_rows(data: &Dataset, files: &[PathBuf]) -> Result<(), CliError> {
    if data.examples.is_empty() {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let dropped = data.report.counts().into_iter().filter(|(reason, _)| reason.dropped());
        let dropped = dropped.map(|(reason, count)| of_reason(data, reason, count)).collect();
        return Err(CliError::NoRows { file: files.join(", "), dropped });
    }
    Ok(())
}
