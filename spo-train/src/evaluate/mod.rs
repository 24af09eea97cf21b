//! What a policy is worth on held-out rows: pair scores and rewards of a finished policy, losses and margins of a running
//! one.

pub(crate) mod asked;
pub mod held_out_loss;
pub mod labelled_set;
pub(crate) mod own_rewards;
pub(crate) mod steered;
