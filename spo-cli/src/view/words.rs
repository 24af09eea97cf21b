//! Events in words.

use std::path::{Path, PathBuf};

use spo_eval::report::bytes;
use spo_eval::{ConflictCount, DataSummary, DimensionScore, GateOutcome, GradientGram, Subset};
use spo_train::events::{Held, HeldDimension, HeldOut, HeldOutDimension};
use spo_train::{Event, StepFigures};

/// `m:ss` since the start.
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    format!("[{:>2}:{:02}]", whole / 60, whole % 60)
}

/// The figures of one optimiser step.
pub(super) fn step(figures: &StepFigures) -> String {
    let StepFigures { phase, step, steps, epoch, .. } = figures;
    format!("{phase} step {step}/{steps}, epoch {epoch:.2}: {}", self::figures(figures))
}

/// The same without its place.
pub(super) fn figures(figures: &StepFigures) -> String {
    let mut words = vec![format!("loss {:.4}", figures.loss)];
    words.extend(figures.score.map(|score| format!("score {score:+.4}")));
    words.extend(figures.answer_tokens.map(|tokens| format!("{tokens:.0} tokens an answer")));
    words.extend(figures.margin.map(|margin| format!("margin {margin:+.3}")));
    words.extend(figures.accuracy.map(|accuracy| format!("accuracy {:.0} %", 100.0 * accuracy)));
    words.extend(figures.margin_offset.map(|margin_offset| format!("c {margin_offset:+.3}")));
    words.extend(figures.kl.map(|kl| format!("kl {kl:.3}")));
    words.extend(figures.degree_accuracy.map(|accuracy| format!("degrees {:.0} %", 100.0 * accuracy)));
    words.extend(figures.signal_to_noise.map(|signal| format!("signal/noise {signal:.0}")));
    words.extend(figures.replayed.iter().map(|of| format!("{} again {:.4}", of.dimension, of.loss)));
    words.push(format!("|grad| {:.3}", figures.grad_norm));
    words.push(format!("lr {:.2e}", figures.learning_rate));
    if figures.seconds > 0.0 {
        words.push(format!("{:.0} tokens/s", figures.tokens as f64 / figures.seconds));
    }
    words.extend((figures.memory_bytes > 0).then(|| format!("{} MiB", figures.memory_bytes >> 20)));
    words.join(", ")
}

/// The figures with the pass over the data and the time that is left.
pub(super) fn progress(figures: &StepFigures, seconds_left: Option<f64>) -> String {
    let mut words = vec![format!("epoch {:.2}", figures.epoch), self::figures(figures)];
    words.extend(seconds_left.map(|seconds| format!("{} left", duration(seconds))));
    words.join(", ")
}

/// `2:05`, `1:02:05`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole / 3600 {
        0 => format!("{}:{:02}", whole / 60, whole % 60),
        hours => format!("{hours}:{:02}:{:02}", whole / 60 % 60, whole % 60),
    }
}

/// A number in at most six characters or so, for axes.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// How far the reading of data is.
pub(super) fn reading(split: &str, rows: usize) -> String {
    format!("{split} data: {rows} rows read")
}

/// How far a download is.
pub(crate) fn downloading(done: u64, total: u64) -> String {
    format!("{} of {}", bytes(done), bytes(total))
}

