//! Prompts without answers: from files of prompts, or those of rows that have answers.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::encode::{encode_prompt, encode_record};
use crate::expand::expand;
use crate::record::{Message, PromptText, Record};
use crate::{DataError, TextSpec, Tokenizer};

/// A row of a JSON Lines file; other keys are not looked at.
#[derive(Deserialize)]
struct Row {
    id: Option<serde_json::Value>,
    prompt: Option<Text>,
    messages: Option<Vec<Message>>,
    prompt_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Messages(Vec<Message>),
}

/// A prompt and what it is called: its own `id`, or file and line.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedPrompt {
    /// The name.
    pub id: String,
    /// The prompt.
    pub prompt: PromptText,
}

/// A prompt as text and as tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// What it is called.
    pub id: String,
    /// As its author wrote it, with its system message where it has one; of a prompt that is token ids, what they decode
    /// to.
    pub text: PromptText,
    /// As tokens, laid out for an answer.
    pub ids: Vec<u32>,
}

/// The prompts of a file: of `.jsonl` one object per line with `prompt` (text or messages), `messages` or `prompt_ids`;
/// of any other one prompt per line as it stands, where `\n` is a line break. Empty lines are passed over.
///
/// # Errors
/// The file cannot be read, or a line of it is none of these.
pub fn read_prompts(path: &Path) -> Result<Vec<NamedPrompt>, DataError> {
    let json = path.extension().is_some_and(|extension| extension == "jsonl");
    let unread = |source| DataError::Read { path: path.into(), source };
    let mut prompts = vec![];
    for (index, line) in BufReader::new(File::open(path).map_err(unread)?).lines().enumerate() {
        let line = line.map_err(unread)?;
        if line.trim().is_empty() {
            continue;
        }
        let at = format!("{}:{}", path.display(), index + 1);
        let malformed =
            |message| DataError::MalformedRow { file: path.display().to_string(), line: index + 1, message };
        prompts.push(match json {
            true => row(&line, at).map_err(malformed)?,
            false => NamedPrompt { id: at, prompt: PromptText::Text(line.replace("\\n", "\n")) },
        });
    }
    Ok(prompts)
}

fn row(line: &str, at: String) -> Result<NamedPrompt, String> {
    let wrong = |found: &str| {
        format!("found {found}, expected a JSON object with one of prompt (text or messages), messages and prompt_ids")
    };
    let row: Row = serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
    let prompt = match (row.prompt, row.messages, row.prompt_ids) {
        (Some(Text::Text(text)), None, None) => PromptText::Text(text),
        (Some(Text::Messages(messages)), None, None) | (None, Some(messages), None) => PromptText::Messages(messages),
        (None, None, Some(ids)) => PromptText::Ids(ids),
        (None, None, None) => return Err(wrong("none of them")),
        _ => return Err(wrong("more than one of them")),
    };
    let id = match row.id {
        None => at,
        Some(serde_json::Value::String(id)) => id,
        Some(id) => id.to_string(),
    };
    Ok(NamedPrompt { id, prompt })
}

impl NamedPrompt {
    /// The prompt with its tokens.
    ///
    /// # Errors
    /// As [`encode_prompt`].
    pub fn laid_out(self, text: &TextSpec, tokenizer: &Tokenizer) -> Result<Prompt, DataError> {
        let ids = encode_prompt(tokenizer, text, &self.prompt)?;
        Ok(Prompt { id: self.id, text: readable(self.prompt, tokenizer)?, ids })
    }
}

/// The distinct prompts of records, in their order, with the tokens that the records' examples have.
///
/// # Errors
/// As [`encode_record`].
pub fn prompts_of(records: Vec<Record>, text: &TextSpec, tokenizer: &Tokenizer) -> Result<Vec<Prompt>, DataError> {
    let (mut prompts, mut seen) = (vec![], HashSet::new());
    for record in records.into_iter().flat_map(|record| expand(record, 1, text.supervise)) {
        let (id, prompt) = (record.id.clone(), with_system(record.system.clone(), record.prompt.clone()));
        let row = |source| DataError::Row { id: id.clone(), source: Box::new(source) };
        let ids = match record.answers.is_empty() {
            true => encode_prompt(tokenizer, text, &prompt).map_err(row)?,
            // With an answer behind it the last token of a prompt may be another one.
            false => match encode_record(tokenizer, text, record).map_err(row)?.0 {
                Some(example) => example.prompt.to_vec(),
                None => continue,
            },
        };
        if seen.insert(ids.clone()) {
            let text = readable(prompt, tokenizer).map_err(row)?;
            prompts.push(Prompt { id, text, ids });
        }
    }
    Ok(prompts)
}

/// A prompt with its system message as the first turn.
fn with_system(system: Option<String>, prompt: PromptText) -> PromptText {
    match (system, prompt) {
        (Some(system), PromptText::Text(text)) => {
            PromptText::Messages(vec![Message::new("system", &system), Message::new("user", &text)])
        }
        (Some(system), PromptText::Messages(turns)) if turns.first().is_none_or(|turn| turn.role != "system") => {
            PromptText::Messages([vec![Message::new("system", &system)], turns].concat())
        }
        (_, prompt) => prompt,
    }
}

/// A prompt of token ids as the text that they stand for.
fn readable(prompt: PromptText, tokenizer: &Tokenizer) -> Result<PromptText, DataError> {
    match prompt {
        PromptText::Ids(ids) if tokenizer.vocabulary_size() > 0 => Ok(PromptText::Text(tokenizer.decode(&ids)?)),
        prompt => Ok(prompt),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::AnswerText;

    #[test]
    fn prompts_are_distinct_and_keep_their_text() {
        let json = br#"{"version": "1.0", "model": {"type": "WordLevel", "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "</s>": 1, "Why": 2, "Because": 3}},
            "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}"#;
        let tokenizer = Tokenizer::from_bytes(json, br#"{"eos_token": "</s>"}"#, None).unwrap();
        let record = |prompt: &str, answer: &str, system: Option<&str>| Record {
            id: prompt.into(),
            prompt: PromptText::Text(prompt.into()),
            answers: vec![AnswerText::Text(answer.into())],
            system: system.map(Into::into),
            ..Record::default()
        };
        let records = vec![
            record("Why", " Because", None),
            record("Why", " Why", None),
            record("Because", "", None),
            record("Why", " Because", Some("Because")),
        ];
        let found = prompts_of(records, &TextSpec::default(), &tokenizer).unwrap();
        assert_eq!(found[0], Prompt { id: "Why".into(), text: PromptText::Text("Why".into()), ids: vec![2] });
        let turns = vec![Message::new("system", "Because"), Message::new("user", "Why")];
        assert_eq!(found[1].text, PromptText::Messages(turns));
        // The row with an empty answer is dropped, as loading drops it.
        assert_eq!(found.len(), 2);
        let ids = NamedPrompt { id: "a".into(), prompt: PromptText::Ids(vec![2, 3]) };
        let laid_out = ids.laid_out(&TextSpec::default(), &tokenizer).unwrap();
        assert_eq!((laid_out.text, laid_out.ids), (PromptText::Text("Why Because".into()), vec![2, 3]));
    }
}
