//! What programs and servers say, read strictly.

use serde_json::Value;

use crate::Scores;

/// `score`, a number or null, and `scores`, numbers by dimension or null; neither of them is no answer.
pub(super) fn answer(value: &Value) -> Result<Option<Scores>, String> {
    let (score, scores) = (value.get("score"), value.get("scores"));
    if score.is_none() && scores.is_none() {
        return Err("neither score nor scores".into());
    }
    let number = |name: &str, value: &Value| value.as_f64().ok_or(format!("{name} is {value}, not a number or null"));
    let mut found = Scores::default();
    if let Some(value) = score.filter(|value| !value.is_null()) {
        found.score = Some(number("score", value)?);
    }
    if let Some(value) = scores.filter(|value| !value.is_null()) {
        let table = value.as_object().ok_or(format!("scores is {value}, not an object by dimension"))?;
        for (name, value) in table.iter().filter(|(_, value)| !value.is_null()) {
            found.by_dimension.insert(name.clone(), number(name, value)?);
        }
    }
    Ok((found != Scores::default()).then_some(found))
}

/// The beginning of a text, for messages.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
