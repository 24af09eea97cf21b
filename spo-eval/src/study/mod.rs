//! An experiment: arms × seeds × orders of the same run, compared at the end and at equal KL, with the tests that say which
//! claims the data allow.

mod join;
mod paired;
mod parts;
mod path;
mod prompts;
mod student;

pub use paired::{PairedTest, detectable, holm};
pub use parts::{Claim, LEVEL, StudyArm, StudyComparison, StudyDesign, StudyHold, StudyPoint, StudyRun};
pub use prompts::{OverPrompts, StudyPrompt};

use crate::pareto::hypervolume;
use crate::{EvalError, dimensions};
use path::{Path, Place};
use serde::{Deserialize, Serialize};

/// Accuracy of a guess: the hypervolume's reference on every dimension.
const CHANCE: f64 = 0.5;

/// What a study found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudySummary {
    /// What was compared.
    pub design: StudyDesign,
    /// Dimensions by name.
    pub dimensions: Vec<String>,
    /// Every arm of every run at every place where it has a value.
    pub points: Vec<StudyPoint>,
    /// Bounds of the runs whose last round had any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<StudyHold>,
    /// Every comparison, also those that show nothing.
    pub comparisons: Vec<StudyComparison>,
}

impl StudySummary {
    /// Compares the runs that are over.
    ///
    /// # Errors
    /// A final policy that was not scored on a dimension, or an accuracy that is not finite.
    pub fn of(design: &StudyDesign, runs: &[StudyRun]) -> Result<Self, EvalError> {
        let mut summary = Self::points_of_runs(design, runs)?;
        summary.compare()?;
        prompts::add(&mut summary, &Self::prompts(design, runs))?;
        Ok(summary)
    }

    /// The same with all comparisons computed anew from its points; what is known of prompts stays.
    ///
    /// # Errors
    /// An accuracy that is not finite.
    pub fn again(&self) -> Result<Self, EvalError> {
        let mut summary = Self { comparisons: vec![], ..self.clone() };
        summary.compare()?;
        for one in &mut summary.comparisons {
            let known = self.comparisons.iter().find(|known| known.key() == one.key());
            one.over_prompts = known.and_then(|known| known.over_prompts.clone());
        }
        Ok(summary)
    }

    /// What every run's final policy got right of each held-out prompt, where runs told prompts apart.
    pub fn prompts(design: &StudyDesign, runs: &[StudyRun]) -> Vec<StudyPrompt> {
        let arm = |run: &&StudyRun| design.arms.iter().any(|arm| arm.name == run.arm);
        runs.iter().filter(arm).flat_map(StudyPrompt::of).collect()
    }

    fn points_of_runs(design: &StudyDesign, runs: &[StudyRun]) -> Result<Self, EvalError> {
        let mut names: Vec<String> = vec![];
        if let Some(first) = runs.first() {
            names = dimensions(&first.summary.matrix).into_iter().map(str::to_owned).collect();
            names.sort();
        }
        let (mut points, mut holds) = (vec![], vec![]);
        for run in runs {
            let path = Path::of(run, &names)?;
            let place = || (run.order.clone(), run.arm.clone(), run.summary.seed);
            for at_kl in design.places() {
                if let Some((kl, accuracies)) = path.at(at_kl) {
                    let (order, arm, seed) = place();
                    points.push(StudyPoint { order, arm, seed, at_kl, kl, accuracies });
                }
            }
            let last = run.summary.holds.iter().filter(|hold| hold.round == path.policy);
            holds.extend(last.map(|hold| {
                let (order, arm, seed) = place();
                StudyHold { order, arm, seed, hold: hold.clone() }
            }));
        }
        Ok(Self { design: design.clone(), dimensions: names, points, holds, comparisons: vec![] })
    }

    /// Orders of the dimensions that have runs, in the order of first mention.
    #[must_use]
    pub fn orders(&self) -> Vec<&str> {
        distinct(self.points.iter().map(|point| point.order.as_str()))
    }

