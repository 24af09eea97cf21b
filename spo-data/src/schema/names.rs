//! Names that columns have in the wild: other names of a layout's keys, and names of text that a model should see.

/// Keys with the other names they are known by; the first that a row has stands in for the key.
pub(super) const ALIASES: &[(&str, &[&str])] = &[
    ("prompt", &["question", "query", "instruction", "input", "conversations", "conversation", "messages"]),
    ("completion", &["response", "output", "answer"]),
    ("completion_ids", &["response_ids"]),
    ("messages", &["conversations", "conversation"]),
    ("answers", &["responses", "completions", "candidates"]),
    ("responses", &["completions", "candidates", "answers"]),
    ("system", &["system_prompt", "system_message"]),
    ("label", &["kto_tag"]),
];

/// What a column that nobody read seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// Text that belongs before the answers; the key that it may be meant for.
    Text(&'static str),
    /// A judgement of the answers.
    Label,
}

/// Columns that a layout may leave out only if it is named, by the key that they are probably meant for.
const TEXTS: &[(&str, &[&str])] = &[
    (
        "prompt",
        &[
            "prompt",
            "prompts",
            "userprompt",
            "inputprompt",
            "prompttext",
            "question",
            "questions",
            "userquestion",
            "instruction",
            "instructions",
            "input",
            "inputs",
            "inputtext",
            "userinput",
            "query",
            "queries",
            "userquery",
            "request",
            "user",
            "usermessage",
            "human",
            "problem",
            "task",
            "context",
            "contexts",
            "passage",
            "document",
            "documents",
            "article",
            "history",
            "dialog",
            "dialogue",
            "image",
            "images",
            "audio",
            "audios",
            "video",
            "videos",
        ],
    ),
    ("messages", &["messages", "message", "conversation", "conversations", "chat", "turns"]),
    ("system", &["system", "systemprompt", "systemmessage", "systeminstruction", "sysprompt", "persona"]),
    ("chosen", &["chosen", "chosenresponse", "preferred"]),
    ("rejected", &["rejected", "rejectedresponse", "dispreferred"]),
];
const LABELS: &[&str] = &["label", "labels", "winner", "preference", "kto_tag", "ktotag", "desirable"];

/// What a column's name says it is.
pub(crate) fn likeness(column: &str) -> Option<Likeness> {
    let bare: String = column.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let text = TEXTS.iter().find(|(_, names)| names.contains(&bare.as_str()));
    text.map(|(key, _)| Likeness::Text(key)).or_else(|| LABELS.contains(&bare.as_str()).then_some(Likeness::Label))
}

/// The other names of a key.
pub(super) fn aliases(key: &str) -> &'static [&'static str] {
    ALIASES.iter().find(|(name, _)| *name == key).map_or(&[], |(_, others)| others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_known_by_their_names() {
        assert_eq!(likeness("System Prompt"), Some(Likeness::Text("system")));
        assert_eq!(likeness("userQuestion"), Some(Likeness::Text("prompt")));
        assert_eq!(likeness("label"), Some(Likeness::Label));
        for name in ["prompt_id", "source", "score_chosen", "model", "question_type"] {
            assert_eq!(likeness(name), None, "{name}");
        }
    }
}
