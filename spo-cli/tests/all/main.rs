//! The program, as its users start it. One program, so that burn is linked once.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../../../spo-train/tests/left/mod.rs"]
mod left;
#[path = "../../../spo-hub/tests/support/mod.rs"]
// It hashes with `sha1` and `sha2`.
mod server;
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod best;
mod commands;
mod dependencies;
mod faults;
mod front;
mod generation;
mod gguf;
mod goals;
mod help;
mod hub;
mod merge;
mod meta;
mod np_btl;
mod own_layout;
mod processes;
mod recipes;
mod resume;
mod rooms;
mod scorers;
mod serve;
mod steer;
mod track;
mod unused_columns;
