//! Every weighting of a grid, scored on pairs.

use serde_json::{Value, json};
use spo_data::{Dataset, Group};
use spo_eval::{Bootstrap, report, score_dimension};
use spo_model::CausalLm;
use spo_train::TrainError;
use spo_train::evaluate::labelled_set::{Judged, LabelledSet};

use super::{Arguments, Opened, whole};
use crate::command::score::sum;
use crate::error::CliError;
use crate::inputs::{incidents, require_rows};
use crate::output::{Output, note};
use crate::places::Place;
use crate::scoring::check_rows;

/// Most tokens that are scored at once.
const AT_ONCE: usize = 4096;

impl Arguments {
    /// Accuracy and margin of every dimension at every weighting, in a row named by it.
    pub(super) fn sweep(&self, opened: &Opened, steps: usize, output: &mut Output) -> Result<(), CliError> {
        let first = &opened.places[0];
        let tokenizer = first.tokenizer()?;
        let data = self.layout.load(&self.data, &self.text.spec(first.text.as_ref()), &tokenizer)?;
        incidents(&data).into_iter().for_each(note);
        require_rows(&data, &self.data)?;
        let dimensions = data.judged_dimensions();
        if dimensions.is_empty() {
            let files: Vec<String> = self.data.iter().map(|file| file.display().to_string()).collect();
            return Err(TrainError::nothing_left(files.join(", "), &data.report).into());
        }
        let place = self.reference_place()?;
        let (_, reference) = whole(&place, &opened.device)?;
        check_rows(reference.spec(), &data)?;
        let reference = logps(&reference, &data);
        let set = LabelledSet::new("held-out", data, dimensions, &[], &tokenizer)?;
        let bootstrap = Bootstrap { resamples: self.resamples, seed: self.seed };
        let mut points = vec![];
        for weights in grid(opened.places.len(), steps) {
            let name = weights.iter().map(|weight| format!("{weight:.3}")).collect::<Vec<_>>().join(", ");
            let policy = logps(&opened.merger.at(&weights, opened.settings)?, &set.dataset);
            let score = |dimension: &String| {
                let margin = |row: Judged| {
                    let ratio = |answer: usize| policy[row.example][answer] - reference[row.example][answer];
                    row.chosen.map_or(0.0, ratio) - row.rejected.map_or(0.0, ratio)
                };
                let margins: Vec<f64> = set.judged(dimension).into_iter().map(margin).collect();
                score_dimension(&name, dimension, &set.pair_scores(dimension, &margins), &bootstrap)
            };
            let scores = set.dimensions.iter().map(score).collect::<Result<Vec<_>, _>>()?;
            note(format_args!("{name} scored"));
            points.push((weights, scores));
        }
        let names: Vec<&str> = opened.places.iter().map(|place| place.name.as_str()).collect();
        if self.json {
            let points: Vec<Value> =
                points.iter().map(|(weights, scores)| json!({ "weights": weights, "scores": scores })).collect();
            let reference = &place.name;
            return output.pretty_json(
                &json!({ "method": self.method, "policies": names, "reference": reference, "points": points }),
            );
        }
        output.line(format!("{} of {}, relative to {}", self.method, names.join(", "), place.name))?;
        let scores: Vec<_> = points.into_iter().flat_map(|(_, scores)| scores).collect();
        output.line(report::score_table(&scores, &[], &place.name).trim_end())
    }

    /// What margins are relative to.
    fn reference_place(&self) -> Result<Place, CliError> {
        let named = self.reference.as_ref().or(self.base.as_ref());
        match named.map(|path| Place::named(path, None, None)).transpose()? {
            Some(place) => Ok(place),
            None => self.start()?.ok_or_else(|| {
                let expected = "the model that margins are relative to; only runs say which they started from";
                CliError::argument("--reference", "none", expected)
            }),
        }
    }
}

/// All weights that are multiples of `1/(steps − 1)` and sum to 1, the first policy's falling.
fn grid(policies: usize, steps: usize) -> Vec<Vec<f64>> {
    fn below(policies: usize, left: usize) -> Vec<Vec<usize>> {
        if policies == 1 {
            return vec![vec![left]];
        }
        let with = |own: usize| below(policies - 1, left - own).into_iter().map(move |rest| [vec![own], rest].concat());
        (0..=left).rev().flat_map(with).collect()
    }
    let parts = steps - 1;
    let share = |parts_of: Vec<usize>| parts_of.into_iter().map(|part| part as f64 / parts as f64).collect();
    below(policies, parts).into_iter().map(share).collect()
}

/// Sequence log-probs of each answer of each example.
fn logps(model: &CausalLm, data: &Dataset) -> Vec<Vec<f64>> {
    let group = |example: &spo_data::Example| -> (Vec<u32>, Vec<Vec<u32>>) {
        (example.prompt.to_vec(), example.answers.iter().map(|answer| answer.to_vec()).collect())
    };
    let rows: Vec<_> = data.examples.iter().map(group).collect();
    let groups: Vec<Group> = rows
        .iter()
        .map(|(prompt, answers)| Group { prompt, answers: answers.iter().map(Vec::as_slice).collect() })
        .collect();
    let scored = model.score(&groups, AT_ONCE, &Default::default(), &mut |_| ());
    scored.iter().map(|answers| answers.iter().map(|logps| sum(logps)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::grid;

    #[test]
    fn the_grid_covers_the_simplex() {
        assert_eq!(grid(2, 3), [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]);
        assert_eq!(grid(2, 11).len(), 11);
        let three = grid(3, 5);
        assert_eq!(three.len(), 15);
        assert!(three.iter().all(|weights| (weights.iter().sum::<f64>() - 1.0).abs() < 1e-12));
    }
}
