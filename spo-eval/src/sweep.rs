//! Several runs of one run file with other settings: their trade-offs, Pareto front and hypervolume.

use serde::{Deserialize, Serialize};

use crate::pareto::{front, hypervolume};
use crate::{EvalError, RunSummary, Subset, Tally, dimensions, find_score, forgetting};

/// What the final policy of one run reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepRun {
    /// Its directory in the sweep.
    pub name: String,
    /// What sets it apart: key and value.
    pub settings: Vec<(String, String)>,
    /// Its final policy.
    pub policy: String,
    /// That policy's tally on each dimension of the sweep, all held-out pairs.
    pub tallies: Vec<Tally>,
    /// Sampled KL to the start, nats per response, with its standard error, if it was estimated.
    pub kl: Option<(f64, f64)>,
    /// Most accuracy that a dimension lost along the run, 0 to 1.
    pub forgotten: f64,
    /// Whether no other run is at least as accurate on every dimension and more on one.
    pub on_front: bool,
    /// Hypervolume that would be lost without this run.
    pub contribution: f64,
}

/// A run of a sweep that is over.
#[derive(Debug, Clone)]
pub struct FinishedRun {
    /// Its directory in the sweep.
    pub name: String,
    /// What sets it apart: key and value.
    pub settings: Vec<(String, String)>,
    /// What came out.
    pub summary: RunSummary,
}

/// Runs held against each other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepSummary {
    /// Name of the run file.
    pub name: String,
    /// Dimensions, in the order of the first run.
    pub dimensions: Vec<String>,
    /// The runs, in the order of the grid.
    pub runs: Vec<SweepRun>,
    /// Volume of accuracies that the runs dominate, from 0 on every dimension to 1 at most.
    pub hypervolume: f64,
}

impl SweepSummary {
    /// Compares finished runs.
    ///
    /// # Errors
    /// [`EvalError::NoPairs`] for a run whose final policy was not scored on a dimension.
    pub fn of(name: &str, finished: &[FinishedRun]) -> Result<Self, EvalError> {
        let Some(FinishedRun { summary: first, .. }) = finished.first() else {
            return Ok(Self { name: name.into(), ..Self::default() });
        };
        let mut names: Vec<String> = dimensions(&first.matrix).into_iter().map(str::to_owned).collect();
        names.sort();
        let mut runs = vec![];
        for FinishedRun { name: run, settings, summary } in finished {
            let last = summary.rounds.iter().rev().find(|round| !round.control);
            let policy = last.map_or(summary.start.clone(), |round| round.policy.clone());
            let tally = |dimension: &String| {
                let found = find_score(&summary.matrix, &policy, dimension).and_then(|score| score.tally(Subset::All));
                found.cloned().ok_or_else(|| EvalError::NoPairs {
                    policy: format!("{run}: {policy}"),
                    dimension: dimension.clone(),
                })
            };
            let lost = forgetting(&summary.matrix, &summary.path(&policy));
            let lost = lost.iter().filter(|entry| entry.policy == policy).map(|entry| entry.forgotten);
            runs.push(SweepRun {
                name: run.clone(),
                settings: settings.clone(),
                tallies: names.iter().map(tally).collect::<Result<_, _>>()?,
                kl: summary.kl(&policy, &summary.start).map(|estimate| (estimate.mean, estimate.stderr)),
                forgotten: lost.fold(0.0, f64::max),
                on_front: false,
                contribution: 0.0,
                policy,
            });
        }
        let points: Vec<Vec<f64>> =
            runs.iter().map(|run| run.tallies.iter().map(|tally| tally.accuracy).collect()).collect();
        let reference = vec![0.0; names.len()];
        let total = hypervolume(&points, &reference)?;
        for index in front(&points)? {
            let mut without = points.clone();
            without.remove(index);
            runs[index].on_front = true;
            runs[index].contribution = total - hypervolume(&without, &reference)?;
        }
        Ok(Self { name: name.into(), dimensions: names, runs, hypervolume: total })
    }

    /// Keys of the settings, in the order of first mention.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = vec![];
        for (key, _) in self.runs.iter().flat_map(|run| &run.settings) {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        keys
    }

    /// Hypervolume of the first one, two, … runs.
    ///
    /// # Errors
    /// An accuracy that is not finite.
    pub fn growth(&self) -> Result<Vec<f64>, EvalError> {
        let points: Vec<Vec<f64>> =
            self.runs.iter().map(|run| run.tallies.iter().map(|tally| tally.accuracy).collect()).collect();
        (1..=points.len()).map(|count| hypervolume(&points[..count], &vec![0.0; self.dimensions.len()])).collect()
    }
}
