//! The Hub: downloads and uploads. One program, so that burn is linked once.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;
#[path = "../common/targets.rs"]
mod targets;

mod fetch;
mod fuzz_seeds;
mod push;
