//! From tokens to text while they come, and stopping at given strings.

use spo_data::{DataError, Tokenizer};

/// The text of one growing sequence.
///
/// A piece is given out when it is whole: not inside a character of several tokens, and not while
/// it could be the beginning of a stop string.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    stops: &'a [String],
    ids: Vec<u32>,
    text: String,
    /// Bytes of the text that were given out.
    given: usize,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A stream that ends before the first of the strings `stops`.
    pub fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Self {
        Self { tokenizer, stops, ids: vec![], text: String::new(), given: 0, stopped: false }
    }

    /// Adds a token and returns the text that is new for sure.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<&str, DataError> {
        if self.stopped {
            return Ok("");
        }
        self.ids.push(id);
        // All of it each time: how a token reads may depend on any token before it.
        self.text = self.tokenizer.decode(&self.ids)?;
        let held = if self.cut() { 0 } else { self.undecided() };
        Ok(self.give(self.text.len() - held))
    }

    /// The text that was held back, when no more tokens come.
    pub fn finish(&mut self) -> &str {
        self.give(self.text.len())
    }

    /// Whether a stop string came.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// All text so far; a stop string and what follows it are not part of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Cuts the text before the first stop string.
    fn cut(&mut self) -> bool {
        let stops = self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(start) = stops.filter_map(|stop| self.text.find(stop.as_str())).min() {
            self.text.truncate(start);
            self.stopped = true;
        }
        self.stopped
    }

    /// Bytes at the end that later tokens may change: a piece of a character, or the beginning of a
    /// stop string.
    fn undecided(&self) -> usize {
        let broken = self.text.len() - self.text.trim_end_matches('\u{fffd}').len();
        let starts = self.text.char_indices().map(|(at, _)| &self.text[at..]);
        let begins = |end: &&str| self.stops.iter().any(|stop| stop.starts_with(*end));
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let beginning = starts.filter(|end| end.len() < longest).find(begins).map_or(0, str::len);
        broken.max(beginning)
    }

    fn give(&mut self, end: usize) -> &str {
        let start = self.given.min(end);
        self.given = self.given.max(end);
        self.text.get(start..end).unwrap_or("")
    }
}
