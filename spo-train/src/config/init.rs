//! The run file `spo init` writes.

/// A commented run file with two rounds and a control arm.
pub fn template() -> String {
    include_str!("template.toml").to_owned()
}