/// The events that happen seldom; nothing for those that a bar shows.
pub(super) fn lines(event: &Event) -> Vec<String> {
    let line = match event {
        Event::RunStarted { name, device, dtype, family, parameters, trainable, phases, .. } => {
            let phases: Vec<String> = phases.iter().map(|(name, steps)| format!("{name} ({steps} steps)")).collect();
            let trained = if trainable == parameters { String::new() } else { format!(", {trainable} trained") };
            format!("{name}: {family}, {parameters} parameters{trained}, {dtype} on {device}; {}", phases.join(", "))
        }
        Event::DataLoaded { sets, conflicts } => return data(sets, conflicts),
        Event::Scored { policy, answers, cached, seconds, .. } => {
            format!("{policy} scored on {answers} answers ({cached} from the cache) in {seconds:.1} s")
        }
        Event::Front(front) => format!(
            "{} at {} weights, held out: hypervolume {:.4} ({:.4} to {:.4})",
            front.policy,
            front.points.len(),
            front.hypervolume,
            front.interval.0,
            front.interval.1
        ),
        Event::PairsMade(made) => format!(
            "{}: {} pairs of {} answers of {} to {} prompts; mean {} {:.3}, mean gap {:.3}",
            made.round,
            made.pairs,
            made.answers,
            made.policy,
            made.prompts,
            made.dimension,
            made.mean_score,
            made.mean_gap
        ),
        Event::DegreesClassified(score) => format!(
            "{}: the head names the degree of {:.1} % of {} held-out answers; by chance {:.1} %, by length {:.1} %",
            score.policy,
            100.0 * score.accuracy,
            score.answers,
            100.0 / score.degrees as f64,
            100.0 * score.length_accuracy
        ),
        Event::AnswersScored(scores) => format!(
            "{}: mean {} {:.3} ({:.3} to {:.3}) on {} responses",
            scores.policy, scores.dimension, scores.mean, scores.interval.0, scores.interval.1, scores.answers
        ),
        Event::Benchmarked(found) => {
            const SHOWN: usize = 6;
            let numbers = found.results.iter().take(SHOWN).map(|(name, value)| format!("{name} {value:.4}"));
            let more = if found.results.len() > SHOWN { ", …" } else { "" };
            let numbers = numbers.collect::<Vec<_>>().join(", ");
            format!("{}: {numbers}{more} by evaluation.command in {:.1} s", found.policy, found.seconds)
        }
        Event::WinRate(found) => format!(
            "{} against {}, {}: {}/{}/{} won/tied/lost, {:.1} %",
            found.a,
            found.b,
            found.dimension,
            found.wins,
            found.ties,
            found.losses,
            100.0 * found.rate
        ),
        Event::Steered(found) => format!(
            "{}: STEER {:.1} ({:.1} to {:.1}) between {} and {}, {}, {}",
            found.policy,
            found.steer,
            found.interval.0,
            found.interval.1,
            found.first,
            found.second,
            found.setting,
            found.arm.name()
        ),
        Event::Reused { policy, from } => format!("{policy} is taken over from {}", tidy(from)),
        Event::PhaseStarted { phase, dimension, objective, control, start, pairs, steps, .. } => {
            let control = if *control { ", a control" } else { "" };
            let rows = if objective == "score" { "prompts" } else { "pairs" };
            format!("{phase}: {objective} on {pairs} {rows} of {dimension}, {steps} steps from {start}{control}")
        }
        Event::HeldOut(found) => running(found),
        Event::Resumed { from, damaged } => {
            let damaged = damaged.iter().map(|fault| format!("damaged: {fault}"));
            return damaged.chain([format!("going on from {from}")]).collect();
        }
        Event::Evaluated { policy, step, scores, .. } => {
            format!("{policy} step {step}, held out: {}", held_out(scores))
        }
        Event::RunningKl { phase, step, estimate: kl } => {
            format!("{phase} step {step}: KL to {} = {:.2} ± {:.2} nats, sampled", kl.reference, kl.mean, kl.stderr)
        }
        Event::PhaseEnded { phase, step, steps, policy_of, reason } => {
            format!("{phase} ended after {step} of {steps} steps with the policy of step {policy_of}: {reason}")
        }
        Event::Held(held) => self::held(held),
        Event::Gradients(gram) if gram.coefficients.is_empty() => cosines(gram),
        Event::HoldJudged(hold) => format!(
            "{} holds {} {}{}: asked at least {}, reached {} ({} to {}), λ {:.3}",
            hold.round,
            hold.dimension,
            hold.measure,
            if hold.on == "samples" { " on samples" } else { "" },
            hold.value(hold.asked),
            hold.value(hold.reached),
            hold.value(hold.interval.0),
            hold.value(hold.interval.1),
            hold.lambda
        ),
        Event::GateChecked(gate) => match gate.outcome {
            GateOutcome::Passed => format!("{} passes its gate", gate.policy),
            GateOutcome::RolledBack => format!("{} passes its gate with an earlier policy", gate.policy),
            GateOutcome::WentOn => {
                format!("{} misses its gate, and the run goes on: {}", gate.policy, gate.missed().join("; "))
            }
            GateOutcome::Stopped => format!("{} misses its gate: {}", gate.policy, gate.missed().join("; ")),
        },
        Event::KlEstimated(kl) => {
            format!("KL({} ‖ {}) = {:.2} ± {:.2} nats, sampled", kl.policy, kl.reference, kl.mean, kl.stderr)
        }
        Event::PolicySaved { policy, path, drift, .. } => {
            format!("{policy} saved to {}; read back, log-probs differ by {drift:.1e}", tidy(path))
        }
        Event::ModelExported { policy, path, drift, quantisation_drift } => {
            let quantised =
                quantisation_drift.map(|drift| format!(", by {drift:.1e} from those on the quantised base"));
            let quantised = quantised.unwrap_or_default();
            format!("{policy} written to {}; read back, log-probs differ by {drift:.1e}{quantised}", tidy(path))
        }
        Event::PhaseFinished { phase, seconds, tokens, peak_bytes, .. } => {
            let speed = *tokens as f64 / seconds.max(f64::MIN_POSITIVE);
            let memory = match peak_bytes {
                0 => String::new(),
                bytes => format!(", at most {} MiB in memory", bytes >> 20),
            };
            format!("{phase} done in {seconds:.1} s, {speed:.0} tokens/s{memory}")
        }
        Event::SlowProcess { phase, step, process, share } => format!(
            "warning: {phase} step {step}: process {process} is slow: for {:.0} % of the time another one waited for it",
            100.0 * share
        ),
        Event::Warning { text } => format!("warning: {text}"),
        Event::RunStopped { reason } => format!("stopped: {reason}"),
        Event::RunFinished { seconds, model, report } => {
            format!("done in {seconds:.1} s; model {}, report {}", tidy(model), tidy(report))
        }
        _ => return vec![],
    };
    vec![line]
}

