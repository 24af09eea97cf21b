//! Answers that are worse by degrees: with more and more of their key phrases removed.
//!
//! Self-supervised preference optimisation (arXiv 2409.17791) removes different amounts of an answer's key content. How much
//! is removed at which degree is a choice of ours, as are the two controls.

mod rake;

pub use rake::{KeyPhrase, key_phrases};

use crate::order::mix;
use rake::words;
use std::ops::Range;

/// What an answer loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Its key phrases.
    KeyPhrases,
    /// As many words of it as its key phrases have, chosen at random.
    RandomWords,
    /// Its key phrases, in whose place stand as many words of it, chosen at random: its length tells nothing.
    Replaced,
}

/// The answer at the degrees 1 to `count − 1`; degree 0 is the answer itself. `None` where it has fewer than `count − 1`
/// distinct phrases, so that two degrees would be the same text.
///
/// Of its phrases the better third are key phrases, and at least `count − 1`. Degree k loses the first ⌈k·n / (count − 1)⌉ of
/// these n, wherever they occur.
///
/// # Panics
/// `count` is less than 2.
pub fn degraded(text: &str, count: usize, removal: Removal, seed: u64) -> Option<Vec<String>> {
    assert!(count > 1, "one degree is none");
    let (steps, mut phrases) = (count - 1, key_phrases(text));
    if phrases.len() < steps {
        return None;
    }
    phrases.truncate(phrases.len().div_ceil(3).max(steps));
    let (all, mut random) = (words(text), Random(seed));
    let mut shuffled = all.clone();
    for last in (1..shuffled.len()).rev() {
        shuffled.swap(last, random.below(last + 1));
    }
    let of_degree = |degree: usize| {
        let lost = &phrases[..(degree * phrases.len()).div_ceil(steps)];
        let places: Vec<Range<usize>> = lost.iter().flat_map(|phrase| phrase.places.clone()).collect();
        let within =
            |word: &Range<usize>| places.iter().any(|place| place.start <= word.start && word.end <= place.end);
        let own: Vec<Range<usize>> = all.iter().filter(|word| within(word)).cloned().collect();
        match removal {
            Removal::KeyPhrases => without(text, places),
            Removal::RandomWords => without(text, shuffled[..own.len()].to_vec()),
            Removal::Replaced => replaced(text, &own, &all, Random(seed)),
        }
    };
    Some((1..count).map(of_degree).collect())
}

/// The text without these bytes, and without the blank that each of them leaves behind.
fn without(text: &str, mut places: Vec<Range<usize>>) -> String {
    places.sort_by_key(|place| place.start);
    let (mut left, mut end) = (String::new(), 0);
    for place in places {
        left.push_str(&text[end..place.start]);
        end = place.end;
        let rest = &text[end..];
        if left.is_empty() || left.ends_with(' ') {
            if rest.starts_with(' ') {
                end += 1;
            } else if left.ends_with(' ') {
                left.pop();
            }
        }
    }
    left.push_str(&text[end..]);
    left
}

/// The text with a random one of its words in the place of each of these.
fn replaced(text: &str, places: &[Range<usize>], words: &[Range<usize>], mut random: Random) -> String {
    let (mut left, mut end) = (String::new(), 0);
    for place in places {
        left.push_str(&text[end..place.start]);
        left.push_str(&text[words[random.below(words.len())].clone()]);
        end = place.end;
    }
    left.push_str(&text[end..]);
    left
}

/// SplitMix64 (Steele, Lea & Flood 2014): the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.0)) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Phrases by score: old red barn (8), red fox (4.5), farmer sleeps (4), hen (1).
    const TEXT: &str = "The red fox went to the old red barn, where a farmer sleeps; the hen, the red fox.";

    #[test]
    fn each_degree_loses_more_of_the_best_phrases() {
        let ranked: Vec<String> = key_phrases(TEXT).into_iter().map(|phrase| phrase.words).collect();
        assert_eq!(ranked[0], "old red barn");
        let found = degraded(TEXT, 3, Removal::KeyPhrases, 0).unwrap();
        assert_eq!(found[0], "The red fox went to the, where a farmer sleeps; the hen, the red fox.");
        assert_eq!(found.len(), 2);
        let second = &ranked[1];
        assert!(!found[1].contains(second.as_str()) && !found[1].contains("barn"), "{second}: {found:?}");
        assert!(found[1].len() < found[0].len());
    }

    #[test]
    fn the_controls_lose_as_many_words_or_none() {
        let count = |text: &str| words(text).len();
        let of = |removal| degraded(TEXT, 4, removal, 7).unwrap();
        let lengths = |texts: &[String]| texts.iter().map(|text| count(text)).collect::<Vec<_>>();
        let (key, random, replaced) = (of(Removal::KeyPhrases), of(Removal::RandomWords), of(Removal::Replaced));
        assert_eq!(lengths(&random), lengths(&key));
        assert_eq!(lengths(&replaced), [count(TEXT); 3]);
        assert!(replaced.iter().all(|text| text != TEXT) && random != key);
        assert_eq!(of(Removal::RandomWords), random);
        assert_ne!(degraded(TEXT, 4, Removal::RandomWords, 8).unwrap(), random);
    }

    #[test]
    fn too_few_phrases_make_no_degrees() {
        for text in ["", "It is.", "A cat and a dog."] {
            assert_eq!(degraded(text, 4, Removal::KeyPhrases, 0), None, "{text}");
        }
        let two = degraded("A cat and a dog.", 3, Removal::KeyPhrases, 0).unwrap();
        assert_eq!(two, ["A and a dog.", "A and a."]);
        assert_eq!(degraded("cat", 2, Removal::KeyPhrases, 0).unwrap(), [""]);
    }
}
