//! Scorers. One program, so that burn is linked once.
#![allow(clippy::unwrap_used)]

mod command;
mod http;
mod reward_model;
mod rules;
