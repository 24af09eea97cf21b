//! Entries mixed by their shares of the tokens.

use crate::dataset::Dataset;
use crate::expand::copies;
use crate::report::TokenShare;
use crate::{DataError, DataSpec};

/// Refuses shares that say nothing.
pub(crate) fn check(specs: &[DataSpec]) -> Result<(), DataError> {
    for spec in specs {
        let Some(share) = spec.token_share else { continue };
        let expected = match (share.is_finite() && share > 0.0, spec.weight) {
            (false, _) => "a number above 0",
            (true, Some(_)) => "no `weight` beside it: rows count so often that the share comes out",
            (true, None) => continue,
        };
        return Err(DataError::BadSetting { key: "token-share", value: share.to_string(), expected });
    }
    Ok(())
}

/// Repeats and skips rows of the entries that have a share until their tokens have these shares, on the whole as many tokens
/// as before. Which rows these are depends on their place in their entry alone. The examples of entry `k` end before
/// `ends[k]`.
pub(crate) fn mix(specs: &[DataSpec], ends: &[usize], dataset: &mut Dataset) {
    let starts = || std::iter::once(0).chain(ends.iter().copied());
    let tokens_of = |rows: std::ops::Range<usize>| -> f64 {
        dataset.examples[rows].iter().map(|example| example.tokens() as f64).sum()
    };
    let entries = specs.iter().zip(starts()).zip(ends);
    let shared: Vec<_> =
        entries.map(|((spec, start), end)| spec.token_share.map(|share| (share, tokens_of(start..*end)))).collect();
    let there = || shared.iter().flatten().filter(|(_, tokens)| *tokens > 0.0);
    let (shares, tokens) = there().fold((0.0, 0.0), |(shares, all), (share, tokens)| (shares + share, all + tokens));
    if shares == 0.0 {
        return;
    }
    let mut examples = std::mem::take(&mut dataset.examples).into_iter();
    let mut mixed = vec![];
    for ((spec, of_entry), (start, end)) in specs.iter().zip(&shared).zip(starts().zip(ends)) {
        let own = examples.by_ref().take(end - start);
        let Some((share, own_tokens)) = of_entry.filter(|(_, tokens)| *tokens > 0.0) else {
            dataset.examples.extend(own);
            continue;
        };
        let weight = share / shares * tokens / own_tokens;
        let first = dataset.examples.len();
        for (index, example) in own.enumerate() {
            for copy in 1..=copies(weight, index) {
                let mut example = example.clone();
                if copy > 1 {
                    example.id += &format!("#{copy}");
                }
                dataset.examples.push(example);
            }
        }
        let path = spec.path.as_slice().first().cloned().unwrap_or_default();
        let now: usize = dataset.examples[first..].iter().map(|example| example.tokens()).sum();
        mixed.push((TokenShare { path, wanted: share / shares, share: 0.0, weight }, now as f64));
    }
    let all: f64 = mixed.iter().map(|(_, now)| now).sum();
    dataset.report.mix = mixed.into_iter().map(|(entry, now)| TokenShare { share: now / all, ..entry }).collect();
}
