//! `[evaluation]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spo_score::ScorerSpec;

/// `[evaluation]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EvaluationSpec {
    /// Resamples of the bootstrap intervals (by prompt); a 95 % interval needs one in each tail.
    #[schemars(range(min = 40))]
    pub bootstrap_resamples: Option<usize>,
    /// Held-out prompts on which responses are sampled to estimate the KL divergence; 0 = no estimate.
    pub kl_samples: Option<usize>,
    /// Longest sampled response, in tokens.
    #[schemars(range(min = 1))]
    pub kl_max_new_tokens: Option<usize>,
    /// Sampling temperature. The estimate is only one of the policy itself at 1.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub kl_temperature: Option<f64>,
    /// At each of `eval-every`'s looks, also estimate the KL divergence of the running policy from the start: with the
    /// accuracies that is the round's path, on which policies can be compared at equal KL. Each look then samples responses,
    /// and reads the start again.
    pub kl_path: Option<bool>,
    /// Also keep, for each held-out prompt, how many of its pairs each policy gets right: what a study over several parts of
    /// the prompts (`holdout-fold`) draws its intervals from.
    pub by_prompt: Option<bool>,
    /// Training pairs of each dimension on which the gradients of the round's own loss and of the earlier rounds' losses, or
    /// of all dimensions that a round weighs, are compared: their inner products and cosines. 0 = not at all. Each look costs
    /// a backward pass over them and changes nothing.
    pub gradient_pairs: Option<usize>,
    /// Optimiser steps from one such look to the next; the first is before the first step.
    #[schemars(range(min = 1))]
    pub gradient_every: Option<u64>,
    /// Held-out prompts answered by every policy, shown side by side in the report.
    pub samples: Option<usize>,
    /// Further prompts of your own, shown the same way.
    pub sample_prompts: Option<Vec<String>>,
    /// Who scores the responses that are sampled on held-out prompts (`kl-samples` of them), after every round: the report has
    /// each policy's mean score and its win rate against the start. `spo list scorers` shows the kinds.
    pub scorer: Option<ScorerSpec>,
    /// A program that measures every policy after its round, and the start before: its words, in a shell's quoting, though no
    /// shell runs it. `{policy}` in them is the policy's directory, `{base}` that of the model an adapter belongs to, `{name}`
    /// the policy's name. It runs in the run file's directory and writes a JSON object to standard output, whose numbers go
    /// into the report.
    pub command: Option<String>,
    /// Seconds that `command` may take for a policy.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub command_timeout: Option<f64>,
    /// Answers that say nothing, such as "I have no comment." Pairs with one of them are counted apart, so that the table
    /// also shows what is left without them.
    pub boilerplate: Option<Vec<String>>,
}