/// Per split: pairs, conflicts, rows left out.
fn data(sets: &[DataSummary], conflicts: &[ConflictCount]) -> Vec<String> {
    let mut splits: Vec<&str> = sets.iter().map(|set| set.split.as_str()).collect();
    splits.dedup();
    let line = |split: &str| {
        let of_split = || sets.iter().filter(|set| set.split == split);
        let pairs: Vec<String> = of_split().map(|set| format!("{} {} pairs", set.pairs, set.dimension)).collect();
        let conflicts = conflicts.iter().filter(|conflict| conflict.split == split).map(|conflict| {
            let ConflictCount { first, second, agreeing, conflicting, .. } = conflict;
            format!("; {first} × {second}: {agreeing} agree, {conflicting} conflict")
        });
        // Every set of a split tells what happened to the split's rows.
        let dropped = of_split().take(1).flat_map(|set| &set.dropped);
        let dropped = dropped.map(|(reason, count)| format!("; {count} rows {reason}"));
        let unused = of_split().take(1).flat_map(|set| &set.unused).map(|line| format!("; {line}"));
        format!("{split}: {}{}", pairs.join(", "), conflicts.chain(dropped).chain(unused).collect::<String>())
    };
    splits.into_iter().map(line).collect()
}

/// A path without `.` inside.
fn tidy(path: &Path) -> String {
    path.components().collect::<PathBuf>().display().to_string()
}

/// The running policy's loss and accuracies.
fn running(found: &HeldOut) -> String {
    let dimensions = found.dimensions.iter().map(|score| {
        let HeldOutDimension { dimension, accuracy, margin, .. } = score;
        format!("; {dimension} {:.1} % right, margin {margin:+.2}", 100.0 * accuracy)
    });
    let HeldOut { phase, step, steps, loss, degree_accuracy, score, .. } = found;
    let degrees = degree_accuracy.map(|accuracy| format!("; degrees {:.1} % right", 100.0 * accuracy));
    let degrees = degrees.unwrap_or_default();
    let score = score.map_or_else(String::new, |score| format!(", score {score:+.4}"));
    format!("{phase} step {step}/{steps}, held out: loss {loss:.4}{score}{}{degrees}", dimensions.collect::<String>())
}

