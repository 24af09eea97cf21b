//! The policy × dimension table.

use crate::number::{percent, plus_minus, signed};
use crate::report::document::{Column, Group, Table};
use crate::{DimensionScore, KlEstimate, Subset, Tally, dimensions, find_score, policies};

/// Which pairs a matrix covers.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Pairs {
    All,
    Substantive,
}

impl Pairs {
    /// The part of `subset` that is covered.
    fn of(self, subset: Subset) -> Subset {
        if self == Self::All { subset } else { subset.substantive() }
    }
}

/// How much room there is for an interval.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Detail {
    /// Whole percents, for 100 columns.
    Narrow,
    /// One decimal and the standard error of the margin.
    Wide,
}

/// Whether leaving out boilerplate answers changes any set of pairs.
pub(crate) fn has_boilerplate(scores: &[DimensionScore]) -> bool {
    let pairs = |score: &DimensionScore, subset| score.tally(subset).map_or(0, |tally| tally.pairs);
    scores.iter().any(|score| pairs(score, Subset::All) != pairs(score, Subset::AllSubstantive))
}

/// Whether some pairs are labelled in one dimension only, beside others that are labelled in several.
pub(crate) fn has_single(scores: &[DimensionScore]) -> bool {
    let any = |subset| scores.iter().any(|score| score.tally(subset).is_some());
    any(Subset::Single) && (any(Subset::Agreeing) || any(Subset::Conflicting))
}

/// Rows: the number of pairs, then the policies. Columns: per dimension accuracy, that of its parts and the mean margin; KL to `start`.
pub(crate) fn matrix(scores: &[DimensionScore], kl: &[KlEstimate], start: &str, pairs: Pairs, detail: Detail) -> Table {
    let policies = policies(scores);
    let caption = match pairs {
        Pairs::All => "Held-out pairs",
        Pairs::Substantive => "Held-out pairs without boilerplate answers",
    };
    let label = Column {
        header: "policy".to_owned(),
        cells: std::iter::once("pairs").chain(policies.iter().copied()).map(str::to_owned).collect(),
        numeric: false,
    };
    let mut groups = vec![Group { title: String::new(), columns: vec![label] }];
    for dimension in dimensions(scores) {
        let column = |header: &str, subset: Subset, cell: &dyn Fn(&Tally) -> String, counted: bool| {
            let tallies: Vec<Option<&Tally>> = policies
                .iter()
                .map(|policy| find_score(scores, policy, dimension).and_then(|score| score.tally(pairs.of(subset))))
                .collect();
            let count = if counted { pair_count(&tallies) } else { String::new() };
            let cells = tallies.iter().map(|tally| tally.map_or("–".to_owned(), cell));
            Column { header: header.to_owned(), cells: std::iter::once(count).chain(cells).collect(), numeric: true }
        };
        let part = |tally: &Tally| {
            if tally.all_tied() { "tied".to_owned() } else { percent(tally.accuracy) }
        };
        let margin = |tally: &Tally| match detail {
            Detail::Narrow => signed(tally.mean_margin),
            Detail::Wide => format!("{} ± {:.2}", signed(tally.mean_margin), tally.margin_stderr),
        };
        groups.push(Group {
            title: dimension.to_owned(),
            columns: [
                Some(column("accuracy %", Subset::All, &|tally| accuracy(tally, detail), true)),
                Some(column("confl", Subset::Conflicting, &part, true)),
                Some(column("agree", Subset::Agreeing, &part, true)),
                has_single(scores).then(|| column("alone", Subset::Single, &part, true)),
                Some(column("margin", Subset::All, &margin, false)),
            ]
            .into_iter()
            .flatten()
            .collect(),
        });
    }
    let divergence = |policy: &&str| {
        if *policy == start {
            return "0".to_owned();
        }
        let found = kl.iter().find(|estimate| estimate.policy == *policy && estimate.reference == start);
        found.map_or("–".to_owned(), |estimate| plus_minus(estimate.mean, estimate.stderr))
    };
    let narrow = |text: String| {
        if detail == Detail::Narrow { text.replace(" ± ", "±") } else { text }
    };
    if kl.iter().any(|estimate| estimate.reference == start) {
        let cells = std::iter::once(String::new()).chain(policies.iter().map(divergence).map(narrow)).collect();
        let column = Column { header: "KL start".to_owned(), cells, numeric: true };
        groups.push(Group { title: String::new(), columns: vec![column] });
    }
    Table { caption: caption.to_owned(), groups }
}

/// Accuracy with its interval.
fn accuracy(tally: &Tally, detail: Detail) -> String {
    let (low, high) = (100.0 * tally.interval.0, 100.0 * tally.interval.1);
    match detail {
        _ if tally.all_tied() => "tied".to_owned(),
        Detail::Narrow => format!("{} ({low:.0}–{high:.0})", percent(tally.accuracy)),
        Detail::Wide => format!("{} ({low:.1} to {high:.1})", percent(tally.accuracy)),
    }
}

/// Number of pairs behind a column; policies scored on different sets show the largest.
fn pair_count(tallies: &[Option<&Tally>]) -> String {
    let counts = || tallies.iter().flatten().map(|tally| tally.pairs);
    match (counts().min(), counts().max()) {
        (Some(fewest), Some(most)) if fewest == most => most.to_string(),
        (_, Some(most)) => format!("≤ {most}"),
        _ => "0".to_owned(),
    }
}
