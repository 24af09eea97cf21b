//! A plan as text for 100 columns.

use std::fmt::Write;

use serde_json::Value;
use spo_eval::report::{bytes, count};
use spo_train::config::{PlanLine, RunPlan};
use spo_train::forecast::{Forecast, Speed, StageSummary};

use super::memory::{memory_text, processes_text};
use super::words;

/// Widest line that holds key, value and origin.
const WIDTH: usize = 100;
/// Where origins begin, at the earliest.
const VALUE: usize = 28;

/// Every value with its origin, grouped by table.
pub(crate) fn plan_text(plan: &RunPlan) -> String {
    let lines = plan.lines();
    let width = lines.iter().map(|line| split(line).1.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut current = "";
    for line in &lines {
        let (table, key) = split(line);
        if table != current {
            let _ = writeln!(text, "\n{table}");
            current = table;
        }
        let (value, origin) = (shown(&line.value), line.origin.to_string());
        let whole = format!("  {key:<width$}  {value:<VALUE$}  {origin}");
        let _ = match value.chars().count() <= VALUE && whole.chars().count() <= WIDTH {
            true => writeln!(text, "{whole}"),
            false => writeln!(text, "  {key:<width$}  {value}\n{origin:>WIDTH$}"),
        };
    }
    text
}

/// Every stage of a run in order, with its rows and tokens.
pub(crate) fn stages_text(stages: &[StageSummary]) -> String {
    let title = "stages, in order";
    let name = stages.iter().map(|stage| stage.stage.chars().count()).chain([title.len()]).max().unwrap_or(0);
    let line = |name_of: &str, cells: [String; 5]| {
        let [rows, steps, trained, scored, sampled] = cells;
        let line = format!("  {name_of:<name$} {rows:>9} {steps:>7} {trained:>12} {scored:>12} {sampled:>12}");
        format!("{}\n", line.trim_end())
    };
    let heads = ["rows", "steps", "trained", "scored", "sampled <="].map(str::to_owned);
    let mut text = format!("\n{}", line(title, heads));
    let shown = |number: u64| if number > 0 { count(number) } else { String::new() };
    for stage in stages {
        let numbers = [stage.rows as u64, stage.steps, stage.trained_tokens, stage.scored_tokens, stage.sampled_tokens];
        text += &line(&stage.stage, numbers.map(shown));
    }
    text
}

/// What a run will do, under its values.
pub(crate) fn forecast_text(forecast: &Forecast) -> String {
    let mut text = String::from("\nwhat the run will do\n");
    let mut line = |words: String| {
        let _ = writeln!(text, "  {}", words.trim_end());
    };
    let name = forecast.phases.iter().map(|phase| phase.phase.len()).chain([20]).max().unwrap_or(0);
    line(format!(
        "{:<name$} {:>9} {:>7} {:>7} {:>12} {:>6} {:>12}",
        "optimiser steps", "rows", "steps", "epochs", "tokens", "evaluations", "their tokens"
    ));
    for phase in &forecast.phases {
        let (evaluations, tokens) = if phase.evaluation_tokens > 0 {
            (count(phase.evaluations), count(phase.evaluation_tokens))
        } else {
            Default::default()
        };
        line(format!(
            "{:<name$} {:>9} {:>7} {:>7.2} {:>12} {evaluations:>6} {tokens:>12}",
            phase.phase,
            count(phase.rows as u64),
            phase.steps,
            phase.epochs,
            count(phase.tokens)
        ));
    }
    for (phase, written) in forecast.phases.iter().filter_map(|phase| Some((&phase.phase, phase.written.as_ref()?))) {
        let (answers, tokens) = (count(written.answers_per_step as u64), count(written.tokens_per_step));
        let all = count(written.tokens);
        line(format!("{phase}: each step samples {answers} answers, at most {tokens} tokens; {all} in all steps"));
    }
    forecast.mix.iter().for_each(|entry| line(entry.line()));
    line(format!("{:<name$} {:>9} {:>7} {:>7} {:>12}", "scored once, cached", "answers", "", "", "tokens"));
    for pass in &forecast.passes {
        line(format!(
            "{:<name$} {:>9} {:>7} {:>7} {:>12}",
            pass.policy,
            count(pass.answers as u64),
            "",
            "",
            count(pass.tokens)
        ));
    }
    line(format!("{:<19} at most {} tokens", "sampled responses", count(forecast.sampled_tokens)));
    let disk = &forecast.disk;
    line(format!(
        "{:<19} {}: policies {}, model {},",
        "disk, at most",
        bytes(disk.total()),
        bytes(disk.policies),
        bytes(disk.model)
    ));
    let (checkpoints, log_probs) = (bytes(disk.checkpoints), bytes(disk.log_probs));
    line(format!("{:<19} checkpoints {checkpoints}, log-probs {log_probs}", ""));
    text += &memory_text(&forecast.memory);
    text += &processes_text(&forecast.processes);
    for phase in &forecast.phases {
        for replay in &phase.replayed {
            let rows = count(replay.rows as u64);
            let (pairs, dimension, phase) = (replay.pairs_per_step, &replay.dimension, &phase.phase);
            let _ = writeln!(text, "  replay {dimension} in {phase}: {pairs} pairs of each step, of {rows}");
        }
    }
    for hold in &forecast.holds {
        let (driving, judging) = (count(hold.driving as u64), count(hold.judging as u64));
        let what = hold.samples.map_or("pairs".into(), |samples| format!("prompts × {samples} answers of its own"));
        let judges =
            if hold.samples.is_some() { "held-out prompts judge, with fresh answers" } else { "held-out pairs judge" };
        let _ = writeln!(
            text,
            "  hold {} in {}: {driving} {what} drive λ in {} updates, {judging} {judges}",
            hold.dimension, hold.phase, hold.updates
        );
    }
    let mut line = |line: String| {
        let _ = writeln!(text, "  {line}");
    };
    match (&forecast.speed, forecast.seconds) {
        (Some(speed), Some(seconds)) => measured(speed, seconds).into_iter().for_each(&mut line),
        _ => line(format!("{:<19} --measure runs a few steps and tells", "time")),
    }
    for warning in &forecast.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn measured(speed: &Speed, seconds: f64) -> Vec<String> {
    let rates: Vec<f64> = speed.training.iter().map(|(_, rate)| *rate).collect();
    let (least, most) =
        rates.iter().fold((f64::MAX, 0.0_f64), |(least, most), rate| (least.min(*rate), most.max(*rate)));
    let sampled = speed.sampling.map_or(String::new(), |rate| format!(", {rate:.0} sampled"));
    let mut lines = vec![format!("{:<19} {}, without loading and saving", "time, about", words::duration(seconds))];
    let scored = if speed.scoring.is_finite() { format!("{:.0} scored", speed.scoring) } else { "none scored".into() };
    match rates.is_empty() {
        true => lines.push(format!("{:<19} tokens/s: {scored}{sampled}", "measured")),
        false => {
            let steps = speed.steps;
            lines.push(format!(
                "{:<19} {least:.0} to {most:.0} tokens/s trained in {steps} steps of each phase,",
                "measured"
            ));
            lines.push(format!("{:<19} {scored}{sampled}", ""));
        }
    }
    if speed.peak_bytes > 0 {
        lines.push(format!(
            "{:<19} at most {} in memory, the program and the data included",
            "",
            bytes(speed.peak_bytes)
        ));
    }
    lines
}

/// Table and key. Options of an objective stand beside the other keys of their arm, as in the run file.
fn split(line: &PlanLine) -> (&str, &str) {
    match line.key.rsplit_once('.') {
        Some((table, key)) => (table.strip_suffix(".options").unwrap_or(table), key),
        None => ("", &line.key),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.trim() == text && !text.contains('\n') => text.clone(),
        other => other.to_string(),
    }
}
