//! From a record to an example: layout, tokens, boundary, terminator, budget.

use std::collections::BTreeSet;

use serde_json::Map;

use crate::budget::fit;
use crate::layout::{Laid, Layout};
use crate::record::{AnswerText, Message, PromptText, Record};
use crate::report::Reason;
use crate::unrendered::{is_text, quotes_arguments, unrendered};
use crate::{DataError, Example, TextSpec, Tokenizer};

/// Prompt tokens that may merge with the answer before a row is refused.
const MOST_MOVED: usize = 8;
/// A terminator counts if only this many tokens (a template's line break) follow it.
const AFTER_TERMINATOR: usize = 2;

/// Token ids of a prompt alone, ready for generation.
///
/// # Errors
/// When the template raises an error, the spec contradicts itself or the tokenizer fails.
pub fn encode_prompt(tokenizer: &Tokenizer, spec: &TextSpec, prompt: &PromptText) -> Result<Vec<u32>, DataError> {
    spec.check()?;
    if let PromptText::Ids(ids) = prompt {
        return Ok(ids.clone());
    }
    let layout = Layout::resolve(spec, tokenizer, false)?;
    let text = layout.prompt(spec, None, prompt, None, &Map::new())?.unwrap_or_default();
    tokenizer.encode_open(&text, layout.add_special())
}

/// Tokenises one record; `None` when it must be dropped, and why or what was cut.
///
/// # Errors
/// As [`encode_prompt`].
pub fn encode_record(
    tokenizer: &Tokenizer,
    spec: &TextSpec,
    record: Record,
) -> Result<(Option<Example>, Vec<Reason>), DataError> {
    encode(tokenizer, spec, record, &mut BTreeSet::new())
}

/// As [`encode_record`]; names of what the record holds and its text does not go to `left_out`.
pub(crate) fn encode(
    tokenizer: &Tokenizer,
    spec: &TextSpec,
    mut record: Record,
    left_out: &mut BTreeSet<String>,
) -> Result<(Option<Example>, Vec<Reason>), DataError> {
    let mut reasons = trim_conversations(&mut record);
    if reasons.contains(&Reason::NoAssistantTurn) {
        return Ok((None, vec![Reason::NoAssistantTurn]));
    }
    if record.answers.is_empty() || record.answers.iter().any(AnswerText::is_empty) {
        return Ok((None, vec![Reason::EmptyAnswer]));
    }
    if matches!(&record.prompt, PromptText::Messages(messages) if messages.is_empty()) {
        return Ok((None, vec![Reason::EmptyPrompt]));
    }
    let layout = Layout::resolve(spec, tokenizer, record.tools.is_some())?;
    let mut lost = leaves_out(&layout, &record);
    let laid = layout.record(spec, &record)?;
    if let Some(laid) = &laid {
        *left_out = unrendered(&record, record.system.as_deref(), &laid.full);
        lost |= left_out.iter().any(|name| is_text(name));
        reasons.extend(laid.think_of_some.then_some(Reason::EmptyThinkScored));
        reasons.extend(quotes_arguments(&record, &laid.full).then_some(Reason::ArgumentsQuoted));
    }
    reasons.extend(lost.then_some(Reason::NotLaidOut));
    let (mut prompt, mut answers) = match laid {
        Some(laid) => {
            let Some(split) = encode_jointly(tokenizer, &laid, layout.add_special())? else {
                return Ok((None, vec![Reason::BoundaryRefused]));
            };
            reasons.extend(split.moved.then_some(Reason::BoundaryMoved));
            (split.prompt, split.answers)
        }
        None => encode_apart(tokenizer, spec, &record)?,
    };
    let text_answers = record.answers.iter().map(|answer| !matches!(answer, AnswerText::Ids(_)));
    for (answer, is_text) in answers.iter_mut().zip(text_answers) {
        if is_text && spec.append_eos && layout.add_special() && !is_terminated(tokenizer, answer) {
            answer.push(tokenizer.eos().ok_or(DataError::BadSetting {
                key: "append-eos",
                value: "true".into(),
                expected: "a tokenizer_config.json with eos_token, or append-eos = false",
            })?);
        }
    }
    if answers.iter().any(Vec::is_empty) {
        return Ok((None, vec![Reason::EmptyAnswer]));
    }
    if prompt.is_empty() {
        return Ok((None, vec![Reason::EmptyPrompt]));
    }
    let is_text = tokenizer.vocabulary_size() > 0;
    if is_text && !answers.iter().all(|answer| is_terminated(tokenizer, answer)) {
        reasons.push(Reason::NoTerminator);
    }
    if (1..answers.len()).any(|index| answers[..index].contains(&answers[index])) {
        reasons.push(Reason::IdenticalAnswers);
    }
    reasons.extend(fit(spec, tokenizer.bos(), &mut prompt, &mut answers));
    if let Some(dropped) = reasons.iter().find(|reason| reason.dropped()) {
        return Ok((None, vec![*dropped]));
    }
    let Record { id, labels, scores, safe, tags, source, .. } = record;
    let (labels, tags) = (labels.into(), tags.into());
    let answers = answers.into_iter().map(Into::into).collect();
    Ok((Some(Example { id, prompt: prompt.into(), answers, labels, scores, safe, tags, source }), reasons))
}

