//! Goals in the prompt: rewards in context (RiC, Yang et al. 2024, arXiv 2402.10207).
//!
//! A model is trained on answers behind prompts that end with the scores the answer got, ` <honesty> 1.3 <style> -0.2`, as plain
//! text. Later the scores in the prompt are goals. Scores are normalised, `(r − mean) / deviation` over the training rows, and
//! written with one decimal. A preference over dimensions becomes goals by a [`GoalMap`]; unlike the authors' code, whose goals
//! reach from −4.2 to 4.2 whatever the data, `low` and `high` are the data's own 1 % and 99 % quantiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::PromptText;

/// One dimension's scores over the training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Mean score.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// 1 % quantile of the normalised scores.
    pub low: f64,
    /// 99 % quantile of the normalised scores.
    pub high: f64,
}

/// The dimensions that prompts name goals for, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Goals {
    /// Scales by dimension.
    pub dimensions: BTreeMap<String, Scale>,
}

/// How a preference `w` over dimensions becomes goals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GoalMap {
    /// `w_i / ‖w‖₂ · (high − low) + low`: what RiC's code uses.
    #[default]
    L2,
    /// The largest weight gets `high`, the others `min(K w_i / Σw, 1) (high − low) + low`, of `K` dimensions.
    Linf,
    /// `w_i / Σw · (high − low) + low`.
    Linear,
}

impl Goals {
    /// The scales of these scores by dimension, each with at least two different values.
    ///
    /// # Errors
    /// A dimension whose scores are all equal, by name.
    pub fn of(scores: &BTreeMap<String, Vec<f64>>) -> Result<Self, String> {
        let scale = |(name, scores): (&String, &Vec<f64>)| {
            let count = scores.len() as f64;
            let mean = scores.iter().sum::<f64>() / count;
            let deviation = (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count).sqrt();
            if deviation.is_nan() || deviation <= 0.0 {
                return Err(name.clone());
            }
            let mut normalised: Vec<f64> = scores.iter().map(|score| (score - mean) / deviation).collect();
            normalised.sort_by(f64::total_cmp);
            let quantile = |p: f64| normalised[(p * (normalised.len() - 1) as f64).round() as usize];
            Ok((name.clone(), Scale { mean, deviation, low: quantile(0.01), high: quantile(0.99) }))
        };
        Ok(Self { dimensions: scores.iter().map(scale).collect::<Result<_, String>>()? })
    }

    /// A score as a goal.
    pub fn normalised(&self, dimension: &str, score: f64) -> Option<f64> {
        self.dimensions.get(dimension).map(|scale| (score - scale.mean) / scale.deviation)
    }

    /// The goals of a preference; dimensions that it does not name weigh nothing.
    pub fn mapped(&self, weights: &BTreeMap<String, f64>, map: GoalMap) -> BTreeMap<String, f64> {
        let weight = |name: &String| weights.get(name).copied().unwrap_or(0.0);
        let all: Vec<f64> = self.dimensions.keys().map(weight).collect();
        let (sum, norm) = (all.iter().sum::<f64>(), all.iter().map(|w| w * w).sum::<f64>().sqrt());
        let largest = all.iter().copied().fold(f64::MIN, f64::max);
        let share = |w: f64| match map {
            GoalMap::L2 => w / norm,
            GoalMap::Linear => w / sum,
            GoalMap::Linf if w == largest => 1.0,
            GoalMap::Linf => (all.len() as f64 * w / sum).min(1.0),
        };
        let goal = |(name, scale): (&String, &Scale)| {
            (name.clone(), share(weight(name)) * (scale.high - scale.low) + scale.low)
        };
        self.dimensions.iter().map(goal).collect()
    }

