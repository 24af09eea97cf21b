//! What is known of a run from its events so far: the state behind the bar, the full screen and `spo watch`.

use std::collections::VecDeque;

use spo_eval::{KlEstimate, Subset};
use spo_train::{Event, StepFigures};

use super::words;

/// Lines of the log that are kept.
const LOG: usize = 200;
/// Steps whose mean time an estimate is made from.
const RECENT: usize = 20;

/// A run as its events tell it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    pub name: String,
    pub device: String,
    /// Seconds from the start of the run to the last event.
    pub at: f64,
    pub phases: Vec<Phase>,
    /// Accuracies on held-out pairs, in the order they were measured.
    pub measured: Vec<Measured>,
    pub kl: Vec<KlEstimate>,
    pub warnings: Vec<String>,
    /// What happened, newest last.
    pub log: VecDeque<String>,
    /// Policy that is being scored, answers done, answers in all.
    pub scoring: Option<(String, usize, usize)>,
    pub finished: bool,
    /// Why it ended before it was over.
    pub stopped: Option<String>,
}

/// Steps of the warm-up, a round or a control.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase {
    pub name: String,
    pub dimension: String,
    /// Only for comparison.
    pub control: bool,
    /// The policy it started from.
    pub start: String,
    pub steps: u64,
    pub batches: Vec<StepFigures>,
    /// Its policy is saved, or its steps ended early.
    pub done: bool,
}

/// One policy on one dimension's held-out pairs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    pub policy: String,
    pub step: u64,
    pub dimension: String,
    pub accuracy: f64,
    /// Absent where a running policy was only looked at.
    pub interval: Option<(f64, f64)>,
    pub margin: f64,
}

impl Board {
    /// Takes the next event.
    pub fn add(&mut self, seconds: f64, event: &Event) {
        self.at = seconds;
        if !matches!(event, Event::Scoring { .. }) {
            self.scoring = None;
        }
        match event {
            Event::RunStarted { name, device, phases, .. } => {
                (self.name, self.device) = (name.clone(), device.clone());
                let phase =
                    |(name, steps): &(String, u64)| Phase { name: name.clone(), steps: *steps, ..Phase::default() };
                self.phases = phases.iter().map(phase).collect();
            }
            Event::Scoring { policy, done, total } => self.scoring = Some((policy.clone(), *done, *total)),
            Event::PhaseStarted { phase, dimension, control, start, steps, .. } => {
                let phase = self.phase(phase);
                (phase.dimension, phase.start) = (dimension.clone(), start.clone());
                (phase.control, phase.steps) = (*control, *steps);
            }
            Event::Step(figures) => {
                let phase = self.phase(&figures.phase);
                phase.steps = figures.steps;
                phase.batches.push(figures.clone());
            }
            Event::PhaseFinished { phase, .. } => self.phase(phase).done = true,
            Event::HeldOut(found) => self.measured.extend(found.dimensions.iter().map(|of| Measured {
                policy: found.phase.clone(),
                step: found.step,
                dimension: of.dimension.clone(),
                accuracy: of.accuracy,
                interval: None,
                margin: of.margin,
            })),
            Event::Evaluated { policy, step, scores, .. } => {
                for score in scores.iter().filter(|score| score.kind.is_main()) {
                    let measured = score.tally(Subset::All).map(|tally| Measured {
                        policy: policy.clone(),
                        step: *step,
                        dimension: score.dimension.clone(),
                        accuracy: tally.accuracy,
                        interval: Some(tally.interval),
                        margin: tally.mean_margin,
                    });
                    self.measured.extend(measured);
                }
            }
            Event::KlEstimated(estimate) => self.kl.push(estimate.clone()),
            Event::Warning { text } => self.warnings.push(text.clone()),
            Event::PhaseEnded { phase, .. } => self.phase(phase).done = true,
            Event::RunStopped { reason } => self.stopped = Some(reason.clone()),
            Event::RunFinished { .. } => self.finished = true,
            _ => {}
        }
        for line in words::lines(event) {
            self.log.push_back(format!("{} {line}", words::clock(seconds)));
            if self.log.len() > LOG {
                self.log.pop_front();
            }
        }
    }

    fn phase(&mut self, name: &str) -> &mut Phase {
        let index = self.phases.iter().position(|phase| phase.name == name).unwrap_or_else(|| {
            self.phases.push(Phase { name: name.into(), ..Phase::default() });
            self.phases.len() - 1
        });
        &mut self.phases[index]
    }

    /// Steps from the start of the run to a phase, along the policies it started from: a control lies beside its round.
    pub fn steps_before(&self, name: &str) -> u64 {
        let find = |name: &str| self.phases.iter().find(|phase| phase.name == name);
        let parent = |phase: &&Phase| find(&phase.start).filter(|parent| parent.name != phase.name);
        let path = std::iter::successors(find(name).as_ref().and_then(parent), parent);
        // No run has a longer path than phases; a damaged file might turn in circles.
        path.take(self.phases.len()).map(|phase| phase.steps).sum()
    }

    /// The phase whose steps were last heard of.
    pub fn current(&self) -> Option<&Phase> {
        self.phases.iter().rev().find(|phase| !phase.batches.is_empty())
    }

