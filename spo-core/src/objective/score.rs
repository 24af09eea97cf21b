//! The mean score of answers that the policy writes, as an objective: it has no form on numbers, and no gradient.

use super::Entry;
use super::entry::Build;

pub(crate) const ENTRY: Entry = Entry {
    name: "score",
    formula: "−s(x, y), y ~ π(·|x), s a scorer's opinion (`[rounds.online] scorer`)",
    gradient: "none: a token is drawn or it is not, and a scorer is a black box. Its slope along a direction is the difference of the loss at both sides, with the same random numbers (`optimizer = \"subzero\"` or `\"mezo\"`)",
    when: "What is wanted can only be measured: a program, a server, a rule, a reward model. The policy climbs the mean score of its own answers.",
    limits: "It needs a zeroth-order optimiser, and many times the steps of a loss with a gradient. Nothing holds the policy near its reference: a scorer that can be deceived will be.",
    paper: "Spall 1992 (two-sided estimate, common random numbers); non-differentiable objectives: Malladi et al. 2023 (MeZO), arXiv 2305.17333",
    ..Entry::new(Build::Score)
};
