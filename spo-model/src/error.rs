//! What can go wrong between a model directory and a running model.

use std::path::PathBuf;

/// Errors of this crate. Each names the file, the key, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A directory lacks a file that every model directory has.
    #[error("{} is not {} directory: {file} is missing", dir.display(), kind(file))]
    MissingFile {
        /// The directory that was named.
        dir: PathBuf,
        /// The file looked for.
        file: String,
    },
    /// A JSON file could not be parsed.
    #[error("{file}: not valid JSON: {reason}")]
    Json {
        /// The file.
        file: String,
        /// Parser message with line and column.
        reason: String,
    },
    /// A key of `config.json` is missing or has an unusable value.
    #[error("{file}: key `{key}`: found {found}, expected {expected}")]
    Config {
        /// The file.
        file: String,
        /// The JSON key.
        key: String,
        /// What the file holds.
        found: String,
        /// What this crate can use.
        expected: String,
    },
    /// The architecture is not one of the registry.
    #[error("{file}: model_type `{found}` is not supported")]
    UnknownFamily {
        /// The file.
        file: String,
        /// The value of `model_type`.
        found: String,
        /// Nearest supported name, if any is close.
        nearest: Option<String>,
        /// All supported names.
        known: Vec<&'static str>,
    },
    /// The architecture is known and deliberately refused.
    #[error("{file}: model_type `{found}` is refused: {reason}")]
    RefusedFamily {
        /// The file.
        file: String,
        /// The value of `model_type`.
        found: String,
        /// Why it cannot be loaded.
        reason: String,
    },
    /// A GGUF file is damaged, or holds what is not known here.
    #[error(transparent)]
    Gguf(#[from] spo_data::gguf::GgufError),
    /// A matrix has blocks that graphics cards cannot keep.
    #[error("{}: {name} cannot stay in its blocks on a graphics card: {reason}", path.display())]
    NotOnCards {
        /// The file.
        path: PathBuf,
        /// The matrix, by module path.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// A safetensors file is damaged.
    #[error("{}: damaged safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        reason: String,
    },
    /// A directory has its weights in pickle files only.
    #[error("{}: the weights are pickle files, which are refused because opening one can run code: {}", dir.display(), preview(files))]
    Pickle {
        /// The model directory.
        dir: PathBuf,
        /// The files.
        files: Vec<String>,
    },
    /// The index of a sharded checkpoint does not agree with a shard.
    #[error("{}: does not agree with {}{}{}", index.display(), shard.display(), list("not in it", absent), list("not in the index", extra))]
    Index {
        /// The index.
        index: PathBuf,
        /// The shard.
        shard: PathBuf,
        /// Tensors that the index puts there and the shard lacks.
        absent: Vec<String>,
        /// Tensors of the shard that the index puts elsewhere or nowhere.
        extra: Vec<String>,
    },
    /// A file is not there, only the text that stands for it in a Git repository.
    #[error("{} is a Git LFS pointer, not the file itself", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A weight is not a number, or infinite.
    #[error("{}: tensor `{name}`: the value at {at:?} is {value} as {stored}", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The checkpoint name.
        name: String,
        /// Where in the tensor.
        at: Vec<usize>,
        /// The value: NaN, inf or -inf.
        value: f32,
        /// The type it was to be kept in.
        stored: &'static str,
    },
    /// A model that shares the embedding's table with its head has a head of its own.
    #[error("{}: `{head}` differs from `{table}`, but tie_word_embeddings is true in config.json", path.display())]
    TiedHead {
        /// The checkpoint.
        path: PathBuf,
        /// Checkpoint name of the head.
        head: String,
        /// Checkpoint name of the embedding.
        table: String,
    },
    /// An adapter's file does not hold what its configuration names.
    #[error("{}: {} tensor(s) missing that adapter_config.json asks for: {}", path.display(), names.len(), preview(names))]
    AdapterLacks {
        /// The file.
        path: PathBuf,
        /// PEFT's names of them.
        names: Vec<String>,
    },
    /// Tensors that the model needs are not in the checkpoint.
    #[error("{}: {} tensor(s) missing: {}", path.display(), names.len(), preview(names))]
    MissingTensors {
        /// The checkpoint.
        path: PathBuf,
        /// Their checkpoint names.
        names: Vec<String>,
    },
    /// The checkpoint holds tensors that the model has no place for.
    #[error("{}: {} unexpected tensor(s): {}", path.display(), names.len(), preview(names))]
    UnexpectedTensors {
        /// The checkpoint.
        path: PathBuf,
        /// Their checkpoint names.
        names: Vec<String>,
    },
    /// A tensor has another shape than `config.json` says.
    #[error("{}: tensor `{name}`: found shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The checkpoint name.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that `config.json` implies.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that cannot be loaded.
    #[error("{}: tensor `{name}`: stored as {found}, expected F32, F16 or BF16", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The checkpoint name.
        name: String,
        /// Type in the file.
        found: String,
    },
    /// A device was named that this build or this machine does not have.
    #[error("device `{name}` is not available: {reason}")]
    Device {
        /// The name as given.
        name: String,
        /// Why not.
        reason: String,
        /// The devices of this build.
        compiled: Vec<&'static str>,
    },
    /// A device cannot compute in the type that weights are stored in.
    #[error("the device {device} does not compute in {dtype}")]
    DeviceDtype {
        /// The device in words.
        device: String,
        /// The type.
        dtype: &'static str,
        /// Types that the device computes in.
        known: Vec<&'static str>,
    },
    /// A device does not multiply in the way asked for.
    #[error("{device} does not multiply by {strategy}: {reason}")]
    Matmul {
        /// The strategy.
        strategy: &'static str,
        /// The device in words.
        device: String,
        /// Why not.
        reason: String,
    },
    /// A row does not fit the model.
    #[error("{id}: {found} tokens, but the model's context is {context}")]
    TooLong {
        /// The row.
        id: String,
        /// Tokens of prompt and longest answer.
        found: usize,
        /// The model's `max_position_embeddings`.
        context: usize,
    },
    /// A token id is outside the vocabulary.
    #[error("{id}: token id {token}, but the vocabulary has {vocab} entries")]
    TokenOutOfRange {
        /// The row.
        id: String,
        /// The id found.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// An adapter does not fit the model.
    #[error("{file}: {reason}")]
    Adapter {
        /// The adapter's file.
        file: String,
        /// What does not fit.
        reason: String,
    },
    /// Models that cannot be merged into one.
    #[error("{what}: {reason}")]
    Merge {
        /// The model or the method.
        what: String,
        /// Why not.
        reason: String,
    },
    /// What steers a policy, or a user's vector, is damaged or does not fit.
    #[error("{}: {reason}", file.display())]
    Steering {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Weights of preferences that no policy can follow.
    #[error("weights {found:?}: {reason}")]
    Weights {
        /// The weights as they were given.
        found: String,
        /// What is wrong.
        reason: String,
        /// Weights that would do.
        hint: String,
    },
    /// A reward model where a language model is expected.
    #[error("{}: a reward model: it scores texts and has no log-probabilities of tokens", dir.display())]
    OnlyScores {
        /// The directory.
        dir: PathBuf,
    },
    /// A directory that is no reward model, or one that leaves open what the reward is.
    #[error("{}: {reason}", dir.display())]
    Reward {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model's tokenizer is broken.
    #[error(transparent)]
    Tokenizer(#[from] spo_data::DataError),
    /// A file format that cannot hold the model.
    #[error("{format} cannot hold {reason}")]
    Export {
        /// The format.
        format: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A saved model did not come back the same.
    #[error("{}: reloaded log-probs differ by {drift:e}, allowed {allowed:e}", path.display())]
    Parity {
        /// The saved directory.
        path: PathBuf,
        /// Largest difference of a sequence log-prob.
        drift: f64,
        /// What was allowed.
        allowed: f64,
    },
}

impl ModelError {
    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// What a user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingFile { file, .. } if file == "config.json" => {
                Some("name a Hugging Face model directory: config.json, *.safetensors, tokenizer.json".into())
            }
            Self::MissingFile { file, .. } if file.starts_with("adapter_") => {
                Some("name a directory that PEFT or spo saved: adapter_config.json, adapter_model.safetensors".into())
            }
            Self::MissingFile { file, .. } if file.ends_with(".safetensors") => {
                Some("only safetensors weights are read, one file or shards with model.safetensors.index.json".into())
            }
            Self::Pickle { .. } => Some(
                "convert them with `model.save_pretrained(dir)` in transformers or PEFT, on a machine where you trust them"
                    .into(),
            ),
            Self::Steering { .. } => {
                Some("`spo steer --model RUN:POLICY --examples FILE --out z.safetensors` makes a vector for a policy".into())
            }
            Self::Weights { hint, .. } => Some(hint.clone()),
            Self::OnlyScores { .. } => {
                Some("name it as a scorer, or as the model of a run whose objective is `reward`".into())
            }
            Self::Tokenizer(error) => error.hint(),
            Self::Gguf(error) => error.hint.map(str::to_owned),
            Self::LfsPointer { .. } => Some("`git lfs pull` in the repository's directory fetches it".into()),
            Self::NotFinite { value, stored: "f16", .. } if value.is_infinite() => {
                Some("f16 ends at 65504: load the model as f32 or bf16, if the file's own value is finite".into())
            }
            Self::NotFinite { .. } => {
                Some("every log-prob would be NaN: the file is damaged, or what trained it had diverged".into())
            }
            Self::TiedHead { .. } => Some(
                "set tie_word_embeddings to false if the head is to count, or take it out of the file".into(),
            ),
            Self::AdapterLacks { .. } => {
                Some("the file is not whole, or adapter_config.json belongs to another: save the adapter again".into())
            }
            Self::Index { .. } => Some("index and shards must come from the same upload: download them again".into()),
            Self::UnknownFamily { nearest, known, .. } => Some(match nearest {
                Some(name) => format!("did you mean `{name}`? supported: {}", known.join(", ")),
                None => format!("supported: {}", known.join(", ")),
            }),
            Self::Device { compiled, .. } => Some(format!(
                "this build has: {}; other devices need the cargo features cuda, vulkan, metal or wgpu",
                compiled.join(", ")
            )),
            Self::DeviceDtype { known, .. } => Some(format!("choose another dtype: {}", known.join(", "))),
            Self::Matmul { .. } => {
                Some("leave `matmul` out, or set it to auto; `spo bench --what matmul` tries every way on a card".into())
            }
            Self::NotOnCards { .. } => {
                Some("load it as numbers, quantise it anew (\"4-bit\"), or keep it so on the CPU".into())
            }
            Self::Safetensors { .. } => Some("the file may be cut off: copy or download it again".into()),
            Self::TooLong { .. } => {
                Some("lower text.max-length, so that long rows are cut or dropped with a report".into())
            }
            Self::TokenOutOfRange { .. } => Some("the tokenizer does not belong to this model".into()),
            Self::UnexpectedTensors { path, .. } | Self::Shape { path, .. }
                if path.ends_with("adapter_model.safetensors") =>
            {
                Some("the adapter was made for another model".into())
            }
            Self::MissingTensors { path, .. } | Self::UnexpectedTensors { path, .. } | Self::Shape { path, .. }
                if path.extension().is_some_and(|end| end == "gguf") =>
            {
                Some("its metadata and tensors do not belong together: download the file, or convert the model, again".into())
            }
            Self::MissingTensors { .. } | Self::UnexpectedTensors { .. } | Self::Shape { .. } => {
                Some("config.json and the weights must come from the same model".into())
            }
            _ => None,
        }
    }
}

/// What a directory would be that lacks this file.
fn kind(file: &str) -> &'static str {
    if file.starts_with("adapter_") { "an adapter" } else { "a model" }
}

fn list(what: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; {what}: {}", preview(names)) }
}

fn preview(names: &[String]) -> String {
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown}, …") } else { shown }
}
