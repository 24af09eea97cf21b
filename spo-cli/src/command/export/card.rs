//! The model card of an upload: how the model was made, from what, how it did, and how to tell that it is the same.

use std::fmt::Write;
use std::path::Path;

use spo_eval::{RoundSummary, RunSummary, report};
use spo_hub::Name;
use spo_model::export::Parity;
use spo_train::config::RunPlan;

use crate::error::CliError;
use crate::places::run_of;

/// What was written.
pub(super) struct Facts<'a> {
    pub path: &'a Path,
    pub dtype: &'a str,
    pub parity: &'a Parity,
}

/// The card, with what the run knows where a run made the model.
pub(super) fn text(target: &Name, model: &Path, facts: &Facts<'_>) -> Result<String, CliError> {
    let run = run_of(model).map(|(run, _)| run);
    let plan = run.as_deref().map(RunPlan::read).transpose()?;
    let summary = run.as_deref().map(summary).transpose()?.flatten();
    let mut text = front_matter(plan.as_ref(), facts);
    let title = target.id.rsplit('/').next().unwrap_or(&target.id);
    let _ = writeln!(text, "# {title}\n");
    match (&plan, &summary) {
        (Some(plan), Some(summary)) => of_run(&mut text, plan, summary),
        _ => {
            let _ = writeln!(text, "Exported from `{}`.\n", name_of(model));
        }
    }
    let _ = writeln!(
        text,
        "## Files\n\nWeights in {}. Read back, the log-probabilities of {} answers differ from those in memory by at most \
         {:.1e} nats (`manifest.json`).\n\nMade with spo {}.",
        facts.dtype,
        facts.parity.sequences,
        facts.parity.largest_difference,
        env!("CARGO_PKG_VERSION")
    );
    Ok(text)
}

/// What a person calls a path, without the directories of this machine.
fn name_of(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with("hf://") { text.into_owned() } else { file_name(path) }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn summary(run: &Path) -> Result<Option<RunSummary>, CliError> {
    let path = run.join("summary.json");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(report::from_json(&text)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::io(&path, error)),
    }
}

/// The head that the Hub reads. A licence follows from the base model's and the data's, which only a person can say.
fn front_matter(plan: Option<&RunPlan>, facts: &Facts<'_>) -> String {
    let gguf = facts.path.extension().is_some_and(|ending| ending == "gguf");
    let mut text = format!("---\nlibrary_name: {}\n", if gguf { "gguf" } else { "transformers" });
    let of_hub = |kind: &str| {
        let names = plan.into_iter().flat_map(|plan| &plan.hub).map(|located| located.asked.as_str());
        let names = names.filter(|name| name.starts_with("hf://datasets/") == (kind == "datasets"));
        let ids = names.map(|name| name.trim_start_matches("hf://").trim_start_matches("datasets/"));
        let ids = ids.map(|name| name.split('@').next().unwrap_or(name));
        ids.map(|name| name.split('/').take(2).collect::<Vec<_>>().join("/")).collect::<Vec<_>>()
    };
    for (key, names) in [("base_model", of_hub("models")), ("datasets", of_hub("datasets"))] {
        if !names.is_empty() {
            let _ = writeln!(text, "{key}:");
            names.iter().for_each(|name| text.push_str(&format!("- {name}\n")));
        }
    }
    text.push_str("tags:\n- spo\n- preference-optimization\n");
    let mut objectives: Vec<&str> =
        plan.into_iter().flat_map(|plan| &plan.rounds).map(|round| round.main().objective.as_str()).collect();
    objectives.dedup();
    objectives.retain(|name| *name != "spo");
    objectives.iter().for_each(|name| text.push_str(&format!("- {name}\n")));
    text.push_str("---\n\n");
    text
}

fn of_run(text: &mut String, plan: &RunPlan, summary: &RunSummary) {
    let model = plan.hub.iter().find(|located| located.path == plan.model.path);
    let base = model.map_or_else(|| file_name(&plan.model.path), |located| located.asked.clone());
    let dimensions: Vec<&str> = plan.rounds.iter().map(|round| round.dimension.as_str()).collect();
    let _ = writeln!(
        text,
        "`{base}` ({}, {} parameters, {}), trained on preferences in {} by run `{}`, seed {}.\n\n## Method\n",
        summary.model.family,
        summary.model.parameters,
        summary.model.method,
        dimensions.join(", then "),
        summary.name,
        summary.seed
    );
    text.push_str("| policy | dimension | objective | from | held | steps |\n|---|---|---|---|---|---|\n");
    for round in summary.rounds.iter().filter(|round| !round.control) {
        let _ = writeln!(text, "{}", method(plan, round));
    }
    text.push_str("\n## Data\n\n| dimension | split | pairs | prompts |\n|---|---|---|---|\n");
    for set in &summary.data {
        let _ = writeln!(text, "| {} | {} | {} | {} |", set.dimension, set.split, set.pairs, set.prompts);
    }
    let _ = writeln!(text, "\n## Evaluation\n\n```text\n{}\n```\n\n## Lineage\n", report::table(summary).trim_end());
    for artefact in &summary.lineage {
        let _ = writeln!(text, "- {}: `{}`", artefact.name, artefact.hash);
    }
    text.push('\n');
}

fn method(plan: &RunPlan, round: &RoundSummary) -> String {
    let held = round.lambda.iter().map(|(dimension, lambda)| format!("{dimension} (λ = {lambda})"));
    let held = held.collect::<Vec<_>>().join(", ");
    let steps =
        plan.rounds.iter().find(|of_plan| of_plan.name == round.policy).map(|round| round.main().training.steps);
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        round.policy,
        round.dimension,
        round.objective,
        round.reference,
        if held.is_empty() { "–".into() } else { held },
        steps.map_or("–".into(), |steps| steps.to_string())
    )
}
