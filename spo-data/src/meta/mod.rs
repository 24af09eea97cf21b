//! Meta-prompts (MetaAlign, arXiv 2410.14184): a text before the prompt says which preference counts.
//!
//! A row with labels of several dimensions becomes a row for each of them: the same prompt and answers behind a text that asks
//! for the dimension, and the dimension's label as the only one, under the name [`ASKED`]. Where two labels name different answers
//! the two rows are a contrast: one and the same pair, both ways round, and nothing but the text tells which way.

mod rows;

pub use crate::error::MetaFault;
pub(crate) use rows::judges;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::{Message, PromptText};

/// The dimension of rows that a meta-prompt asks for something.
pub const ASKED: &str = "asked";
/// As [`ASKED`], of rows whose meta-prompt is drawn without regard to the label.
pub const ASKED_SHUFFLED: &str = "asked (shuffled)";
/// As [`ASKED`], of rows without a meta-prompt.
pub const ASKED_NOTHING: &str = "asked (nothing)";
/// The tag of a held-out row that names the dimension which it is asked for; a neutral one has none.
pub const TAG_ASKED: &str = "asked";
/// The tag of a held-out row that says by which texts: the name of an [`AskedBy`].
pub const TAG_ASKED_BY: &str = "asked by";

/// Texts before the prompt that say which preference counts, and how rows take them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MetaPrompts {
    /// Required. Texts that ask for a dimension, for two dimensions or more: a row takes one of its dimension's, drawn by a hash of
    /// seed and row. Rows are trained along the dimensions that have some.
    pub texts: BTreeMap<String, Vec<String>>,
    /// Texts that only held-out rows are asked with: other words for a dimension of `texts`, or a dimension that is never trained.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held_out: BTreeMap<String, Vec<String>>,
    /// Where the text stands.
    #[serde(default)]
    pub place: MetaPlace,
    /// Share of the rows that are also trained without a text, with the label of the first dimension of `priority` that they have
    /// one of; 0.1 if absent.
    #[serde(default = "neutral")]
    #[schemars(range(min = 0, max = 1))]
    pub neutral: f64,
    /// What counts where nothing is asked for, most important first; the dimensions of `texts` by name if absent.
    #[serde(default)]
    pub priority: Vec<String>,
    /// Texts with `{first}` and `{second}` in them, for rows whose labels of two dimensions differ: drawn beside those of `texts`, with
    /// the asked dimension's name as the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub combined: Vec<String>,
    /// What rows are made for; set by the program, not by a user.
    #[serde(skip)]
    pub layout: MetaLayout,
}

/// The default of `neutral`.
fn neutral() -> f64 {
    0.1
}

/// Where a meta-prompt stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MetaPlace {
    /// In the system message, below what stands there already.
    #[default]
    System,
    /// At the beginning of the user's first turn.
    User,
}

/// What rows are made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MetaLayout {
    /// Seed of the draws.
    pub seed: u64,
    /// System message of prompts that have none, which a meta-prompt joins.
    pub system: Option<String>,
    /// To be trained on or held out.
    pub rows: MetaRows,
}

/// What is made of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum MetaRows {
    /// A row for each of its dimensions, as [`ASKED`] says.
    Trained {
        /// And once more with a text drawn without regard to the label: [`ASKED_SHUFFLED`].
        shuffled: bool,
        /// And once more without a text: [`ASKED_NOTHING`].
        nothing: bool,
    },
    /// A row for every way to ask, whatever its labels, with all of them.
    HeldOut,
    /// The row as it is behind this one text, whatever the others say.
    Behind(String),
}

impl Default for MetaRows {
    fn default() -> Self {
        Self::Trained { shuffled: false, nothing: false }
    }
}

/// By which texts a held-out row is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskedBy {
    /// Those of `texts`.
    Trained,
    /// Those of `held-out`.
    HeldOut,
    /// Those of `combined`.
    Combined,
    /// None.
    Nothing,
}

impl AskedBy {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Trained, Self::HeldOut, Self::Combined, Self::Nothing];

    /// Name in tags and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trained => "trained texts",
            Self::HeldOut => "held-out texts",
            Self::Combined => "combined texts",
            Self::Nothing => "no text",
        }
    }
}

