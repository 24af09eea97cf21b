//! Models, adapters and their files. One program, so that burn is linked once.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod adapter_files;
mod attention;
mod configs;
mod experts;
mod export;
mod families;
mod forms;
mod front;
mod gguf;
mod golden;
mod malformed;
mod packed;
mod peft;
mod reward;
mod samples;
mod storage;
