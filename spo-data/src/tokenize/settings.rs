//! What stands beside a vocabulary, and what it means: the one place that training, generation, chat, scoring, evaluation
//! and export ask for the tokens that begin and end a text and for the template that lays it out.

use std::collections::BTreeMap;

use serde::Serialize;
use tokenizers::{Encoding, PostProcessor};

use super::{ChatTemplate, RenderOptions};
use crate::DataError;
use crate::record::Message;

/// Name of the template that is taken unasked.
const DEFAULT: &str = "default";
/// Name of the template for conversations with tools, where there is one.
const TOOL_USE: &str = "tool_use";

/// What stands beside a vocabulary, in plain values: Hugging Face spreads it over several JSON files, GGUF keeps it in its
/// keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TokenizerSettings {
    /// Tokens by role (`bos_token`, `eos_token`, `pad_token`, …), spelled as in the vocabulary; what a chat template sees.
    pub special: BTreeMap<String, String>,
    /// Whether BOS begins a text that no template lays out. If neither this nor [`add_eos`](Self::add_eos) is given, the
    /// tokenizer's post-processor decides both; if one is, it decides neither.
    pub add_bos: Option<bool>,
    /// Whether EOS ends such a text.
    pub add_eos: Option<bool>,
    /// Ids that end an answer besides EOS: `eos_token_id` of `generation_config.json` and `config.json`.
    pub ends: Vec<u32>,
    /// Chat templates by name; `default` is the one of a model with a single one.
    pub templates: BTreeMap<String, String>,
}

/// The tokens that begin and end texts, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of a text.
    pub bos: Option<u32>,
    /// End of a text: appended to answers that no template lays out.
    pub eos: Option<u32>,
    /// Fills batches elsewhere.
    pub pad: Option<u32>,
    /// Stands for what the vocabulary lacks.
    pub unknown: Option<u32>,
    /// What a chat template writes after an answer, where that is a token: `<|im_end|>` of ChatML.
    pub turn_end: Option<u32>,
    /// Every token that ends an answer, none twice: EOS, that of the template, then those of the model's configuration.
    pub ends: Vec<u32>,
    /// Tokens before a text that no template lays out.
    pub before: Vec<u32>,
    /// Tokens after it.
    pub after: Vec<u32>,
}

/// Compiled templates by name.
pub(super) type Templates = BTreeMap<String, ChatTemplate>;

impl TokenizerSettings {
    pub(super) fn compile(&self) -> Result<Templates, DataError> {
        let compile =
            |(name, source): (&String, &String)| Ok((name.clone(), ChatTemplate::new(source, self.special.clone())?));
        self.templates.iter().map(compile).collect()
    }

    /// What the settings mean with a vocabulary.
    pub(super) fn resolve(
        &self,
        vocabulary: &tokenizers::Tokenizer,
        templates: &Templates,
    ) -> Result<SpecialTokens, DataError> {
        let id = |role: &str| self.special.get(role).and_then(|token| vocabulary.token_to_id(token));
        for role in ["bos_token", "eos_token"] {
            if let (Some(token), None) = (self.special.get(role), id(role)) {
                return Err(DataError::NoSuchToken { role: role.into(), token: format!("{token:?}") });
            }
        }
        if let Some(id) = self.ends.iter().find(|id| vocabulary.id_to_token(**id).is_none()) {
            return Err(DataError::NoSuchToken { role: "eos_token_id".into(), token: id.to_string() });
        }
        let (bos, eos) = (id("bos_token"), id("eos_token"));
        let turn_ends: BTreeMap<&str, u32> = templates
            .iter()
            .filter_map(|(name, template)| Some((name.as_str(), turn_end(template, vocabulary)?)))
            .collect();
        let mut ends: Vec<u32> = vec![];
        for id in eos.into_iter().chain(turn_ends.values().copied()).chain(self.ends.iter().copied()) {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        let (before, after) = match (self.add_bos, self.add_eos) {
            (None, None) => written_around(vocabulary)?,
            (add_bos, add_eos) => (added("add_bos_token", add_bos, bos)?, added("add_eos_token", add_eos, eos)?),
        };
        let (pad, unknown, turn_end) = (id("pad_token"), id("unk_token"), turn_ends.get(DEFAULT).copied());
        Ok(SpecialTokens { bos, eos, pad, unknown, turn_end, ends, before, after })
    }
}

/// The template for conversations with or without tools: `tool_use` for those with, where there is one; `None` where the
/// model has no template.
pub(super) fn choose(templates: &Templates, tools: bool) -> Result<Option<&ChatTemplate>, DataError> {
    let for_tools = templates.get(TOOL_USE).filter(|_| tools);
    match for_tools.or_else(|| templates.get(DEFAULT)) {
        None if !templates.is_empty() => {
            Err(DataError::NoDefaultTemplate { names: templates.keys().cloned().collect() })
        }
        found => Ok(found),
    }
}

/// The token that a template writes after an answer: the first added one behind its text.
fn turn_end(template: &ChatTemplate, vocabulary: &tokenizers::Tokenizer) -> Option<u32> {
    const ANSWER: &str = "Seven.";
    let turns = ["user", "assistant"].map(|role| Message::new(role, ANSWER));
    let system = Message::new("system", "Count.");
    // A template may insist on a system message, or refuse one.
    let conversations = [turns.to_vec(), [&[system], &turns[..]].concat()];
    let render = |messages: &Vec<Message>| template.render(messages, &RenderOptions::default()).ok();
    let text = conversations.iter().find_map(render)?;
    let (_, behind) = text.rsplit_once(ANSWER)?;
    let ids = vocabulary.encode_fast(behind, false).ok()?;
    let added = vocabulary.get_added_tokens_decoder();
    ids.get_ids().iter().copied().find(|id| added.contains_key(id))
}

/// The token that `key` asks for, as a list.
fn added(key: &'static str, wanted: Option<bool>, id: Option<u32>) -> Result<Vec<u32>, DataError> {
    match (wanted, id) {
        (Some(true), None) => {
            let expected = "false, as the tokenizer has no such token";
            Err(DataError::BadSetting { key, value: "true".into(), expected })
        }
        (Some(true), Some(id)) => Ok(vec![id]),
        _ => Ok(vec![]),
    }
}

/// The tokens that a vocabulary's own post-processor writes before and after a text.
fn written_around(vocabulary: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), DataError> {
    const TEXT: u32 = u32::MAX;
    let Some(post_processor) = vocabulary.get_post_processor() else { return Ok(Default::default()) };
    let text = Encoding::from_tokens(vec![tokenizers::Token::new(TEXT, "a".into(), (0, 1))], 0);
    let whole = post_processor.process(text, None, true).map_err(super::encode_error)?;
    let mut parts = whole.get_ids().split(|id| *id == TEXT).map(<[u32]>::to_vec);
    Ok((parts.next().unwrap_or_default(), parts.next().unwrap_or_default()))
}

/// A vocabulary and its settings as bytes, where no files hold them.
pub(super) fn written(
    vocabulary: &tokenizers::Tokenizer,
    settings: &TokenizerSettings,
) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let settings = serde_json::to_vec(settings).expect("strings, flags and numbers");
    let vocabulary = vocabulary.to_string(false).map_err(super::encode_error)?.into_bytes();
    Ok([("settings".into(), settings), ("vocabulary".into(), vocabulary)].into())
}
