//! What looks wrong before a run begins.

use super::{MemoryForecast, PhaseForecast};
use crate::memory;
use crate::run::Prepared;
use spo_model::device::on_cpu;

/// Held-out pairs below which an accuracy says little: its 95 % interval is wider than 0.2.
const FEW_HELD_OUT: usize = 96;

pub(super) fn of(prepared: &Prepared, phases: &[PhaseForecast], need: &MemoryForecast) -> Vec<String> {
    let (plan, mut warnings) = (&prepared.plan, vec![]);
    let out = plan.out.display();
    if plan.out.join(crate::manifest::FILE).exists() {
        warnings.push(format!(
            "{out} holds a run already: `spo train --resume {out}` goes on with it, --out names another"
        ));
    }
    for phase in phases.iter().filter(|phase| phase.epochs < 1.0) {
        let (share, rows) = (100.0 * phase.epochs, phase.rows);
        warnings.push(format!("{} sees {share:.0} % of its {rows} rows: raise steps, or set epochs", phase.phase));
    }
    for summary in prepared.held_out.summaries().iter().filter(|summary| summary.pairs < FEW_HELD_OUT) {
        let (pairs, dimension) = (summary.pairs, &summary.dimension);
        warnings.push(format!("only {pairs} held-out pairs of {dimension}: its accuracies will be rough"));
    }
    for set in [&prepared.train, &prepared.held_out] {
        for (reason, count) in set.dataset.report.counts() {
            warnings.push(format!("{}: {count} rows {} (`spo data check` names them)", set.split, reason.describe()));
        }
    }
    if plan.checkpoints.every_steps == 0 && plan.checkpoints.every_minutes == 0.0 {
        warnings
            .push("no checkpoints inside rounds: what a crash interrupts is done again from the round's start".into());
    }
    let available = memory::available_bytes();
    if on_cpu(&prepared.device) && available > 0 && need.peak as u64 > available {
        let gibibytes = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        warnings.push(format!(
            "training needs about {:.1} GiB of memory, and {:.1} GiB are free: [lora], a 16-bit dtype or \
             recompute = \"blocks\" take less",
            gibibytes(need.peak as u64),
            gibibytes(available)
        ));
    }
    warnings
}
