//! Differences of arms at the end as other prompts would have them: where the seeds of a study hold out different prompts,
//! all of them are resampled.

use super::path::final_policy;
use super::{StudyComparison, StudyRun, StudySummary};
use crate::bootstrap::Cluster;
use crate::{Bootstrap, EvalError, PromptTally};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A run's final policy on a held-out prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyPrompt {
    /// Order of the dimensions.
    pub order: String,
    /// The arm.
    pub arm: String,
    /// Seed of the run.
    pub seed: u64,
    /// The prompt, and what the policy gets right of its pairs.
    #[serde(flatten)]
    pub tally: PromptTally,
}

impl StudyPrompt {
    /// Those of a run.
    pub fn of(run: &StudyRun) -> Vec<Self> {
        let policy = final_policy(run);
        let tallies = run.summary.prompts.iter().filter(|tally| tally.policy == policy);
        let (order, arm, seed) = (&run.order, &run.arm, run.summary.seed);
        tallies.map(|tally| Self { order: order.clone(), arm: arm.clone(), seed, tally: tally.clone() }).collect()
    }
}

/// A difference over the pairs of all prompts that any of the seeds held out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OverPrompts {
    /// Distinct prompts that both arms have, over all seeds.
    pub prompts: usize,
    /// The difference of accuracies over all their pairs: a prompt counts by its pairs and by the seeds that held it out.
    pub mean: f64,
    /// Its 95 % interval: prompts are resampled, each with all its pairs under all seeds and both arms.
    pub interval: (f64, f64),
}

/// Gives every comparison of accuracies at the end its difference over prompts.
///
/// # Errors
/// Too few resamples.
pub fn add(summary: &mut StudySummary, prompts: &[StudyPrompt]) -> Result<(), EvalError> {
    let known = |one: &StudyComparison| one.at_kl.is_none() && summary.dimensions.contains(&one.measure);
    for one in summary.comparisons.iter_mut().filter(|one| known(one)) {
        one.over_prompts = over_prompts(one, prompts)?;
    }
    Ok(())
}

fn over_prompts(one: &StudyComparison, prompts: &[StudyPrompt]) -> Result<Option<OverPrompts>, EvalError> {
    let of_arm = |arm: &str| -> BTreeMap<(&str, u64), &PromptTally> {
        let own =
            |found: &&StudyPrompt| found.order == one.order && found.arm == arm && found.tally.dimension == one.measure;
        prompts.iter().filter(own).map(|found| ((found.tally.prompt.as_str(), found.seed), &found.tally)).collect()
    };
    let (own, other) = (of_arm(&one.arm), of_arm(&one.against));
    let mut clusters: BTreeMap<&str, Cluster<1>> = BTreeMap::new();
    for ((prompt, seed), tally) in &own {
        let Some(other) = other.get(&(*prompt, *seed)).filter(|other| other.pairs == tally.pairs) else { continue };
        let cluster = clusters.entry(prompt).or_insert(Cluster { count: 0, sums: [0.0] });
        cluster.count += tally.pairs;
        cluster.sums[0] += tally.right - other.right;
    }
    if clusters.is_empty() {
        return Ok(None);
    }
    let clusters: Vec<Cluster<1>> = clusters.into_values().collect();
    let [interval] = Bootstrap::default().intervals(&clusters)?;
    let pairs: usize = clusters.iter().map(|cluster| cluster.count).sum();
    let mean = clusters.iter().map(|cluster| cluster.sums[0]).sum::<f64>() / pairs as f64;
    Ok(Some(OverPrompts { prompts: clusters.len(), mean, interval }))
}
