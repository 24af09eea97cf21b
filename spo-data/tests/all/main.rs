//! Files, rows, templates and tokens. One program, so that burn is linked once.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/targets.rs"]
mod targets;

mod chats;
mod columnar;
mod encoding;
mod fuzz_seeds;
mod layouts;
mod loading;
mod nothing_lost;
mod robust;
mod settings;
mod templates;
mod tokenizers;
