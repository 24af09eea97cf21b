//! An experiment: arms × seeds × orders of the same run, compared at the end and at equal KL, with the tests that say which
//! claims the data allow.

mod paired;
mod path;
mod student;

pub use paired::{PairedTest, detectable, holm};

use crate::pareto::hypervolume;
use crate::{EvalError, RunSummary, dimensions};
use path::{Path, Place};
use serde::{Deserialize, Serialize};

/// Level of every test, after Holm's correction.
pub const LEVEL: f64 = 0.05;

/// Accuracy of a guess: the hypervolume's reference on every dimension.
const CHANCE: f64 = 0.5;

/// A finished run of a study.
#[derive(Debug, Clone)]
pub struct StudyRun {
    /// Order of its dimensions.
    pub order: String,
    /// Its arm.
    pub arm: String,
    /// What came out; the seed is its own.
    pub summary: RunSummary,
}

/// What a study compares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyDesign {
    /// Name of the study.
    pub name: String,
    /// What is run with every seed and order.
    pub arms: Vec<StudyArm>,
    /// The method that all others' fronts are held against.
    pub baseline: String,
    /// KL to the start in nats per response at which policies are compared.
    pub kl: Vec<f64>,
    /// Difference of accuracies, 0 to 1, below which two arms count as equivalent.
    pub margin: f64,
}

/// A setting of a method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyArm {
    /// Its name.
    pub name: String,
    /// What it is a setting of.
    pub method: String,
    /// The arm that it is held against, if any.
    pub against: Option<String>,
}

/// An arm at one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyPoint {
    /// Order of the dimensions.
    pub order: String,
    /// The arm.
    pub arm: String,
    /// Seed of the run.
    pub seed: u64,
    /// KL at which it was read off; `None`: the final policy.
    pub at_kl: Option<f64>,
    /// KL to the start, nats per response, if it is known.
    pub kl: Option<f64>,
    /// Accuracy on each dimension, 0 to 1.
    pub accuracies: Vec<f64>,
}

/// An arm, or a method, against the baseline's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyComparison {
    /// Order of the dimensions.
    pub order: String,
    /// The arm; of a hypervolume the method.
    pub arm: String,
    /// The other one.
    pub against: String,
    /// A dimension, or `hypervolume`.
    pub measure: String,
    /// KL at which they were compared; `None`: at the end.
    pub at_kl: Option<f64>,
    /// The tests over seeds.
    pub test: PairedTest,
    /// p of a difference after Holm's correction over the study.
    pub p_difference: f64,
    /// p of equivalence after Holm's correction over the study.
    pub p_equivalence: f64,
}

/// What a comparison allows to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The arm has more.
    Better,
    /// The arm has less.
    Worse,
    /// They differ by less than the margin.
    Equivalent,
    /// Neither is shown.
    Open,
}

impl StudyComparison {
    /// What it allows to say.
    #[must_use]
    pub fn claim(&self) -> Claim {
        match self {
            Self { p_difference, test, .. } if *p_difference < LEVEL && test.mean > 0.0 => Claim::Better,
            Self { p_difference, .. } if *p_difference < LEVEL => Claim::Worse,
            Self { p_equivalence, .. } if *p_equivalence < LEVEL => Claim::Equivalent,
            _ => Claim::Open,
        }
    }
}

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
    /// Every comparison, also those that show nothing.
    pub comparisons: Vec<StudyComparison>,
}

impl StudySummary {
    /// Compares the runs that are over.
    ///
    /// # Errors
    /// A final policy that was not scored on a dimension, or an accuracy that is not finite.
    pub fn of(design: &StudyDesign, runs: &[StudyRun]) -> Result<Self, EvalError> {
        let mut names: Vec<String> = vec![];
        if let Some(first) = runs.first() {
            names = dimensions(&first.summary.matrix).into_iter().map(str::to_owned).collect();
            names.sort();
        }
        let places: Vec<Place> = std::iter::once(None).chain(design.kl.iter().copied().map(Some)).collect();
        let mut points = vec![];
        for run in runs {
            let path = Path::of(run, &names)?;
            for &at_kl in &places {
                if let Some((kl, accuracies)) = path.at(at_kl) {
                    let (order, arm, seed) = (run.order.clone(), run.arm.clone(), run.summary.seed);
                    points.push(StudyPoint { order, arm, seed, at_kl, kl, accuracies });
                }
            }
        }
        let mut summary = Self { design: design.clone(), dimensions: names, points, comparisons: vec![] };
        summary.compare(&places)?;
        Ok(summary)
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

    fn compare(&mut self, places: &[Place]) -> Result<(), EvalError> {
        let mut found = vec![];
        for order in self.orders() {
            for &at_kl in places {
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
            Some(StudyComparison { order, arm, against, measure, at_kl, test, p_difference, p_equivalence })
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
