//! Run files, runs and what they leave. One program, so that burn is linked once.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../broken_off/mod.rs"]
mod broken_off;
#[path = "../built_in/mod.rs"]
mod built_in;
#[path = "../common/mod.rs"]
mod common;
#[path = "../left/mod.rs"]
mod left;
#[path = "../told/mod.rs"]
mod told;

mod adapter_runs;
mod black_box;
mod conditioned;
mod config;
mod config_errors;
mod cumulative;
mod custom_loop;
mod degrees;
mod every_key;
mod every_objective;
mod experts;
mod families;
mod floats;
mod front;
mod hold;
mod hold_samples;
mod joint;
mod launches;
mod loss_scale;
mod main_job;
mod memory_check;
mod meta;
mod np_btl;
mod online;
mod optimizer;
mod peft_gradients;
mod projected;
mod recipes_subzero;
mod replay;
mod resume;
mod rewards;
mod score;
mod steering;
mod step;
mod stopping;
mod study;
mod sweep;
mod trl_curves;
mod trl_gradient_norms;
mod watchdogs;
mod zeroth_order;
mod zeroth_order_identities;
mod zeroth_order_runs;