impl MetaPlace {
    /// A prompt and its system message with a meta-prompt.
    pub fn put(self, text: &str, prompt: PromptText, system: Option<String>) -> (PromptText, Option<String>) {
        let below = |earlier: String| format!("{earlier}\n\n{text}");
        let before = |turn: String| format!("{text}\n\n{turn}");
        let role = if self == Self::System { "system" } else { "user" };
        match (self, prompt) {
            (Self::User, PromptText::Text(prompt)) => (PromptText::Text(before(prompt)), system),
            (_, PromptText::Messages(mut turns)) if turns.iter().any(|turn| turn.role == role) => {
                let turn = turns.iter_mut().find(|turn| turn.role == role).expect("there is one");
                turn.content = if self == Self::System { below(turn.text()) } else { before(turn.text()) }.into();
                (PromptText::Messages(turns), system)
            }
            (Self::User, PromptText::Messages(mut turns)) => {
                let place = turns.iter().take_while(|turn| turn.role == "system").count();
                turns.insert(place, Message::new("user", text));
                (PromptText::Messages(turns), system)
            }
            (_, prompt) => (prompt, Some(system.map_or_else(|| text.to_owned(), below))),
        }
    }
}

impl MetaPrompts {
    /// Every dimension that rows are asked for, in training or held out.
    pub fn dimensions(&self) -> BTreeSet<&str> {
        self.texts.keys().chain(self.held_out.keys()).map(String::as_str).collect()
    }

    /// The text that asks for a dimension by its name: the first of those it is trained with, else of those it is only asked
    /// with.
    pub fn text_for(&self, dimension: &str) -> Option<&str> {
        [&self.texts, &self.held_out].into_iter().find_map(|table| table.get(dimension)?.first()).map(String::as_str)
    }

    /// With what follows from the rest filled in.
    #[must_use]
    pub fn settled(mut self) -> Self {
        if self.priority.is_empty() {
            self.priority = self.texts.keys().cloned().collect();
        }
        self
    }

    /// Those of several sources as one, for rows that are asked in all ways: `place` is that of the first.
    pub fn merged<'a>(all: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        all.into_iter().cloned().reduce(|mut merged, other| {
            for (into, from) in [(&mut merged.texts, other.texts), (&mut merged.held_out, other.held_out)] {
                for (dimension, texts) in from {
                    add(into.entry(dimension).or_default(), texts);
                }
            }
            add(&mut merged.combined, other.combined);
            merged
        })
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), MetaFault> {
        if matches!(self.layout.rows, MetaRows::Behind(_)) {
            return Ok(());
        }
        let fault = |key: &str, message: String, hint| Err(MetaFault { key: key.into(), message, hint });
        if self.texts.len() < 2 {
            let found = self.texts.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            let found = if found.is_empty() { "none" } else { &found };
            return fault(
                "texts",
                format!(
                    "found {found}, expected texts for two dimensions or more: with one there is nothing to tell apart"
                ),
                "add another dimension that the rows are labelled along, or train on the one without meta-prompts",
            );
        }
        let mut seen: BTreeMap<&str, String> = BTreeMap::new();
        for (table, texts) in [("texts", &self.texts), ("held-out", &self.held_out)] {
            for (dimension, texts) in texts {
                let key = format!("{table}.{dimension}");
                if dimension == ASKED {
                    let message = format!("{ASKED:?} is what the made rows' own dimension is called");
                    return fault(&key, message, "give the dimension of the data another name: `columns`");
                }
                if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
                    let message = "found no text or an empty one, expected one text or more that ask for the dimension";
                    return fault(&key, message.into(), "write a sentence such as \"Be honest above all.\"");
                }
                for text in texts {
                    if let Some(other) = seen.insert(text.trim(), key.clone()) {
                        let message = format!("{:?} also stands in {other}", text.trim());
                        return fault(
                            &key,
                            message,
                            "each text once: it asks for one dimension, in training or held out",
                        );
                    }
                }
            }
        }
        if let Some(name) = self.priority.iter().find(|name| !self.texts.contains_key(*name)) {
            let known = self.texts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("found {name:?}, expected dimensions of `texts`: {known}");
            return fault("priority", message, "name dimensions that have texts");
        }
        let whole = |text: &String| text.contains("{first}") && text.contains("{second}");
        if let Some(text) = self.combined.iter().find(|text| !whole(text)) {
            let message = format!("found {text:?}, expected a text with {{first}} and {{second}} in it");
            return fault("combined", message, "such as \"Put {first} before {second}.\"");
        }
        Ok(())
    }
}

