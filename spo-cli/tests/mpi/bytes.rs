//! What a run leaves does not depend on how many processes share it.

use crate::left::{assert_same, left};
use crate::{Place, copy, ended_with, one_job};
use std::collections::BTreeMap;

const SHARDS: &str = "[parallel]\nshards = 4\n";

/// The run of one process, against those of two and four.
fn same_for_any_number(change: impl FnOnce(String) -> String) {
    let _one = one_job();
    let place = Place::new(|text| change(text) + SHARDS);
    let mut expected: Option<BTreeMap<String, Vec<u8>>> = None;
    for processes in [1, 2, 4] {
        let ended = place.train(processes, &[]);
        let told = if processes > 1 { format!("{processes} processes: they waited") } else { String::new() };
        ended_with(&ended, 0, &[&told]);
        let found = place.taken();
        assert!(found.keys().any(|name| name.starts_with("cache/")) && found.len() > 20, "{:?}", found.keys());
        match &expected {
            None => expected = Some(found),
            Some(expected) => assert_same(&found, expected, &format!("{processes} processes")),
        }
    }
}

/// Every weight, DPO and then SPO with a control; evaluations on the way, the best policy kept.
#[test]
fn all_weights_in_two_rounds() {
    same_for_any_number(|text| {
        text.replace("pairs-per-step = 4", "pairs-per-step = 6\neval-every = 1\ntokens-per-micro-batch = 256")
            .replace("every-steps = 1", "every-steps = 1\nkeep-best = \"loss\"")
    });
}

/// Adapters with dropout after a warm-up; the first round looks at a KL over the whole batch (KTO), the second one holds it.
#[test]
fn adapters_with_dropout_kto_and_a_warm_up() {
    same_for_any_number(|text| {
        text.replace("[[rounds]]\ndimension = \"honesty\"", "[[rounds]]\ndimension = \"honesty\"\nobjective = \"kto\"")
            + "[warmup]\nsteps = 2\n[lora]\nrank = 4\ndropout = 0.2\n"
    });
}

/// A loss that sorts the whole batch's margins (AOT), in steps of which the last is smaller than there are shards; an
/// optimiser that goes by losses alone.
#[test]
fn a_loss_of_the_whole_batch_and_one_without_gradients() {
    same_for_any_number(|text| {
        text.replace("steps = 2\npairs-per-step = 4", "epochs = 0.5\npairs-per-step = 9")
            .replace("[[rounds]]\ndimension = \"honesty\"", "[[rounds]]\ndimension = \"honesty\"\nobjective = \"aot\"")
            .replace(
                "[[rounds]]\ndimension = \"helpfulness\"",
                "[[rounds]]\ndimension = \"helpfulness\"\noptimizer = \"mezo\"\nsteps = 2\nzo-slopes = \"pairs\"",
            )
    });
}

/// One that was stopped, and one that was killed, each resumed by other numbers of processes.
#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let _one = one_job();
    let place = Place::new(|text| text.replace("steps = 2\n", "steps = 30\n") + "[lora]\nrank = 2\n" + SHARDS);
    ended_with(&place.train(1, &[]), 0, &[]);
    let expected = place.taken();
    let file = place.file();
    let begin = |steps: usize| {
        let job = crate::job(2, &["train", &file]);
        place.wait_for_steps(steps);
        job
    };
    let stopped = begin(4);
    stopped.signal("USR1");
    ended_with(&stopped.end(), 130, &["stopping after this step", "spo train --resume"]);
    copy(&place.out(), &place.dir.path().join("stopped"));
    for processes in [1, 4] {
        ended_with(&place.resume(processes), 0, &[]);
        assert_same(&place.taken(), &expected, &format!("stopped, {processes} processes"));
        copy(&place.dir.path().join("stopped"), &place.out());
    }
    place.taken();
    let killed = begin(5);
    crate::signal(killed.rank(1), "KILL");
    ended_with(&killed.end(), 137, &[]);
    ended_with(&place.resume(2), 0, &[]);
    assert_same(&place.taken(), &expected, "killed, 2 processes");
}

/// Without `shards` there are as many as processes, and a run keeps them.
#[test]
fn as_many_shards_as_processes_unless_the_run_has_some() {
    let _one = one_job();
    let place = Place::new(|text| text);
    let shards = || {
        let plan: serde_json::Value =
            serde_json::from_slice(&std::fs::read(place.out().join("plan.json")).unwrap()).unwrap();
        plan["parallel"]["shards"].as_u64().unwrap()
    };
    ended_with(&place.train(1, &[]), 0, &[]);
    assert_eq!(shards(), 1);
    let alone = losses(&place);
    place.taken();
    ended_with(&place.train(2, &[]), 0, &["2 processes: they waited"]);
    assert_eq!(shards(), 2);
    let finished = left(&place.out());
    for (one, other) in alone.iter().zip(losses(&place)) {
        assert!((one - other).abs() < 1e-6 * one.abs().max(1.0), "{one} {other}");
    }
    // A finished run is walked through once more.
    ended_with(&place.resume(1), 0, &[]);
    assert_eq!(shards(), 2);
    assert_same(&place.taken(), &finished, "resumed by one process");
}

/// Loss and gradient norm of each step.
fn losses(place: &Place) -> Vec<f64> {
    let text = std::fs::read_to_string(place.out().join("events.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let numbers = rows.flat_map(|row| {
        let number = |keys: [&str; 2]| keys.iter().find_map(|key| row[key].as_f64());
        number(["grad-norm", "grad_norm"]).map_or_else(Vec::new, |norm| vec![norm, row["loss"].as_f64().unwrap()])
    });
    let numbers: Vec<f64> = numbers.collect();
    assert_eq!(numbers.len(), 2 * 2 * 3, "two steps of three phases");
    numbers
}
