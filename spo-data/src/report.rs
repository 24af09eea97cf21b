//! What loading did to the rows: nothing is dropped or cut without an entry here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Why a row was dropped, cut or is worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// Dropped: an answer has nothing to score.
    EmptyAnswer,
    /// Dropped: no prompt token precedes the answers, so their first token has no prediction.
    EmptyPrompt,
    /// Dropped: a conversation has no assistant turn to train on.
    NoAssistantTurn,
    /// Dropped: longer than `max-length` and `overflow = "drop"`.
    TooLong,
    /// Dropped: prompt and answer cannot be told apart in the tokenised text.
    BoundaryRefused,
    /// Dropped: it says nothing along any dimension that has meta-prompts.
    NotAsked,
    /// Kept: tokens at the end of the prompt merged with the answer and count as answer.
    BoundaryMoved,
    /// Kept: the prompt lost its first tokens.
    PromptCut,
    /// Kept: an answer lost its last tokens and its terminator.
    AnswerCut,
    /// Kept: an answer does not end with a terminator although it was not cut.
    NoTerminator,
    /// Kept: two answers have the same tokens.
    IdenticalAnswers,
    /// Kept: turns after the last assistant turn are left out.
    TurnsAfterAnswer,
    /// Kept: an answer has turns of the user, of tools or of the system in it, which are scored as the others.
    OtherTurnsScored,
    /// Kept: arguments of a tool call are a text, which the chat template quotes once more.
    ArgumentsQuoted,
    /// Kept: not all answers begin with an empty think block, so those that do have it trained although it is to be ignored.
    EmptyThinkScored,
    /// Kept: plain text has no form for tools, tool calls, reasoning, template variables or a second system message, or the
    /// chat template does not mention them or leaves text out.
    NotLaidOut,
}

impl Reason {
    /// Whether the row is missing from the dataset.
    pub fn dropped(self) -> bool {
        matches!(
            self,
            Self::EmptyAnswer
                | Self::EmptyPrompt
                | Self::NoAssistantTurn
                | Self::TooLong
                | Self::BoundaryRefused
                | Self::NotAsked
        )
    }

    /// One line for a user.
    pub fn describe(self) -> &'static str {
        match self {
            Self::EmptyAnswer => "dropped: an answer is empty",
            Self::EmptyPrompt => "dropped: the prompt has no token",
            Self::NoAssistantTurn => "dropped: no assistant turn",
            Self::TooLong => "dropped: longer than max-length",
            Self::BoundaryRefused => "dropped: tokens of prompt and answer cannot be separated",
            Self::NotAsked => "dropped: no preference along a dimension that has meta-prompts",
            Self::BoundaryMoved => "kept: last prompt tokens merge with the answer and are scored",
            Self::PromptCut => "kept: beginning of the prompt cut",
            Self::AnswerCut => "kept: end of an answer cut",
            Self::NoTerminator => "kept: an answer has no terminator",
            Self::IdenticalAnswers => "kept: answers are identical",
            Self::TurnsAfterAnswer => "kept: turns after the last assistant turn are left out",
            Self::OtherTurnsScored => "kept: user turns inside an answer are scored",
            Self::ArgumentsQuoted => {
                "kept: arguments of a tool call are a text that the template quotes once more (tool-arguments = \"object\")"
            }
            Self::EmptyThinkScored => "kept: an empty think block is trained, as not all answers of the row have one",
            Self::NotLaidOut => {
                "kept: text, tools, tool calls, reasoning or template variables are left out by the layout"
            }
        }
    }
}

/// One row that something happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// [`crate::Example::id`].
    pub id: String,
    /// What happened.
    pub reason: Reason,
}

/// How a file was understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// The file.
    pub file: String,
    /// Name of the format.
    pub format: String,
    /// Name of the schema.
    pub schema: String,
    /// Why this schema: the keys that decided, or that it was named.
    pub why: String,
    /// Rows read.
    pub rows: usize,
    /// Columns that nobody read, with the number of rows in which they have a value.
    #[serde(default)]
    pub unused: BTreeMap<String, usize>,
}

impl FileReport {
    /// The columns that were not used, as a line for a user; `None` where all were.
    pub fn unused_line(&self) -> Option<String> {
        let names: Vec<&str> = self.unused.keys().map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("{}: columns not used: {}", self.file, names.join(", ")))
    }
}

/// An entry with a `token-share`, as it is mixed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenShare {
    /// Its path, or the first of them.
    pub path: String,
    /// The wanted share of the tokens, 0 to 1.
    pub wanted: f64,
    /// The share that its rows have now.
    pub share: f64,
    /// How often each of its rows counts in the mean.
    pub weight: f64,
}

impl TokenShare {
    /// As a line for a user.
    pub fn line(&self) -> String {
        let Self { path, wanted, share, weight } = self;
        format!(
            "{path}: {:.1} % of the tokens, {:.1} % wanted; each row {weight:.3} times",
            100.0 * share,
            100.0 * wanted
        )
    }
}

/// Counts and row lists of one [`crate::load`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The files in order.
    pub files: Vec<FileReport>,
    /// Files of a directory that belong to another split.
    pub left_out: Vec<String>,
    /// Arrow files that `datasets` keeps beside its data, such as `cache-….arrow`: the data do not name them.
    #[serde(default)]
    pub cached: Vec<String>,
    /// Every dropped, cut or doubtful row.
    pub incidents: Vec<Incident>,
    /// Fields of messages, `tools` and `system` of which some text is in no text that was tokenised, with the number of rows.
    #[serde(default)]
    pub unrendered: BTreeMap<String, usize>,
    /// What entries with a `token-share` came to.
    #[serde(default)]
    pub mix: Vec<TokenShare>,
}

impl LoadReport {
    /// A line for each file with columns that nobody read, and one for what the layout of text leaves out.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        let fields = self.unrendered.iter().map(|(name, rows)| format!("{name} ({rows} rows)"));
        let fields = fields.collect::<Vec<_>>().join(", ");
        let line = (!fields.is_empty()).then(|| format!("fields that the layout of text leaves out: {fields}"));
        self.files.iter().filter_map(FileReport::unused_line).chain(line)
    }

    /// Why rows were dropped, with the number of rows, in words: `2 rows dropped: an answer is empty`.
    pub fn dropped(&self) -> Vec<String> {
        let counts = self.counts().into_iter().filter(|(reason, _)| reason.dropped());
        let words = |(reason, count): (Reason, usize)| {
            format!("{count} row{} {}", if count == 1 { "" } else { "s" }, reason.describe())
        };
        counts.map(words).collect()
    }

    /// Rows read from all files.
    pub fn rows(&self) -> usize {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Writes the incidents as JSON lines: `{"id": "a.jsonl:3", "reason": "prompt-cut", "dropped": false}`.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_incidents(&self, writer: &mut impl std::io::Write) -> std::io::Result<()> {
        self.incidents.iter().try_for_each(|Incident { id, reason }| {
            let line = serde_json::json!({ "id": id, "reason": reason, "dropped": reason.dropped() });
            writeln!(writer, "{line}")
        })
    }

    /// Incidents per reason.
    pub fn counts(&self) -> BTreeMap<Reason, usize> {
        let mut counts = BTreeMap::new();
        for incident in &self.incidents {
            *counts.entry(incident.reason).or_insert(0) += 1;
        }
        counts
    }
}
