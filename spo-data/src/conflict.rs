//! Where two dimensions want different answers: what to know before aligning to one after the other.

use crate::{Dataset, Example, Preference};

/// Agreement of two dimensions over the answer pairs that both label.
///
/// The order of two answers means nothing, so every pair counts in both orders. Chance agreement is then
/// exactly one half, and Cohen's κ is `2 · agreement − 1` (Cohen 1960, with symmetric margins).
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Conflict {
    /// One dimension.
    pub first: String,
    /// The other.
    pub second: String,
    /// Answer pairs that both dimensions label, ties included.
    pub both: usize,
    /// Pairs on which both prefer the same answer.
    pub agree: usize,
    /// Pairs on which they prefer different answers.
    pub conflict: usize,
    /// Pairs that at least one of them ties.
    pub ties: usize,
    /// `conflict / (agree + conflict)`, with its 95 % Wilson interval; `None` without such pairs.
    pub conflict_rate: Option<Estimate>,
    /// Cohen's κ, with the interval that follows from the rate's.
    pub kappa: Option<Estimate>,
    /// Conflicting examples, the strongest by scores first, then in file order: indexes into the dataset.
    pub strongest: Vec<usize>,
}

/// A number with a 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Example {
    /// The preference between any two answers along a dimension: by label for the first two, else by scores.
    pub fn preference(&self, dimension: &str, a: usize, b: usize) -> Option<Preference> {
        match (self.labels.get(dimension), a, b) {
            (Some(label), 0, 1) => return Some(*label),
            (Some(label), 1, 0) => return Some(Preference::from_sign(-f64::from(label.sign()))),
            _ => {}
        }
        let scores = self.scores.get(dimension)?;
        Some(Preference::from_sign(f64::from(*scores.get(a)?) - f64::from(*scores.get(b)?)))
    }

    /// How far two answers lie apart along a dimension: the score difference, or 1 for a bare label.
    fn strength(&self, dimension: &str, a: usize, b: usize) -> f32 {
        let scores = self.scores.get(dimension);
        scores.and_then(|scores| Some((scores.get(a)? - scores.get(b)?).abs())).unwrap_or(1.0)
    }
}

impl Dataset {
    /// How two dimensions agree; at most `examples` of the strongest conflicts are named.
    pub fn conflict(&self, first: &str, second: &str, examples: usize) -> Conflict {
        let (mut agree, mut ties) = (0, 0);
        let mut conflicts: Vec<(f32, usize)> = Vec::new();
        for (index, example) in self.examples.iter().enumerate() {
            for b in 1..example.answers.len() {
                for a in 0..b {
                    let preferences = (example.preference(first, a, b), example.preference(second, a, b));
                    let (Some(one), Some(other)) = preferences else { continue };
                    match one.sign() * other.sign() {
                        1 => agree += 1,
                        0 => ties += 1,
                        _ => {
                            let strength = example.strength(first, a, b).min(example.strength(second, a, b));
                            conflicts.push((strength, index));
                        }
                    }
                }
            }
        }
        let conflict = conflicts.len();
        let conflict_rate = wilson(conflict, agree + conflict);
        conflicts.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        conflicts.dedup_by_key(|(_, index)| *index);
        Conflict {
            first: first.to_string(),
            second: second.to_string(),
            both: agree + conflict + ties,
            agree,
            conflict,
            ties,
            conflict_rate,
            kappa: conflict_rate.map(|rate| Estimate {
                value: 1.0 - 2.0 * rate.value,
                low: 1.0 - 2.0 * rate.high,
                high: 1.0 - 2.0 * rate.low,
            }),
            strongest: conflicts.into_iter().take(examples).map(|(_, index)| index).collect(),
        }
    }

    /// [`Dataset::conflict`] of each two dimensions.
    pub fn conflicts(&self, examples: usize) -> Vec<Conflict> {
        let names: Vec<String> = self.dimensions().into_keys().collect();
        let pairs = names
            .iter()
            .enumerate()
            .flat_map(|(index, first)| names[index + 1..].iter().map(move |second| (first, second)));
        pairs.map(|(first, second)| self.conflict(first, second, examples)).collect()
    }
}

/// Wilson's score interval of a proportion at 95 % (Wilson 1927).
fn wilson(hits: usize, of: usize) -> Option<Estimate> {
    const Z: f64 = 1.959_963_984_540_054;
    if of == 0 {
        return None;
    }
    let n = of as f64;
    let value = hits as f64 / n;
    let spread = Z * Z / n;
    let centre = (value + spread / 2.0) / (1.0 + spread);
    let half = (Z / (1.0 + spread)) * (value * (1.0 - value) / n + spread / (4.0 * n)).sqrt();
    Some(Estimate { value, low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn example(labels: &[(&str, f64)]) -> Example {
        Example {
            prompt: [1].into(),
            answers: vec![[2].into(), [3].into()],
            labels: std::sync::Arc::new(
                labels.iter().map(|(name, sign)| (name.to_string(), Preference::from_sign(*sign))).collect(),
            ),
            ..Example::default()
        }
    }

    #[test]
    fn agreement_ties_and_conflicts_are_counted() {
        let mut data = Dataset::default();
        for (first, second) in [(1.0, 1.0), (-1.0, -1.0), (1.0, -1.0), (1.0, 0.0), (-1.0, 1.0)] {
            data.examples.push(example(&[("help", first), ("honesty", second)]));
        }
        data.examples.push(example(&[("help", 1.0)]));
        let all = data.conflicts(1);
        assert_eq!(all.len(), 1);
        let found = &all[0];
        assert_eq!((found.both, found.agree, found.conflict, found.ties), (5, 2, 2, 1));
        assert_eq!(found.strongest, [2]);
        let (rate, kappa) = (found.conflict_rate.unwrap(), found.kappa.unwrap());
        assert_eq!((rate.value, kappa.value), (0.5, 0.0));
        // Wilson's interval for 2 of 4, by hand: (0.5 ± 0.4902…·…) = 0.1500 to 0.8500.
        assert!((rate.low - 0.15004).abs() < 1e-4 && (rate.high - 0.84996).abs() < 1e-4, "{rate:?}");
        assert!((kappa.low + 0.69992).abs() < 2e-4 && kappa.low < kappa.high);
        assert_eq!(data.conflict("help", "absent", 1).conflict_rate, None);
    }

    #[test]
    fn scored_lists_compare_each_two_answers() {
        let mut list = example(&[]);
        list.answers.push([4].into());
        list.scores.insert("a".into(), vec![3.0, 2.0, 1.0]);
        list.scores.insert("b".into(), vec![1.0, 2.0, 1.0]);
        let mut strong = example(&[]);
        strong.scores.insert("a".into(), vec![9.0, 1.0]);
        strong.scores.insert("b".into(), vec![1.0, 9.0]);
        let data = Dataset { examples: vec![list, strong], ..Dataset::default() };
        let found = data.conflict("a", "b", 5);
        // (0,1) conflicts, (0,2) ties, (1,2) agrees.
        assert_eq!((found.agree, found.conflict, found.ties), (1, 2, 1));
        assert_eq!(found.strongest, [1, 0]);
    }
}
