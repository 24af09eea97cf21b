//! Key phrases by RAKE (Rose, Engel, Cramer & Cowley 2010, *Automatic keyword extraction from individual documents*).

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::LazyLock;

/// Words that end a phrase, by lines; `#` begins a comment.
const STOP_WORDS: &str = include_str!("stop_words.txt");

static STOP: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    STOP_WORDS.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect()
});

/// A phrase of content words, with all places where it occurs.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyPhrase {
    /// Its words in lower case, a blank between two.
    pub words: String,
    /// Sum over its words of degree / frequency.
    pub score: f64,
    /// Bytes of the text, in their order.
    pub places: Vec<Range<usize>>,
}

/// The distinct phrases of a text, the highest score first, of equal ones that which comes first in the text.
///
/// Phrases are the runs of words between punctuation, line breaks and stop words. A word's frequency is how often it
/// occurs, its degree the sum of the lengths of the phrases that it occurs in.
pub fn key_phrases(text: &str) -> Vec<KeyPhrase> {
    let mut phrases: Vec<KeyPhrase> = vec![];
    let (mut frequency, mut degree) = (HashMap::<String, f64>::new(), HashMap::<String, f64>::new());
    for run in runs(text) {
        let lower: Vec<String> = run.iter().map(|place| plain(&text[place.clone()])).collect();
        for word in &lower {
            *frequency.entry(word.clone()).or_default() += 1.0;
            *degree.entry(word.clone()).or_default() += lower.len() as f64;
        }
        let (words, place) = (lower.join(" "), run[0].start..run[run.len() - 1].end);
        match phrases.iter_mut().find(|phrase| phrase.words == words) {
            Some(phrase) => phrase.places.push(place),
            None => phrases.push(KeyPhrase { words, score: 0.0, places: vec![place] }),
        }
    }
    for phrase in &mut phrases {
        phrase.score = phrase.words.split(' ').map(|word| degree[word] / frequency[word]).sum();
    }
    phrases.sort_by(|a, b| b.score.total_cmp(&a.score));
    phrases
}

/// The words of a text: letters and digits, with apostrophes and hyphens between them.
pub fn words(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = vec![];
    for (start, letter) in text.char_indices().filter(|(_, letter)| is_inside(*letter)) {
        let end = start + letter.len_utf8();
        match found.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => found.push(start..end),
        }
    }
    found.retain(|place| text[place.clone()].contains(char::is_alphanumeric));
    found
}

/// Runs of content words with nothing but blanks between them.
fn runs(text: &str) -> Vec<Vec<Range<usize>>> {
    let mut runs: Vec<Vec<Range<usize>>> = vec![];
    let mut open = false;
    let mut end = 0;
    for place in words(text) {
        let between = &text[end..place.start];
        open &= between.chars().all(|letter| letter.is_whitespace() && letter != '\n');
        end = place.end;
        if STOP.contains(plain(&text[place.clone()]).as_str()) {
            open = false;
            continue;
        }
        match runs.last_mut().filter(|_| open) {
            Some(run) => run.push(place),
            None => runs.push(vec![place]),
        }
        open = true;
    }
    runs
}

fn is_inside(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '\'' | '’' | '-')
}

/// A word as it is compared: in lower case, with a plain apostrophe.
fn plain(word: &str) -> String {
    word.to_lowercase().replace('’', "'")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ranked(text: &str) -> Vec<(String, f64)> {
        key_phrases(text).into_iter().map(|phrase| (phrase.words, phrase.score)).collect()
    }

    /// By hand: `learning` occurs twice, in phrases of 3 and 1 words, so it counts 4 / 2; `models` too; `deep` 3 / 1.
    #[test]
    fn scores_are_those_of_the_formula() {
        let found = ranked("Deep learning models are the best of learning, and of models.");
        let expected = [("deep learning models", 7.0), ("learning", 2.0), ("models", 2.0), ("best", 1.0)];
        assert_eq!(found, expected.map(|(words, score)| (words.to_string(), score)));
    }

    /// The candidates of the paper's own example, with the scores that it prints to one decimal.
    #[test]
    fn the_paper_s_example_ranks_as_there() {
        let text = "compatibility, systems of linear constraints over the set of natural numbers. criteria, compatibility, system, \
            linear diophantine equations, strict inequations, nonstrict inequations; upper bounds, components, minimal set of \
            solutions and algorithms, minimal generating sets, solutions, systems; criteria, corresponding algorithms, \
            constructing, minimal supporting set, solving, systems, systems";
        let found = ranked(text);
        let printed = [
            ("minimal generating sets", 8.7),
            ("linear diophantine equations", 8.5),
            ("minimal supporting set", 7.7),
            ("minimal set", 4.7),
            ("linear constraints", 4.5),
            ("natural numbers", 4.0),
            ("strict inequations", 4.0),
            ("nonstrict inequations", 4.0),
            ("upper bounds", 4.0),
        ];
        for ((words, score), (expected, printed)) in found.iter().zip(printed) {
            assert_eq!(words, expected);
            assert!((score - printed).abs() < 0.05, "{words}: {score}");
        }
    }

    #[test]
    fn scores_do_not_depend_on_the_order_of_phrases() {
        let sorted = |text: &str| {
            let mut all = ranked(text);
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        assert_eq!(sorted("red fox, old red barn; fox. Barn door"), sorted("barn door, fox, red fox. Old red barn"));
    }

    #[test]
    fn places_are_those_of_the_text_and_stop_words_alone_make_none() {
        let text = "Élan vital — the old man’s well-being;\nold Élan Vital";
        let found = key_phrases(text);
        let places = |words: &str| -> Vec<&str> {
            let phrase = found.iter().find(|phrase| phrase.words == words).unwrap();
            phrase.places.iter().map(|place| &text[place.clone()]).collect()
        };
        assert_eq!(places("élan vital"), ["Élan vital"]);
        assert_eq!(places("old man's well-being"), ["old man’s well-being"]);
        assert_eq!(places("old élan vital"), ["old Élan Vital"]);
        for nothing in ["", "  \n", "It is what it is.", "— ' - …"] {
            assert_eq!(key_phrases(nothing), [], "{nothing:?}");
        }
    }
}
