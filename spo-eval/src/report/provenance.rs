//! Where a run comes from and what it cost: data, conflict, samples, time, warnings, hashes.

use crate::number::{bytes, count, duration, percent};
use crate::report::document::{Block, Section, Table};
use crate::{GateOutcome, ProcessCost, RunSummary, slow_process};

/// Every section about the origin of the numbers.
pub(crate) fn sections(summary: &RunSummary) -> Vec<Section> {
    vec![warnings(summary), gates(summary), data(summary), samples(summary), cost(summary), lineage(summary)]
}

fn warnings(summary: &RunSummary) -> Section {
    let mut section = Section::new("Warnings");
    if !summary.warnings.is_empty() {
        section.blocks.push(Block::List(summary.warnings.clone()));
    }
    section
}

fn gates(summary: &RunSummary) -> Section {
    let mut section = Section::new("Gates");
    let rows = summary.gates.iter().flat_map(|gate| {
        gate.checks.iter().map(|check| {
            vec![
                gate.policy.clone(),
                check.what.clone(),
                check.wanted.clone(),
                if check.passed { "met".to_owned() } else { "missed".to_owned() },
                format!("{:.4}", check.found),
            ]
        })
    });
    section.table(Table::of_rows("", 4, &["policy", "what", "wanted", "result", "found"], rows.collect()));
    for gate in &summary.gates {
        match gate.outcome {
            GateOutcome::RolledBack => {
                let why = "because its last one missed the gate";
                section.text(format!("{} went back to an earlier policy, {why}.", gate.policy));
            }
            GateOutcome::WentOn => section.text(format!("{} missed its gate, and the run went on.", gate.policy)),
            GateOutcome::Passed | GateOutcome::Stopped => {}
        }
    }
    section
}

fn data(summary: &RunSummary) -> Section {
    let mut section = Section::new("Data");
    let row = |set: &crate::DataSummary| {
        let dropped: Vec<String> = set.dropped.iter().map(|(reason, rows)| format!("{reason}: {rows}")).collect();
        vec![
            set.dimension.clone(),
            set.split.clone(),
            if dropped.is_empty() { "none".to_owned() } else { dropped.join(", ") },
            set.pairs.to_string(),
            set.prompts.to_string(),
            set.boilerplate.to_string(),
        ]
    };
    section.table(Table::of_rows(
        "Pairs",
        3,
        &["dimension", "split", "left out", "pairs", "prompts", "with boilerplate"],
        summary.data.iter().map(row).collect(),
    ));
    // Every dimension of a split names the columns of the split's files.
    let mut unused: Vec<String> = vec![];
    for line in summary.data.iter().flat_map(|set| &set.unused) {
        if !unused.contains(line) {
            unused.push(line.clone());
        }
    }
    if !unused.is_empty() {
        section.blocks.push(Block::List(unused));
    }
    let row = |pair: &crate::ConflictCount| {
        let labelled = pair.agreeing + pair.conflicting;
        let share = if labelled == 0 { 0.0 } else { pair.conflicting as f64 / labelled as f64 };
        vec![
            format!("{} and {}", pair.first, pair.second),
            pair.split.clone(),
            pair.agreeing.to_string(),
            pair.conflicting.to_string(),
            pair.conflicting_boilerplate.to_string(),
            percent(share),
        ]
    };
    section.table(Table::of_rows(
        "Pairs labelled in both dimensions",
        2,
        &["dimensions", "split", "agreeing", "conflicting", "of these with boilerplate", "conflicting %"],
        summary.conflict.iter().map(row).collect(),
    ));
    section
}

fn samples(summary: &RunSummary) -> Section {
    let mut section = Section::new("Samples");
    if !summary.samples.is_empty() {
        section.blocks.push(Block::Samples(summary.samples.clone()));
    }
    section
}

fn cost(summary: &RunSummary) -> Section {
    let mut section = Section::new("Time and memory");
    let row = |phase: &crate::Phase| {
        let rate = |tokens: u64| count((tokens as f64 / phase.seconds) as u64);
        vec![
            phase.name.clone(),
            duration(phase.seconds),
            phase.tokens.map_or("–".to_owned(), count),
            phase.tokens.filter(|_| phase.seconds > 0.0).map_or("–".to_owned(), rate),
            phase.peak_bytes.map_or("–".to_owned(), bytes),
        ]
    };
    let header = ["phase", "time", "tokens", "tokens/s", "peak memory"];
    section.table(Table::of_rows("", 1, &header, summary.timing.iter().map(row).collect()));
    let shared = || summary.timing.iter().filter(|phase| !phase.processes.is_empty());
    let header = ["phase", "process", "tokens", "tokens/s", "waited", "exchanging", "given", "peak memory"];
    section.table(Table::of_rows("Processes", 1, &header, shared().flat_map(processes).collect()));
    let slow: Vec<String> = shared().filter_map(slow).collect();
    if !slow.is_empty() {
        section.blocks.push(Block::List(slow));
    }
    section
}

/// A row for each of the processes that shared a phase.
fn processes(phase: &crate::Phase) -> Vec<Vec<String>> {
    let row = |(rank, cost): (usize, &ProcessCost)| {
        let rate = (cost.seconds > 0.0).then(|| count((cost.tokens as f64 / cost.seconds) as u64));
        vec![
            phase.name.clone(),
            rank.to_string(),
            count(cost.tokens),
            rate.unwrap_or_else(|| "–".to_owned()),
            duration(cost.waited),
            duration(cost.exchanged),
            bytes(cost.bytes),
            if cost.peak_bytes > 0 { bytes(cost.peak_bytes) } else { "–".to_owned() },
        ]
    };
    phase.processes.iter().enumerate().map(row).collect()
}

/// That the others waited for one of the processes, where they did.
fn slow(phase: &crate::Phase) -> Option<String> {
    let waited: Vec<f64> = phase.processes.iter().map(|cost| cost.waited).collect();
    let total = |cost: &ProcessCost| cost.seconds + cost.waited + cost.exchanged;
    let (rank, share) = slow_process(&waited, phase.processes.iter().map(total).fold(0.0, f64::max))?;
    Some(format!(
        "{}: process {rank} is slow: for {} % of the steps' time another one waited for it",
        phase.name,
        percent(share)
    ))
}

fn lineage(summary: &RunSummary) -> Section {
    let mut section = Section::new("Model, versions, lineage");
    let model = &summary.model;
    let known = [
        ("model", model.name.clone()),
        ("family", model.family.clone()),
        ("method", model.method.clone()),
        ("precision", model.precision.clone()),
        ("device", model.device.clone()),
        ("parameters", count(model.parameters)),
        ("trained parameters", count(model.trainable)),
        ("seed", summary.seed.to_string()),
    ];
    let facts = known.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value));
    let versions =
        summary.versions.iter().map(|(component, version)| (format!("version of {component}"), version.clone()));
    let rows = facts.chain(versions).map(|(key, value)| vec![key, value]).collect();
    section.table(Table::of_rows("", 2, &["", ""], rows));
    if !summary.lineage.is_empty() {
        section.blocks.push(Block::Hashes(summary.lineage.clone()));
    }
    section
}
