//! Prompts from files.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use spo_data::{Message, PromptText};

use crate::error::CliError;

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
#[derive(Debug)]
pub(crate) struct NamedPrompt {
    pub id: String,
    pub prompt: PromptText,
}

/// The prompts of a file: of `.jsonl` one object per line with `prompt` (text or messages), `messages` or `prompt_ids`;
/// of any other one prompt per line as it stands, where `\n` is a line break. Empty lines are passed over.
pub(crate) fn read(path: &Path) -> Result<Vec<NamedPrompt>, CliError> {
    let json = path.extension().is_some_and(|extension| extension == "jsonl");
    let file = File::open(path).map_err(|source| CliError::io(path, source))?;
    let mut prompts = vec![];
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|source| CliError::io(path, source))?;
        if line.trim().is_empty() {
            continue;
        }
        let at = format!("{}:{}", path.display(), index + 1);
        prompts.push(match json {
            true => row(&line, at)?,
            false => NamedPrompt { id: at, prompt: PromptText::Text(line.replace("\\n", "\n")) },
        });
    }
    Ok(prompts)
}

fn row(line: &str, at: String) -> Result<NamedPrompt, CliError> {
    let wrong = |found: String| CliError::Unexpected {
        at: at.clone(),
        found,
        expected: "a JSON object with one of prompt (text or messages), messages and prompt_ids".into(),
        usage: false,
    };
    let row: Row = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
    let prompt = match (row.prompt, row.messages, row.prompt_ids) {
        (Some(Text::Text(text)), None, None) => PromptText::Text(text),
        (Some(Text::Messages(messages)), None, None) | (None, Some(messages), None) => PromptText::Messages(messages),
        (None, None, Some(ids)) => PromptText::Ids(ids),
        (None, None, None) => return Err(wrong("none of them".into())),
        _ => return Err(wrong("more than one of them".into())),
    };
    let id = match row.id {
        None => at,
        Some(serde_json::Value::String(id)) => id,
        Some(id) => id.to_string(),
    };
    Ok(NamedPrompt { id, prompt })
}