/// λ after an update, with what moved it.
fn held(held: &Held) -> String {
    let dimensions = held.dimensions.iter().map(|of| {
        let HeldDimension { dimension, measure, reached, bound, lambda, .. } = of;
        format!("{dimension} {measure} {reached:.4}, bound {bound:.4}, λ {lambda:.3}")
    });
    format!("{} step {}/{}, held: {}", held.phase, held.step, held.steps, dimensions.collect::<Vec<_>>().join("; "))
}

/// Accuracy of each dimension by the plain log-ratio.
fn held_out(scores: &[DimensionScore]) -> String {
    let shown = scores.iter().filter(|score| score.kind.is_main());
    let words = shown.filter_map(|score| {
        let tally = score.tally(Subset::All)?;
        if tally.all_tied() {
            return Some(format!("{} tied", score.dimension));
        }
        let (low, high) = tally.interval;
        Some(format!(
            "{} {:.1} % accuracy ({:.0}–{:.0}), margin {:+.2}",
            score.dimension,
            100.0 * tally.accuracy,
            100.0 * low,
            100.0 * high,
            tally.mean_margin
        ))
    });
    words.collect::<Vec<_>>().join("; ")
}

/// How the gradients of every two dimensions stand to each other.
fn cosines(gram: &GradientGram) -> String {
    let of = |(first, second)| {
        let [a, b] = [first, second].map(|at: usize| &gram.dimensions[at]);
        Some(format!("{a} and {b} {:+.3}", gram.cosine(first, second)?))
    };
    let words: Vec<String> = gram.pairs().filter_map(of).collect();
    format!("{} step {}, cosine of gradients: {}", gram.phase, gram.step, words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_shows_what_it_has() {
        let mut given = StepFigures {
            phase: "round-2".into(),
            step: 3,
            steps: 300,
            epoch: 0.1,
            loss: 0.46125,
            grad_norm: 1.25,
            learning_rate: 5e-4,
            accuracy: Some(0.5),
            margin: Some(0.25),
            chosen_log_ratio: None,
            rejected_log_ratio: None,
            chosen_tokens: None,
            margin_offset: Some(-0.5),
            kl: None,
            degree_accuracy: None,
            degree_loss: None,
            signal_to_noise: None,
            score: None,
            answer_tokens: None,
            replayed: vec![],
            tokens: 900,
            seconds: 0.5,
            memory_bytes: 0,
        };
        let expected = "round-2 step 3/300, epoch 0.10: loss 0.4612, margin +0.250, accuracy 50 %, c -0.500, |grad| 1.250, lr 5.00e-4, 1800 tokens/s";
        assert_eq!(step(&given), expected);
        (given.accuracy, given.margin, given.margin_offset) = (None, None, None);
        assert_eq!(figures(&given), "loss 0.4612, |grad| 1.250, lr 5.00e-4, 1800 tokens/s");
        assert_eq!(clock(125.9), "[ 2:05]");
    }

    #[test]
    fn data_take_a_line_per_split() {
        let set = |split: &str, dimension: &str| DataSummary {
            split: split.into(),
            dimension: dimension.into(),
            pairs: 7,
            dropped: vec![("dropped: an answer is empty".into(), 2)],
            ..DataSummary::default()
        };
        let sets = vec![set("train", "a"), set("train", "b"), set("held-out", "a")];
        let conflict = ConflictCount {
            split: "train".into(),
            first: "a".into(),
            second: "b".into(),
            agreeing: 3,
            conflicting: 4,
            ..ConflictCount::default()
        };
        let expected = [
            "train: 7 a pairs, 7 b pairs; a × b: 3 agree, 4 conflict; 2 rows dropped: an answer is empty",
            "held-out: 7 a pairs; 2 rows dropped: an answer is empty",
        ];
        assert_eq!(lines(&Event::DataLoaded { sets, conflicts: vec![conflict] }), expected);
    }
}
