//! The help of every command, as it is printed.

use std::process::Command;

fn help(command: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_spo")).args(command).arg("--help").env_remove("COLUMNS").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

/// A command's help and, behind it, that of the commands below it.
fn all(command: &[&str], text: &mut String) {
    let own = help(command);
    if !command.is_empty() {
        *text += &format!("\n=== spo {} ===\n", command.join(" "));
    }
    *text += &own;
    for name in listed(&own) {
        all(&[command, &[&name]].concat(), text);
    }
}

#[test]
fn help_of_every_command() {
    let mut text = String::new();
    all(&[], &mut text);
    assert!(text.contains("=== spo data check ==="), "{text}");
    insta::assert_snapshot!(text);
}