    /// Points of an arm in an order at a place, one for each seed.
    pub fn points_of<'a>(
        &'a self,
        order: &'a str,
        arm: &'a str,
        at_kl: Option<f64>,
    ) -> impl Iterator<Item = &'a StudyPoint> + 'a {
        self.points.iter().filter(move |point| point.order == order && point.arm == arm && point.at_kl == at_kl)
    }

    fn compare(&mut self) -> Result<(), EvalError> {
        let mut found = vec![];
        for order in self.orders() {
            for at_kl in self.design.places() {
                let pairs =
                    self.design.arms.iter().filter_map(|arm| Some((arm.name.as_str(), arm.against.as_deref()?)));
                for (arm, against) in pairs {
                    for (index, dimension) in self.dimensions.iter().enumerate() {
                        let value = |arm: &str, seed: u64| {
                            let point = self.points_of(order, arm, at_kl).find(|point| point.seed == seed)?;
                            Some(point.accuracies[index])
                        };
                        let differences = self.differences(|seed| Some(value(arm, seed)? - value(against, seed)?));
                        found.push(([order, arm, against, dimension.as_str()], at_kl, differences));
                    }
                }
                let own = self.design.baseline.as_str();
                for method in self.methods().into_iter().filter(|method| *method != own) {
                    let mut volumes = vec![];
                    for seed in self.seeds() {
                        let [theirs, ours] =
                            [self.volume(order, method, at_kl, seed)?, self.volume(order, own, at_kl, seed)?];
                        volumes.extend(theirs.zip(ours).map(|(theirs, ours)| theirs - ours));
                    }
                    found.push(([order, method, own, HYPERVOLUME], at_kl, volumes));
                }
            }
        }
        let tested = found.into_iter().filter_map(|(names, at_kl, differences)| {
            // The margin is one of accuracies: no two hypervolumes are called equivalent.
            let margin = if names[3] == HYPERVOLUME { 0.0 } else { self.design.margin };
            let test = PairedTest::of(&differences, margin)?;
            let [order, arm, against, measure] = names.map(str::to_owned);
            let (p_difference, p_equivalence) = (test.p_difference, test.p_equivalence);
            let over_prompts = None;
            Some(StudyComparison {
                order,
                arm,
                against,
                measure,
                at_kl,
                test,
                p_difference,
                p_equivalence,
                over_prompts,
            })
        });
        let mut tested: Vec<StudyComparison> = tested.collect();
        let corrected = |read: fn(&StudyComparison) -> f64| holm(&tested.iter().map(read).collect::<Vec<_>>());
        let (different, equivalent) = (corrected(|one| one.p_difference), corrected(|one| one.p_equivalence));
        for (one, (different, equivalent)) in tested.iter_mut().zip(different.into_iter().zip(equivalent)) {
            (one.p_difference, one.p_equivalence) = (different, equivalent);
        }
        self.comparisons = tested;
        Ok(())
    }

    fn differences(&self, of: impl Fn(u64) -> Option<f64>) -> Vec<f64> {
        self.seeds().into_iter().filter_map(of).collect()
    }

    fn seeds(&self) -> Vec<u64> {
        distinct(self.points.iter().map(|point| point.seed))
    }

    /// Methods in the order of first mention.
    #[must_use]
    pub fn methods(&self) -> Vec<&str> {
        distinct(self.design.arms.iter().map(|arm| arm.method.as_str()))
    }

    /// Hypervolume above chance of a method's arms with a seed; `None` where none has a value.
    fn volume(&self, order: &str, method: &str, at_kl: Place, seed: u64) -> Result<Option<f64>, EvalError> {
        let arms = self.design.arms.iter().filter(|arm| arm.method == method);
        let points = arms.flat_map(|arm| self.points_of(order, &arm.name, at_kl).filter(|point| point.seed == seed));
        let points: Vec<Vec<f64>> = points.map(|point| point.accuracies.clone()).collect();
        if points.is_empty() {
            return Ok(None);
        }
        hypervolume(&points, &vec![CHANCE; self.dimensions.len()]).map(Some)
    }
}

/// The measure of a method's whole front.
pub const HYPERVOLUME: &str = "hypervolume";

fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = vec![];
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

#[cfg(test)]
mod tests;
