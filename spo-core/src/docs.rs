//! The reference of all objectives, made of the registry: what documentation and `list` commands show.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::objective::{Entry, OptionDoc, modifier, registry};

const HEAD: &str = "# Objectives

Generated from the registry; do not edit by hand.

Notation: `lw`, `ll` are the log-ratios `log π/π_ref` of the chosen and the rejected answer, `d = lw − ll`, `|y|` the
length of an answer in tokens, `σ` the logistic function, `Δf = f(y_w) − f(y_l)`. `log π(y)` is the sum of the answer's
token log-probabilities; prompt tokens do not count. Gradients are of one pair's loss with respect to the policy's
sequence log-probabilities, of a loss on rewards with respect to the rewards r. A batch's loss is the mean over its pairs.
";

/// The reference page, in Markdown.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    page.push_str("\n| name | data | needs |\n|---|---|---|\n");
    for entry in registry() {
        let name = entry.name;
        push(&mut page, format_args!("| [{name}](#{name}) | {} | {} |\n", entry.build.takes(), needs(entry)));
    }
    page.push_str("\n## Options of every paired objective\n");
    options(&mut page, modifier::OPTIONS);
    for entry in registry() {
        section(&mut page, entry);
    }
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes any text");
}

fn needs(entry: &Entry) -> String {
    let words = entry.needs.words();
    if words.is_empty() { "nothing but the policy".into() } else { words.join(", ") }
}

fn section(page: &mut String, entry: &Entry) {
    push(page, format_args!("\n## {}\n\n```text\n{}\n```\n\n", entry.name, entry.formula));
    push(page, format_args!("- When: {}\n- Needs: {}.\n", entry.when, needs(entry)));
    push(page, format_args!("- Gradient: {}\n- Limits: {}\n", entry.gradient, entry.limits));
    push(page, format_args!("- Source: {}\n", entry.paper));
    if !entry.aliases.is_empty() {
        push(page, format_args!("- Also called: {}\n", entry.aliases.join(", ")));
    }
    if entry.build.pair().is_some() {
        let divergence = if entry.difference_only { "any `divergence`" } else { "the reverse KL only" };
        push(page, format_args!("- Regulariser: {divergence}.\n"));
    }
    options(page, entry.options);
}

fn options(page: &mut String, options: &[OptionDoc]) {
    if options.is_empty() {
        return;
    }
    page.push_str(
        "\n| option | default | accepted | meaning | where the default comes from |\n|---|---|---|---|---|\n",
    );
    for option in options {
        let default = if option.default == "null" { "none".to_owned() } else { format!("`{}`", option.default) };
        let row = [&format!("`{}`", option.key), &default, &option.expected(), option.meaning, option.source];
        push(page, format_args!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | ")));
    }
}

/// The registry as JSON: a list of `{name, aliases, data, formula, gradient, needs, when, limits, paper, options}`.
pub fn catalogue() -> Value {
    let option = |option: &OptionDoc| {
        json!({
            "name": option.key,
            "default": option.default_value(),
            "accepted": option.expected(),
            "meaning": option.meaning,
            "source": option.source,
        })
    };
    let entry = |entry: &Entry| {
        json!({
            "name": entry.name,
            "aliases": entry.aliases,
            "data": entry.build.takes(),
            "formula": entry.formula,
            "gradient": entry.gradient,
            "needs": entry.needs.words(),
            "when": entry.when,
            "limits": entry.limits,
            "paper": entry.paper,
            "options": entry.all_options().map(option).collect::<Vec<_>>(),
        })
    };
    registry().iter().map(entry).collect()
}
