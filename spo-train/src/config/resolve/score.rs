//! What a round whose loss is a scorer's opinion of sampled answers must have, and may not.

use super::Resolver;
use crate::config::defaults;
use crate::config::plan::{ArmPlan, DataShape, TrainingPlan};

/// What is wrong, and what to do about it.
type Fault = (&'static str, &'static str);

/// A round that nobody scores.
pub(super) const NO_SCORER: Fault = (
    "`score` is what a scorer says of sampled answers, and the round names none",
    "`online = { scorer = \"rules:length=40\" }` in the round; `spo list scorers` shows all",
);

impl Resolver<'_> {
    /// Why an arm cannot go by the scores of its answers, where it does.
    pub(super) fn score_fault(&self, data: DataShape, training: &TrainingPlan) -> Option<Fault> {
        let written = self.sections.evaluation.as_ref().and_then(|evaluation| evaluation.kl_samples);
        let held_out = written.or(defaults::evaluation().kl_samples).unwrap_or(0);
        match data {
            DataShape::Prompts if !training.optimizer.is_zeroth_order() => Some((
                "`score` has no gradient, which \"adamw\" goes by: an answer is drawn, and a scorer is a black box",
                "set `optimizer = \"subzero\"` or \"mezo\"; an objective on pairs, such as `dpo`, learns by gradients from the \
                 pairs that `online` makes",
            )),
            DataShape::Prompts if training.eval_every > 0 && held_out == 0 => Some((
                "`eval-every` scores answers to `kl-samples` held-out prompts, and that is 0",
                "raise `evaluation.kl-samples`, or leave `eval-every` out",
            )),
            _ => None,
        }
    }
}

/// The first arm of an online round that does not learn from what is made of its answers: pairs, or with `score` nothing
/// but a mean.
pub(super) fn made_fault(arms: &[ArmPlan], scored: bool) -> Option<(String, &'static str)> {
    let (shape, made, hint) = match scored {
        true => {
            let made = "the round's answers are not made into pairs but scored: that is its loss";
            (DataShape::Prompts, made, "give the control the objective `score`, with other settings")
        }
        false => (
            DataShape::Pairs,
            "answers are made into pairs",
            "an objective on pairs, such as `dpo`, or `spo data label` and a round on its file",
        ),
    };
    let arm = arms.iter().find(|arm| arm.data != shape)?;
    Some((format!("`{}` learns from {}, and {made}", arm.objective, arm.data.words()), hint))
}
