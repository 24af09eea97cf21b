//! The help of every command, as it is printed.
#![allow(clippy::unwrap_used)]

use std::process::Command;

fn help(command: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_spo")).args(command).arg("--help").env_remove("COLUMNS").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_of_every_command() {
    let mut all = help(&[]);
    for command in [
        &["quickstart"][..],
        &["init"],
        &["plan"],
        &["train"],
        &["sweep"],
        &["watch"],
        &["serve"],
        &["eval"],
        &["score"],
        &["generate"],
        &["export"],
        &["bench"],
        &["data"],
        &["data", "check"],
        &["data", "preview"],
        &["data", "conflict"],
        &["tokenize"],
        &["render"],
        &["loss"],
        &["list"],
    ] {
        all += &format!("\n=== spo {} ===\n{}", command.join(" "), help(command));
    }
    insta::assert_snapshot!(all);
}
