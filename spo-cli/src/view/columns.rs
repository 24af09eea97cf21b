//! Texts side by side.

/// Narrowest column that is pleasant to read.
const NARROWEST: usize = 30;
/// Between columns.
const GAP: &str = " │ ";

/// Named texts, in columns on a terminal that is wide enough, else one below the other.
pub(crate) fn columns(texts: &[(String, String)], terminal: bool) -> String {
    let width = if terminal { terminal_width() } else { 0 };
    let column = (width + GAP.chars().count()) / texts.len().max(1);
    match column.checked_sub(GAP.chars().count()) {
        Some(column) if column >= NARROWEST => side_by_side(texts, column),
        _ => {
            let parts = texts.iter().map(|(name, text)| format!("[{name}]\n{text}\n"));
            parts.collect::<Vec<_>>().join("\n")
        }
    }
}

/// 0 where it is not known.
fn terminal_width() -> usize {
    #[cfg(unix)]
    return ratatui::termion::terminal_size().map_or(0, |(width, _)| usize::from(width));
    #[cfg(not(unix))]
    return 0;
}

fn side_by_side(texts: &[(String, String)], width: usize) -> String {
    let columns: Vec<Vec<String>> = texts
        .iter()
        .map(|(name, text)| {
            let mut lines = wrap(&format!("[{name}]"), width);
            lines.extend(text.lines().flat_map(|line| wrap(line, width)));
            lines
        })
        .collect();
    let longest = columns.iter().map(Vec::len).max().unwrap_or(0);
    let row = |row: usize| {
        let cells = columns.iter().map(|lines| {
            let line = lines.get(row).map_or("", String::as_str);
            format!("{line}{}", " ".repeat(width - line.chars().count()))
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    (0..longest).map(row).collect::<Vec<_>>().join("\n")
}

/// A line in pieces of at most `width` characters, broken between words where there are any.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        while !rest.is_empty() {
            let last = lines.last_mut().expect("one line at least");
            let room = width - last.chars().count();
            if rest.iter().collect::<String>().trim_end().chars().count() <= room {
                last.extend(rest.drain(..rest.len().min(room)));
                break;
            }
            if last.is_empty() {
                last.extend(rest.drain(..width));
            }
            lines.push(String::new());
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_in_columns_of_whole_words() {
        let texts = [("a".to_owned(), "one two three\nfour".to_owned()), ("b".to_owned(), "abcdefghijkl".to_owned())];
        let expected = "[a]      │ [b]\none two  │ abcdefgh\nthree    │ ijkl\nfour     │";
        assert_eq!(side_by_side(&texts, 8), expected);
        assert_eq!(columns(&texts, false), "[a]\none two three\nfour\n\n[b]\nabcdefghijkl\n");
    }
}