/// Takes off the turns after the last assistant turn of answers, and tells of those and of other turns that are scored.
fn trim_conversations(record: &mut Record) -> Vec<Reason> {
    let mut reasons = BTreeSet::new();
    for answer in &mut record.answers {
        let AnswerText::Messages(turns) = answer else { continue };
        let Some(last) = turns.iter().rposition(|turn| turn.role == "assistant") else {
            return vec![Reason::NoAssistantTurn];
        };
        if last + 1 < turns.len() {
            turns.truncate(last + 1);
            reasons.insert(Reason::TurnsAfterAnswer);
        }
        if turns.iter().any(|turn| turn.role != "assistant") {
            reasons.insert(Reason::OtherTurnsScored);
        }
    }
    reasons.into_iter().collect()
}

/// Fields of messages that chat templates know and plain text has no form for.
const ONLY_CHAT: [&str; 4] = ["tool_calls", "function_call", "reasoning_content", "thinking"];

/// Whether a record has tools, variables or fields of messages that plain text has no form for, or that the template
/// does not mention.
fn leaves_out(layout: &Layout, record: &Record) -> bool {
    let written = |name: &str| layout.mentions(name);
    let prompt = match &record.prompt {
        PromptText::Messages(turns) => turns.as_slice(),
        _ => &[],
    };
    let answers = record.answers.iter().filter_map(|answer| match answer {
        AnswerText::Messages(turns) => Some(turns.as_slice()),
        _ => None,
    });
    let turns: Vec<&Message> = answers.chain([prompt]).flatten().collect();
    let has = |key: &str| turns.iter().any(|turn| turn.fields.contains_key(key));
    let systems = prompt.iter().filter(|turn| turn.role == "system").count();
    ONLY_CHAT.iter().any(|key| has(key) && !written(key))
        || (record.tools.is_some() && !written("tools"))
        || record.variables.keys().any(|name| !written(name))
        || (matches!(layout, Layout::Plain) && systems > 1)
}

fn is_terminated(tokenizer: &Tokenizer, answer: &[u32]) -> bool {
    let tail = &answer[answer.len().saturating_sub(1 + AFTER_TERMINATOR)..];
    tail.iter().any(|id| tokenizer.terminators().contains(id))
}

struct Split {
    prompt: Vec<u32>,
    answers: Vec<Vec<u32>>,
    moved: bool,
}

/// Encodes prompt and prompt + answer as whole texts, so that the tokens are those of the running text.
///
/// Where the tokenizer merges across the boundary, the longest common beginning is the prompt.
fn encode_jointly(tokenizer: &Tokenizer, laid: &Laid, add_special: bool) -> Result<Option<Split>, DataError> {
    // What comes before the last special token of a chat prompt is encoded once for all answers.
    let cut = if add_special { 0 } else { tokenizer.last_barrier(&laid.prompt) };
    let (head, tail) = laid.prompt.split_at(cut);
    let beginning = if head.is_empty() { Vec::new() } else { tokenizer.encode(head, false)? };
    let mut prompt = [&beginning[..], &tokenizer.encode_open(tail, add_special)?].concat();
    let whole = |text: &String| match text.strip_prefix(head) {
        Some(rest) => Ok([&beginning[..], &tokenizer.encode_open(rest, add_special)?].concat()),
        None => tokenizer.encode_open(text, add_special),
    };
    let mut answers = laid.full.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    let common = |full: &Vec<u32>| prompt.iter().zip(full).take_while(|(a, b)| a == b).count();
    let shared = answers.iter().map(common).min().unwrap_or(prompt.len());
    let moved = prompt.len() - shared;
    if moved > MOST_MOVED || (shared == 0 && moved > 0) {
        return Ok(None);
    }
    prompt.truncate(shared);
    for answer in &mut answers {
        answer.drain(..shared);
    }
    Ok(Some(Split { prompt, answers, moved: moved > 0 }))
}

/// Rows given as ids, wholly or in part: each side is encoded alone.
fn encode_apart(
    tokenizer: &Tokenizer,
    spec: &TextSpec,
    record: &Record,
) -> Result<(Vec<u32>, Vec<Vec<u32>>), DataError> {
    let prompt = encode_prompt(tokenizer, spec, &record.prompt)?;
    let answer = |answer: &AnswerText| match answer {
        AnswerText::Ids(ids) => Ok(ids.clone()),
        AnswerText::Text(text) => tokenizer.encode(text, false),
        AnswerText::Messages(messages) => {
            let text: String = messages.iter().map(|message| message.text()).collect();
            tokenizer.encode(&text, false)
        }
    };
    Ok((prompt, record.answers.iter().map(answer).collect::<Result<_, _>>()?))
}
