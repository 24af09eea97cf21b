//! What a user writes about data: files and how their text becomes tokens.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::DataError;
use crate::meta::MetaPrompts;

/// Files of one layout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DataSpec {
    /// A file, directory or pattern (`data/*.jsonl.gz`), a data set on the Hugging Face Hub (`hf://datasets/org/name`), or a list
    /// of them.
    pub path: Paths,
    /// File format by name; by the file's extension if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Layout of the rows by name; recognised from the first rows if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name of the dimension in layouts with one unnamed preference; `preference` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<String>,
    /// Keys of the layout that the file names otherwise: `columns.prompt = "question"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Rows to read at most, over all files of this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// How often each row counts: 2 repeats every row, 0.5 takes every other one; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Share of the tokens that this entry's rows are to have, among those of the split's entries that have a share: rows
    /// are repeated or skipped evenly until shares and tokens agree, and the tokens of all of them stay as many. Excludes
    /// `weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub token_share: Option<f64>,
    /// Variables of the chat template for these rows, such as `enable_thinking`, over those of `[text]` and under a row's own
    /// `chat_template_kwargs`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub template_kwargs: Map<String, Value>,
    /// Makes a row for each dimension that a row is labelled along, with a text before its prompt that asks for the dimension
    /// (MetaAlign, arXiv 2410.14184; docs/conditional.md). Rounds then learn the dimension `asked`. On training data, whose
    /// texts the data with `split = "test"` are asked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_prompts: Option<MetaPrompts>,
    /// Which files of a directory to read where their names tell splits; set by the program, not by a user.
    #[serde(skip)]
    pub part: Part,
}

/// Files of a directory by the split that their names tell, as on the Hugging Face hub: `train-00000-of-00002.parquet`,
/// `test/data.arrow`. Paths to files and patterns are read whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// All files.
    #[default]
    All,
    /// Where there are files of `train` beside those of `test` or `validation`, only the former.
    Train,
    /// Where there are files of `train`, only those of `test`, or else of `validation`.
    Test,
}

impl DataSpec {
    /// Everything by detection.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: Paths::One(path.into()), ..Self::default() }
    }
}

/// One path or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// One path or pattern.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Paths {
    /// The paths as a list.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }
}

/// How text becomes tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TextSpec {
    /// `chat` renders the tokenizer's chat template, `plain` concatenates text, `auto` is chat where the
    /// tokenizer has a template and no prompt or response format is given.
    pub template: TemplateKind,
    /// Plain layout of a prompt; `{prompt}` stands for it. Without one the prompt is taken as it is, and
    /// conversations are written as `Human:` / `Assistant:` transcripts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_format: Option<String>,
    /// Plain layout of an answer; `{response}` stands for it. Without one the answer is taken as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<String>,
    /// System message for prompts that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Variables of the chat template for all texts, such as `enable_thinking`; those of `[[data]]` and of a row come before
    /// them.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub template_kwargs: Map<String, Value>,
    /// The form in which a chat template gets the arguments of tool calls.
    pub tool_arguments: ToolArguments,
    /// Whether an empty think block that a template writes before an answer is trained.
    pub empty_think: EmptyThink,
    /// Which assistant turns of a conversation with one answer are trained.
    pub supervise: Supervise,
    /// End plain answers with the tokenizer's EOS (chat templates write their own terminator).
    pub append_eos: bool,
    /// Tokens that prompt plus longest answer may have; no limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Tokens that a prompt may have; its beginning is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_prompt_length: Option<usize>,
    /// What happens to a row longer than `max-length`.
    pub overflow: Overflow,
}

/// Layout of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateKind {
    /// Chat if the tokenizer has a template and no format is given, else plain.
    #[default]
    Auto,
    /// The tokenizer's chat template.
    Chat,
    /// Text as it is, or as the formats say.
    Plain,
}

/// Arguments of tool calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ToolArguments {
    /// As the row has them, as transformers renders them.
    #[default]
    AsWritten,
    /// An object: a text that holds one is read. What most templates expect, which quote a text once more.
    Object,
    /// A text: an object is written as JSON.
    Text,
}

/// What becomes of an empty think block (`<think>`, blanks, `</think>`) before an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyThink {
    /// It is part of the answer: the model learns to write it.
    #[default]
    Keep,
    /// It is part of the prompt and not trained, where all answers of the row begin with it.
    Ignore,
}

/// Which assistant turns are trained; in pairs it is always what follows the shared prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Supervise {
    /// The last one.
    #[default]
    LastTurn,
    /// Every one, each with the turns before it as its prompt.
    EveryTurn,
}

/// What happens to rows longer than `max-length`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// The beginning of the prompt goes first (down to a quarter of the length), then the end of the answers.
    #[default]
    AnswerFirst,
    /// The first `max-length` tokens of prompt plus answer stay, as TRL's `keep_start`.
    KeepStart,
    /// The row is dropped.
    Drop,
}

impl Default for TextSpec {
    fn default() -> Self {
        Self {
            template: TemplateKind::Auto,
            prompt_format: None,
            response_format: None,
            system: None,
            template_kwargs: Map::new(),
            tool_arguments: ToolArguments::AsWritten,
            empty_think: EmptyThink::Keep,
            supervise: Supervise::LastTurn,
            append_eos: true,
            max_length: None,
            max_prompt_length: None,
            overflow: Overflow::AnswerFirst,
        }
    }
}

impl TextSpec {
    /// Checks settings that types cannot.
    ///
    /// # Errors
    /// When a format lacks its placeholder, or a format is given for the chat layout, or a length is too small.
    pub fn check(&self) -> Result<(), DataError> {
        let formats = [
            ("prompt-format", &self.prompt_format, "{prompt}", "text with {prompt} in it"),
            ("response-format", &self.response_format, "{response}", "text with {response} in it"),
        ];
        for (key, format, placeholder, expected) in formats {
            let Some(format) = format else { continue };
            if self.template == TemplateKind::Chat {
                let expected = "no format, as template = \"chat\" renders the tokenizer's own";
                return Err(DataError::BadSetting { key, value: format.clone(), expected });
            }
            if !format.contains(placeholder) {
                return Err(DataError::BadSetting { key, value: format.clone(), expected });
            }
        }
        if let Some(length @ 0..2) = self.max_length {
            let expected = "at least 2, a prompt token and an answer token";
            return Err(DataError::BadSetting { key: "max-length", value: length.to_string(), expected });
        }
        if self.max_prompt_length == Some(0) {
            let expected = "at least 1";
            return Err(DataError::BadSetting { key: "max-prompt-length", value: "0".into(), expected });
        }
        Ok(())
    }

    pub(crate) fn has_format(&self) -> bool {
        self.prompt_format.is_some() || self.response_format.is_some()
    }
}