fn add(into: &mut Vec<String>, from: Vec<String>) {
    for text in from {
        if !into.contains(&text) {
            into.push(text);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    pub(super) fn prompts() -> MetaPrompts {
        let texts = |all: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
            let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            all.iter().map(|(name, texts)| ((*name).to_owned(), list(texts))).collect()
        };
        MetaPrompts {
            texts: texts(&[("helpful", &["Help.", "Be of use."]), ("honest", &["Say what is true.", "No lies."])]),
            held_out: texts(&[("brief", &["Be brief."]), ("honest", &["The truth."])]),
            neutral: 0.1,
            priority: vec!["honest".into(), "helpful".into()],
            ..MetaPrompts::default()
        }
    }

    #[test]
    fn wrong_settings_are_refused_with_their_key_and_a_hint() {
        let refused = |change: fn(&mut MetaPrompts), key: &str, word: &str| {
            let mut changed = prompts();
            change(&mut changed);
            let fault = changed.check().unwrap_err();
            assert!(fault.key == key && fault.message.contains(word) && !fault.hint.is_empty(), "{fault:?}");
        };
        prompts().check().unwrap();
        refused(|all| all.texts.clear(), "texts", "none");
        refused(|all| drop(all.texts.remove("helpful")), "texts", "\"honest\"");
        refused(|all| all.texts.get_mut("honest").unwrap().clear(), "texts.honest", "no text");
        refused(|all| all.held_out.get_mut("brief").unwrap().push(" ".into()), "held-out.brief", "empty");
        refused(|all| all.held_out.get_mut("brief").unwrap().push("Help. ".into()), "held-out.brief", "texts.helpful");
        refused(|all| drop(all.texts.insert("asked".into(), vec!["x".into()])), "texts.asked", "asked");
        refused(|all| all.priority.push("brief".into()), "priority", "brief");
        refused(|all| all.combined.push("{first} first".into()), "combined", "{second}");
        assert_eq!(MetaPrompts { priority: vec![], ..prompts() }.settled().priority, ["helpful", "honest"]);
        let other = MetaPrompts { texts: [("safe".to_owned(), vec!["Harm nobody.".to_owned()])].into(), ..prompts() };
        let merged = MetaPrompts::merged([&prompts(), &other, &prompts()]).unwrap();
        assert_eq!(merged.dimensions().into_iter().collect::<Vec<_>>(), ["brief", "helpful", "honest", "safe"]);
        assert_eq!(merged.texts["honest"].len(), 2);
        assert_eq!(
            ["honest", "brief"].map(|name| merged.text_for(name)),
            [Some("Say what is true."), Some("Be brief.")]
        );
        assert_eq!(merged.text_for("Be brief."), None);
    }

    #[test]
    fn a_text_joins_what_stands_in_its_place() {
        let turn = |role: &str, text: &str| Message::new(role, text);
        let talk =
            |turns: &[(&str, &str)]| PromptText::Messages(turns.iter().map(|(role, text)| turn(role, text)).collect());
        let put = |place: MetaPlace, prompt: PromptText, system: Option<&str>| {
            place.put("Be kind.", prompt, system.map(str::to_owned))
        };
        let text = |text: &str| PromptText::Text(text.to_owned());
        let (system, user) = (MetaPlace::System, MetaPlace::User);
        assert_eq!(put(system, text("Why?"), None), (text("Why?"), Some("Be kind.".into())));
        assert_eq!(
            put(system, text("Why?"), Some("You are Al.")),
            (text("Why?"), Some("You are Al.\n\nBe kind.".into()))
        );
        assert_eq!(put(user, text("Why?"), Some("Al")), (text("Be kind.\n\nWhy?"), Some("Al".into())));
        let said = talk(&[("system", "Al"), ("user", "Why?"), ("assistant", "So."), ("user", "Why?")]);
        let below = talk(&[("system", "Al\n\nBe kind."), ("user", "Why?"), ("assistant", "So."), ("user", "Why?")]);
        let before = talk(&[("system", "Al"), ("user", "Be kind.\n\nWhy?"), ("assistant", "So."), ("user", "Why?")]);
        assert_eq!(put(system, said.clone(), None), (below, None));
        assert_eq!(put(user, said, None), (before, None));
        let (asked, alone) = (talk(&[("user", "Why?")]), talk(&[("system", "Al"), ("assistant", "So.")]));
        assert_eq!(put(system, asked.clone(), None), (asked, Some("Be kind.".into())));
        let inserted = talk(&[("system", "Al"), ("user", "Be kind."), ("assistant", "So.")]);
        assert_eq!(put(user, alone, None), (inserted, None));
    }
}
