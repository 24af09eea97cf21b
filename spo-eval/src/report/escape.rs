//! Text of users and models made safe for a medium: data sets and models may hold markup and terminal codes.

/// Control codes and direction overrides, which can hide or rearrange what a reader sees.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Visible stand-in of a hidden character.
const HIDDEN: char = '\u{fffd}';

/// For HTML and SVG text and attributes; line breaks and tabs stay.
pub(crate) fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(character),
            hidden if is_hidden(hidden) => safe.push(HIDDEN),
            other => safe.push(other),
        }
    }
    safe
}

/// For a Markdown paragraph or table cell: one line, line breaks become `<br>`.
pub(crate) fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.trim_end_matches('\n').chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => safe.extend(['\\', character]),
            '\n' => safe.push_str("<br>"),
            '\t' => safe.push(' '),
            hidden if is_hidden(hidden) => safe.push(HIDDEN),
            other => safe.push(other),
        }
    }
    safe
}

/// For a terminal line.
pub(crate) fn terminal(text: &str) -> String {
    let show = |character| match character {
        '\n' | '\t' => ' ',
        hidden if is_hidden(hidden) => HIDDEN,
        other => other,
    };
    text.chars().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_codes_are_disarmed() {
        let text = "<script>a && b</script>\n| `x` \u{1b}[31m \u{202e}\"'";
        assert_eq!(html(text), "&lt;script&gt;a &amp;&amp; b&lt;/script&gt;\n| `x` \u{fffd}[31m \u{fffd}&quot;&#39;");
        assert_eq!(
            markdown(text),
            "&lt;script&gt;a &amp;&amp; b&lt;/script&gt;<br>\\| \\`x\\` \u{fffd}\\[31m \u{fffd}\"'"
        );
        assert_eq!(terminal(text), "<script>a && b</script> | `x` \u{fffd}[31m \u{fffd}\"'");
    }
}
