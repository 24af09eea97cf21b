//! What a run will take, as text.

use std::fmt::Write;

use spo_eval::report::bytes;
use spo_train::forecast::{MemoryForecast, PhaseMemory, ProcessForecast};

/// Classes of the phase that takes most, and the other moments of the run.
pub(crate) fn memory_text(forecast: &MemoryForecast) -> String {
    let largest = forecast.phases.iter().max_by_key(|phase| phase.total).expect("a run has rounds");
    let PhaseMemory { phase, tokens, predicted, .. } = largest;
    let mut text = format!("  memory, about, in MiB on {}\n", forecast.device);
    if let Some(kept) = &forecast.kept {
        let _ = writeln!(text, "    {kept}");
    }
    let _ = writeln!(text, "    a step of {phase}, up to {tokens} tokens at once, {predicted} of them predicted");
    let (kept, recomputed) = (largest.activations_kept, largest.activations_recomputed);
    let mut line = |what: &str, bytes: usize| {
        let _ = writeln!(text, "    {what:<34}{:>10.1}", bytes as f64 / f64::from(1 << 20));
    };
    line("weights", largest.weights);
    line("adapters", largest.adapters);
    if largest.frozen > 0 {
        line("frozen policies", largest.frozen);
    }
    line("gradients", largest.gradients);
    line("optimiser", largest.optimizer);
    let mark = |chosen: bool| if chosen { " (this run)" } else { " (not this run)" };
    line(&format!("activations kept{}", mark(!largest.recomputes)), kept);
    line(&format!("  or recomputed{}", mark(largest.recomputes)), recomputed);
    line("head", largest.head);
    line("cache of log-probs", largest.cache);
    line("program, tokenizer and data", largest.program);
    line("held by the allocator", largest.allocator);
    line("this step", largest.total);
    if let Some(sampling) = forecast.sampling {
        line("sampling from a policy", sampling);
    }
    line("saving a policy, reading it back", forecast.saving);
    line("peak", forecast.peak);
    text
}

/// What each of several processes takes and gives, where the run can be shared.
pub(crate) fn processes_text(forecast: &[ProcessForecast]) -> String {
    let mut text = String::new();
    for of in forecast {
        let (memory, given) = (bytes(of.memory as u64), bytes(of.given_per_step));
        let (count, seconds) = (of.processes, of.seconds_per_step);
        let _ = writeln!(
            text,
            "  {count:>3} processes: each takes {memory}, and gives the others {given} in a step, about {seconds:.2} s"
        );
    }
    text
}