    /// The last step.
    pub fn last(&self) -> Option<&StepFigures> {
        self.current().and_then(|phase| phase.batches.last())
    }

    /// Held-out dimensions, in the order they were first measured.
    pub fn dimensions(&self) -> Vec<&str> {
        let mut dimensions = vec![];
        for measured in &self.measured {
            if !dimensions.contains(&measured.dimension.as_str()) {
                dimensions.push(&measured.dimension);
            }
        }
        dimensions
    }

    /// Seconds that the steps to come take, at the speed of the last ones; evaluation is not counted.
    pub fn seconds_left(&self) -> Option<f64> {
        let recent = |phase: &Phase| {
            let last: Vec<f64> = phase.batches.iter().rev().take(RECENT).map(|figures| figures.seconds).collect();
            (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64)
        };
        let latest = recent(self.current()?)?;
        let open = self.phases.iter().filter(|phase| !phase.done);
        let left = |phase: &Phase| phase.steps.saturating_sub(phase.batches.last().map_or(0, |figures| figures.step));
        Some(open.map(|phase| left(phase) as f64 * recent(phase).unwrap_or(latest)).sum())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use spo_eval::{Bootstrap, PairScore, score_dimension};

    use super::*;

    /// A batch of a made-up run.
    pub fn figures(phase: &str, step: u64, steps: u64) -> StepFigures {
        let done = step as f64 / steps as f64;
        StepFigures {
            phase: phase.into(),
            step,
            steps,
            epoch: 2.0 * done,
            loss: 0.7 - 0.4 * done,
            grad_norm: 1.5,
            learning_rate: 5e-4,
            accuracy: Some(0.5 + 0.3 * done),
            margin: Some(3.0 * done),
            chosen_log_ratio: Some(-done),
            rejected_log_ratio: Some(-2.0 * done),
            chosen_tokens: Some(12.0),
            kl: None,
            degree_accuracy: None,
            degree_loss: None,
            signal_to_noise: None,
            score: None,
            answer_tokens: None,
            replayed: vec![],
            margin_offset: None,
            tokens: 1000,
            seconds: 0.5,
            memory_bytes: 300 << 20,
        }
    }

    /// Events of a run in its second round.
    pub fn events() -> Vec<Event> {
        let score = |policy: &str, dimension: &str, right: usize| {
            let pair = |example| PairScore {
                example,
                margin: if example < right { 1.5 } else { -0.5 },
                ..PairScore::default()
            };
            let pairs: Vec<PairScore> = (0..20).map(pair).collect();
            score_dimension(policy, dimension, &pairs, &Bootstrap { resamples: 100, seed: 0 }).unwrap()
        };
        let mut events = vec![Event::RunStarted {
            name: "demo".into(),
            version: "0.1.0".into(),
            device: "cpu".into(),
            dtype: "f32".into(),
            family: "llama".into(),
            parameters: 260_032,
            trainable: 260_032,
            phases: vec![("round-1-honesty".into(), 40), ("round-2-helpfulness".into(), 40)],
        }];
        let started = |phase: &str, dimension: &str, start: &str| Event::PhaseStarted {
            phase: phase.into(),
            dimension: dimension.into(),
            objective: "dpo".into(),
            control: false,
            start: start.into(),
            pairs: 100,
            steps: 40,
            margin_offset: None,
        };
        events.push(started("round-1-honesty", "honesty", "start"));
        events.extend((1..=40).map(|step| Event::Step(figures("round-1-honesty", step, 40))));
        events.push(Event::PhaseFinished {
            phase: "round-1-honesty".into(),
            seconds: 20.0,
            tokens: 40_000,
            peak_bytes: 310 << 20,
            processes: vec![],
        });
        events.push(Event::Evaluated {
            policy: "round-1-honesty".into(),
            step: 40,
            scores: vec![score("round-1-honesty", "honesty", 15), score("round-1-honesty", "helpfulness", 6)],
            margins: vec![],
            prompts: vec![],
        });
        events.push(started("round-2-helpfulness", "helpfulness", "round-1-honesty"));
        events.extend((1..=10).map(|step| Event::Step(figures("round-2-helpfulness", step, 40))));
        events.push(Event::Warning { text: "round-2-helpfulness step 10: made up".into() });
        events
    }

    pub fn board() -> Board {
        let mut board = Board::default();
        for (index, event) in events().iter().enumerate() {
            board.add(0.5 * index as f64, event);
        }
        board
    }

    #[test]
    fn a_board_knows_where_the_run_is() {
        let board = board();
        assert_eq!(board.current().unwrap().name, "round-2-helpfulness");
        assert_eq!(board.last().unwrap().step, 10);
        assert_eq!(board.dimensions(), ["honesty", "helpfulness"]);
        assert_eq!(board.seconds_left(), Some(15.0), "30 steps of half a second");
        assert_eq!(board.measured[0].accuracy, 0.75);
        assert_eq!([board.steps_before("round-1-honesty"), board.steps_before("round-2-helpfulness")], [0, 40]);
        assert!(!board.finished && board.phases[0].done);
        assert_eq!(Board::default().seconds_left(), None);
    }
}
