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

/// What is evaluated between steps, sampled, scored by a program and made into pairs, by an adapter's rounds and by one that
/// goes by scores alone. However many processes there are, the program is started and asked as by a single one.
#[test]
fn what_is_sampled_and_scored() {
    let _one = one_job();
    let place = Place::new(|text| {
        let training = "eval-every = 1\nmax-kl = 1e9\ntokens-per-micro-batch = 256\n";
        let text = text.replace("pairs-per-step = 4\n", &format!("pairs-per-step = 6\n{training}"));
        let rounds = text.find("[[rounds]]").unwrap()..text.find("[evaluation]").unwrap();
        let online = "scorer = \"command:sh scorer.sh\"\nsamples = 3\nmax-new-tokens = 8\n";
        let made = format!(
            "[[rounds]]\ndimension = \"honesty\"\n[rounds.online]\n{online}refresh = 2\nunfinished = \"keep\"\n"
        );
        let scored = "[[rounds]]\ndimension = \"helpfulness\"\nobjective = \"score\"\noptimizer = \"subzero\"\n\
                      online = { scorer = \"command:sh scorer.sh\", max-new-tokens = 6 }\n";
        let mut text = text.clone();
        text.replace_range(rounds, &(made + scored));
        text.replace("kl-samples = 2", "kl-samples = 5\nkl-path = true\nscorer = \"command:sh scorer.sh\"")
            + "[lora]\nrank = 4\n"
            + SHARDS
    });
    // A score that is no short fraction, of the answer's length; what was asked is noted, one line a request.
    let script = "echo begun >> asked.log\nwhile read -r line; do echo \"$line\" >> asked.log; id=${line#*\\\"id\\\":}; \
                  id=${id%%[,\\}]*}; echo \"{\\\"id\\\":$id,\\\"score\\\":0.$(printf %s \"$line\" | cksum | cut -d' ' -f1)}\"; done\n";
    std::fs::write(place.dir.path().join("scorer.sh"), script).unwrap();
    let log = place.dir.path().join("asked.log");
    let mut expected = None;
    for processes in [1, 2, 4] {
        ended_with(&place.train(processes, &[]), 0, &[]);
        let asked = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        let found = (place.taken(), asked);
        let (left, asked) = expected.get_or_insert_with(|| found.clone());
        assert!(asked.lines().count() > 50 && left.keys().any(|name| name.starts_with("online/")), "{:?}", left.keys());
        assert_same(&found.0, left, &format!("{processes} processes"));
        assert_eq!(&found.1, asked, "{processes} processes asked something else");
    }
}

/// Many more processes than cores.
#[test]
fn sixteen_processes() {
    let _one = one_job();
    let place = Place::new(|text| {
        text.replace("pairs-per-step = 4", "pairs-per-step = 16")
            .replace("[[rounds.controls]]\nname = \"free\"\nlambda = 0.0\n", "")
            + "[parallel]\nshards = 16\n"
    });
    ended_with(&place.train(1, &[]), 0, &[]);
    let expected = place.taken();
    ended_with(&place.train(16, &[]), 0, &["16 processes: they waited"]);
    assert_same(&place.taken(), &expected, "16 processes");
}

/// AdamW's moments by owner: the bytes of a run in which every process has all of them, and going on with another number
/// of processes, with or without.
#[test]
fn moments_by_owner() {
    let _one = one_job();
    for more in ["", "[lora]\nrank = 4\n"] {
        let place = Place::new(|text| text.replace("steps = 2\n", "steps = 12\nweight-decay = 0.1\n") + more + SHARDS);
        let sharded = ["--set", "parallel.optimizer-state=\"sharded\""];
        ended_with(&place.train(1, &[]), 0, &[]);
        let expected = without_plan(place.taken());
        for processes in [1, 2, 4] {
            ended_with(&place.train(processes, &sharded), 0, &[]);
            assert_same(&without_plan(place.taken()), &expected, &format!("{processes} processes, sharded"));
        }
        let file = place.file();
        let job = crate::job(2, &["train", &file, sharded[0], sharded[1]]);
        place.wait_for_steps(4);
        job.signal("USR1");
        ended_with(&job.end(), 130, &["stopping after this step"]);
        copy(&place.out(), &place.dir.path().join("stopped"));
        for (processes, how) in [(4, "sharded"), (1, "sharded"), (2, "replicated")] {
            let how = format!("parallel.optimizer-state={how:?}");
            let out = crate::support::path(&place.out());
            let ended = crate::job(processes, &["train", "--resume", &out, "--set", &how]).end();
            ended_with(&ended, 0, &[]);
            assert_same(&without_plan(place.taken()), &expected, &format!("resumed, {processes} processes, {how}"));
            copy(&place.dir.path().join("stopped"), &place.out());
        }
    }
}

/// The hash of the plan says that the moments were elsewhere.
fn without_plan(mut left: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    for name in ["events.jsonl", "summary.json"] {
        let text = String::from_utf8(left.remove(name).unwrap()).unwrap();
        let lines = text.lines().map(|line| {
            let mut line = serde_json::from_str(line).unwrap();
            forget_plan(&mut line);
            line.to_string()
        });
        left.insert(name.into(), lines.collect::<Vec<_>>().join("\n").into_bytes());
    }
    left
}

fn forget_plan(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(table) => {
            if table.get("name").is_some_and(|name| name == "plan") {
                table.remove("hash");
            }
            table.values_mut().for_each(forget_plan);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(forget_plan),
        _ => {}
    }
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
