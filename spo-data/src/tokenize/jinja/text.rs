//! Python's notions about characters.

use super::error::{Error, Result};

/// What `str.isspace` takes for white space.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// Lines as `str.splitlines` cuts them.
pub(crate) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let ends = matches!(character, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
        if !ends {
            continue;
        }
        let mut end = at + character.len_utf8();
        if character == '\r' && characters.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        lines.push(&text[start..if keep_ends { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// The first letter in title case, the others small.
pub(crate) fn capitalized(text: &str) -> Result<String> {
    let mut rest = text.chars();
    let Some(first) = rest.next() else {
        return Ok(String::new());
    };
    // Small letters depend on what stands before them (the Greek sigma), so the whole text is lowered.
    let low = text.to_lowercase();
    let skip: usize = first.to_lowercase().map(char::len_utf8).sum();
    Ok(title(first)? + &low[skip..])
}

/// A letter in title case, which is upper case for almost all.
pub(crate) fn title(character: char) -> Result<String> {
    let upper: String = character.to_uppercase().collect();
    let special = upper.chars().count() > 1
        || matches!(character as u32, 0x1c4..=0x1cc | 0x1f1..=0x1f3 | 0x10d0..=0x10ff | 0x1c90..=0x1cbf | 0x1f80..=0x1fff);
    if special {
        return Err(Error::unsupported(format!("the title case of {character:?}")));
    }
    Ok(upper)
}

/// Text for HTML, as `markupsafe` escapes it.
pub(crate) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            other => out.push(other),
        }
    }
    out
}