    /// Goals to ask for, as RiC's online stage draws them: of numbers from 0 to 1 in `uniforms`, one per dimension, the
    /// smallest stays, and every other dimension gets the most.
    pub fn drawn(&self, uniforms: &[f64]) -> BTreeMap<String, f64> {
        let smallest = uniforms.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index);
        let goal = |(index, (name, scale)): (usize, (&String, &Scale))| {
            let share = if Some(index) == smallest { uniforms[index] } else { 1.0 };
            (name.clone(), share * (scale.high - scale.low) + scale.low)
        };
        self.dimensions.iter().enumerate().map(goal).collect()
    }

    /// A prompt with goals behind its text, or behind the text of its last turn; goals that it has are replaced.
    pub fn tag(&self, prompt: &PromptText, goals: &BTreeMap<String, f64>) -> PromptText {
        let tags: String = self
            .dimensions
            .keys()
            // −0.0 is written as 0.0.
            .filter_map(|name| Some(format!(" <{name}> {:.1}", (goals.get(name)? * 10.0).round() / 10.0 + 0.0)))
            .collect();
        match self.bare(prompt) {
            PromptText::Text(text) => PromptText::Text(text + &tags),
            PromptText::Messages(mut turns) => {
                if let Some(turn) = turns.last_mut() {
                    turn.content = (turn.text() + &tags).into();
                }
                PromptText::Messages(turns)
            }
            ids => ids,
        }
    }

    /// A prompt without the goals behind it.
    pub fn bare(&self, prompt: &PromptText) -> PromptText {
        match prompt {
            PromptText::Text(text) => PromptText::Text(self.without_tags(text).into()),
            PromptText::Messages(turns) => {
                let mut turns = turns.clone();
                if let Some(turn) = turns.last_mut() {
                    turn.content = self.without_tags(&turn.text()).into();
                }
                PromptText::Messages(turns)
            }
            ids => ids.clone(),
        }
    }

    fn without_tags<'t>(&self, text: &'t str) -> &'t str {
        let mut left = text;
        loop {
            let tag = left.rfind(" <").and_then(|start| {
                let (name, number) = left[start + 2..].split_once("> ")?;
                let is_tag = self.dimensions.contains_key(name) && number.parse::<f64>().is_ok();
                is_tag.then_some(start)
            });
            match tag {
                Some(start) => left = &left[..start],
                None => return left,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::record::Message;

    fn goals() -> Goals {
        let scores = [
            ("honesty".to_string(), (0..=100).map(f64::from).collect()),
            ("style".to_string(), (0..=100).map(|n| f64::from(n % 2)).collect()),
        ];
        Goals::of(&scores.into()).unwrap()
    }

    fn named(values: [(&str, f64); 2]) -> BTreeMap<String, f64> {
        values.map(|(name, value)| (name.to_string(), value)).into()
    }

    #[test]
    fn scales_are_those_of_the_scores() {
        let goals = goals();
        let honesty = &goals.dimensions["honesty"];
        assert_eq!(honesty.mean, 50.0);
        // The variance of 0 … n is n (n + 2) / 12.
        assert!((honesty.deviation - (100.0_f64 * 102.0 / 12.0).sqrt()).abs() < 1e-9);
        assert!((honesty.high + honesty.low).abs() < 1e-9 && (honesty.high - 49.0 / honesty.deviation).abs() < 1e-9);
        assert_eq!(goals.normalised("honesty", 50.0), Some(0.0));
        assert_eq!(Goals::of(&[("flat".to_string(), vec![1.0, 1.0])].into()), Err("flat".into()));
    }

    #[test]
    fn maps_are_the_papers() {
        let goals = goals();
        let (honesty, style) = (&goals.dimensions["honesty"], &goals.dimensions["style"]);
        let at = |scale: &Scale, share: f64| share * (scale.high - scale.low) + scale.low;
        let close = |found: BTreeMap<String, f64>, expected: [f64; 2]| {
            let expected = named([("honesty", at(honesty, expected[0])), ("style", at(style, expected[1]))]);
            assert!(found.iter().all(|(name, goal)| (goal - expected[name]).abs() < 1e-12), "{found:?} {expected:?}");
        };
        let weights = named([("honesty", 0.6), ("style", 0.8)]);
        close(goals.mapped(&weights, GoalMap::L2), [0.6, 0.8]);
        close(goals.mapped(&weights, GoalMap::Linear), [3.0 / 7.0, 4.0 / 7.0]);
        close(goals.mapped(&weights, GoalMap::Linf), [6.0 / 7.0, 1.0]);
        close(goals.mapped(&named([("honesty", 1.0), ("style", 0.0)]), GoalMap::L2), [1.0, 0.0]);
        close(goals.drawn(&[0.25, 0.5]), [0.25, 1.0]);
    }

    #[test]
    fn tags_are_put_on_replaced_and_taken_off() {
        let goals = goals();
        let tagged = goals.tag(&PromptText::Text("Why?".into()), &named([("style", -0.04), ("honesty", 1.26)]));
        assert_eq!(tagged, PromptText::Text("Why? <honesty> 1.3 <style> 0.0".into()));
        let again = goals.tag(&tagged, &named([("style", 2.0), ("honesty", -1.0)]));
        assert_eq!(again, PromptText::Text("Why? <honesty> -1.0 <style> 2.0".into()));
        assert_eq!(goals.bare(&again), PromptText::Text("Why?".into()));
        // Text that only looks like a tag stays.
        for text in ["a <b> 1", "is 1 <honesty> much?", "5 <style> x"] {
            assert_eq!(goals.bare(&PromptText::Text(text.into())), PromptText::Text(text.into()));
        }
        let turns = PromptText::Messages(vec![Message::new("system", "S"), Message::new("user", "Why?")]);
        let PromptText::Messages(tagged) = goals.tag(&turns, &named([("style", 1.0), ("honesty", 1.0)])) else {
            panic!()
        };
        assert_eq!(tagged[1].text(), "Why? <honesty> 1.0 <style> 1.0");
        assert_eq!(goals.bare(&PromptText::Messages(tagged)), turns);
    }
}
