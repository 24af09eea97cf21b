//! Every command once, against numbers of other implementations where there are some.

use crate::support::{self, fixture, path, small_run, spo, stories};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

fn json_file(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(name).unwrap()).unwrap()
}

/// Standard output of a command that succeeds.
#[track_caller]
fn out<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> String {
    let found = spo(arguments);
    assert_eq!(found.code, 0, "{}", found.err);
    found.out
}

#[track_caller]
fn parsed<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Value {
    serde_json::from_str(&out(arguments)).unwrap()
}

/// The rows that TRL tokenised, as rows of token ids.
fn trl_rows(directory: &Path) -> String {
    let golden = json_file(&fixture("trl/llama-tiny.json"));
    let rows: String = golden["tokenised"].as_array().unwrap().iter().map(|row| format!("{row}\n")).collect();
    let file = directory.join("rows.jsonl");
    fs::write(&file, rows).unwrap();
    path(&file)
}

#[test]
fn scores_equal_trl() {
    let directory = tempdir().unwrap();
    let rows = trl_rows(directory.path());
    let golden = json_file(&fixture("trl/llama-tiny.json"));
    for (model, adapter, expected) in [
        ("trl/llama-tiny-policy", None, &golden["policy"]["seq_logps"]),
        ("trl/llama-tiny-ref", None, &golden["ref"]["seq_logps"]),
        ("trl/llama-tiny-policy", Some("trl/llama-tiny-lora"), &golden["lora"]["policy_seq_logps"]),
    ] {
        let mut arguments = vec!["score".to_owned(), "--model".into(), fixture(model)];
        arguments.extend(adapter.into_iter().flat_map(|adapter| ["--adapter".into(), fixture(adapter)]));
        // TRL kept the first 96 tokens of each row.
        let rest = [
            "--data",
            &rows,
            "--json",
            "--per-token",
            "--device",
            "cpu",
            "--max-length",
            "96",
            "--overflow",
            "keep-start",
        ];
        arguments.extend(rest.map(str::to_owned));
        let tolerance = if adapter.is_some() { 2e-4 } else { 1e-4 };
        for (index, line) in out(&arguments).lines().enumerate() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["id"], format!("rows.jsonl:{}", index + 1));
            for (side, place) in [("chosen", index), ("rejected", index + 4)] {
                let logp = line[format!("{side}_logp")].as_f64().unwrap();
                assert!((logp - expected[place].as_f64().unwrap()).abs() < tolerance, "{model} {side} {index}: {logp}");
                let tokens: Vec<f64> = serde_json::from_value(line[format!("{side}_token_logps")].clone()).unwrap();
                assert_eq!(line[format!("{side}_tokens")], tokens.len());
                assert!((tokens.iter().sum::<f64>() - logp).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn rows_with_dimensions_have_a_line_for_each() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("rows.jsonl");
    let row =
        r#"{"id": "r", "prompt": "Why?", "response_a": " A", "response_b": " B", "prefs": {"x": 1, "y": -1, "z": 0}}"#;
    fs::write(&file, row).unwrap();
    let data = path(&file);
    let text = out(&["score", "--model", &stories(), "--data", &data, "--device", "cpu", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["dimension"], &lines[1]["dimension"]), (&json!("x"), &json!("y")));
    assert_eq!(lines[0]["chosen_logp"], lines[1]["rejected_logp"]);
    assert_eq!(lines[0]["chosen_tokens"], lines[1]["rejected_tokens"]);
    assert_eq!((&lines[2]["dimension"], &lines[2]["tie"]), (&json!("z"), &json!(true)));
    let text = out(&["score", "--model", &stories(), "--data", &data, "--device", "cpu"]);
    assert!(text.starts_with("r  x  chosen_logp -"), "{text}");
}

#[test]
fn greedy_tokens_equal_transformers() {
    let golden = json_file(&fixture("trl/llama-tiny.json"));
    let ids: Vec<String> =
        golden["tokenised"][0]["prompt_ids"].as_array().unwrap().iter().map(Value::to_string).collect();
    let (model, ids) = (fixture("trl/llama-tiny-policy"), ids.join(","));
    let common = ["generate", "--model", &model, "--ids", &ids, "--json", "--device", "cpu"];
    let found = parsed(&[&common[..], &["--max-new-tokens", "32", "--ignore-eos"]].concat());
    assert_eq!(found["ids"], golden["greedy_32_from_row0_prompt"]);
    assert!(found["text"].is_string());
    let draw = |seed| {
        let options =
            ["--temperature", "1", "--top-k", "50", "--top-p", "0.9", "--seed", seed, "--max-new-tokens", "12"];
        parsed(&[&common[..], &options].concat())
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn a_bench_measures_the_work_that_the_other_commands_do() {
    let directory = tempdir().unwrap();
    let rows = trl_rows(directory.path());
    let golden = json_file(&fixture("trl/llama-tiny.json"));
    let model = fixture("trl/llama-tiny-policy");
    let few = ["--epochs", "1", "--max-length", "96", "--overflow", "keep-start", "--new-tokens", "32", "--json"];
    let on = ["bench", "--model", &model, "--data", &rows, "--device", "cpu", "--pairs-per-step", "2"];
    let lines = out(&[&on[..], &few, &["--pairs", "4", "--batch", "1"]].concat());
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&Value> = lines.iter().map(|line| &line["what"]).collect();
    assert_eq!(kinds, ["train", "score", "generate"]);
    for line in &lines {
        assert_eq!(line["device"], "CPU");
        let keys = ["pairs_per_s", "tokens_per_s", "peak_rss_mb", "to_first_step_s", "model_flops_utilisation"];
        assert!(keys.into_iter().all(|key| line[key].as_f64().is_some_and(|value| value > 0.0)), "{line}");
        assert!(line["model_flops_utilisation"].as_f64() < Some(1.0), "{line}");
    }
    let [train, score, generate] = &lines[..] else { panic!("three kinds") };
    let losses: Vec<f64> = serde_json::from_value(train["losses"].clone()).unwrap();
    assert_eq!(losses.len(), 4, "two epochs of two steps");
    assert!((losses[0] - 2f64.ln()).abs() < 1e-6, "{losses:?}");
    assert!(losses[2..].iter().sum::<f64>() < losses[..2].iter().sum(), "{losses:?}");
    let expected: Vec<f64> = serde_json::from_value(golden["policy"]["seq_logps"].clone()).unwrap();
    let mean = expected.iter().sum::<f64>() / expected.len() as f64;
    assert!((score["mean_logp"].as_f64().unwrap() - mean).abs() < 1e-4, "{score}");
    assert_eq!(generate["ids"], golden["greedy_32_from_row0_prompt"]);

    let adapters = parsed(&[&on[..], &few, &["--what", "train", "--lora", "4", "--pairs", "2"]].concat());
    assert_eq!((&adapters["lora"], &adapters["pairs"]), (&json!(4), &json!(2)));
    let table = out(&[&on[..], &few[..few.len() - 1], &["--what", "score", "--pairs", "2"]].concat());
    assert!(table.starts_with("what ") && table.contains("of matmul peak") && table.contains("\nscore "), "{table}");

    let twice = spo(&[&on[..], &["--what", "train", "--set", "model.dtype=bf16"]].concat());
    assert!(twice.code == 2 && twice.err.contains("--dtype, which says the same"), "{}", twice.err);
    let whole = spo(&[&on[..], &["--what", "train", "--as-stored"]].concat());
    assert!(whole.code == 2 && whole.err.contains("--lora RANK"), "{}", whole.err);
    let dense = spo(&[&on[..], &["--what", "generate", "--as-stored"]].concat());
    assert!(dense.code == 2 && dense.err.contains("a file that stores projections so"), "{}", dense.err);
    let no_data = spo(&["bench", "--model", &model, "--device", "cpu"]);
    assert!(no_data.code == 2 && no_data.err.contains("--data"), "{}", no_data.err);
    let products = spo(&["bench", "--what", "matmul", "--model", &model, "--device", "cpu"]);
    assert!(products.code == 2 && products.err.contains("a graphics card"), "{}", products.err);
    let named = |strategy| spo(&[&on[..], &["--what", "score", "--matmul", strategy]].concat());
    let (unknown, of_cards) = (named("fast"), named("double-tma-mma"));
    assert!(unknown.code == 2 && unknown.err.contains("simple-unit, "), "{}", unknown.err);
    assert!(of_cards.err.contains("CPU does not multiply by double-tma-mma"), "{}", of_cards.err);

    let many = spo(&[&on[..], &few, &["--what", "generate", "--batch", "9"]].concat());
    assert_eq!(many.code, 2);
    assert!(many.err.contains("--batch") && many.err.contains("at most the 4 pairs"), "{}", many.err);
}

#[test]
fn a_story_goes_on() {
    let text = out(&[
        "generate",
        "--model",
        &stories(),
        "--prompt",
        "Once upon a time",
        "--max-new-tokens",
        "20",
        "--device",
        "cpu",
    ]);
    assert!(text.contains("there was a little"), "{text}");
}

#[test]
fn a_log_is_written_on_demand() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_spo"));
    command.args(["generate", "--model", &stories(), "--ids", "1", "--max-new-tokens", "1", "--device", "cpu"]);
    assert_eq!(support::ended(&mut command).err, "");
    assert!(support::ended(command.env("SPO_LOG", "info")).err.contains("model loaded"));
    assert!(support::ended(command.env("SPO_LOG", "=?=")).err.contains("SPO_LOG==?=: "));
}

#[test]
fn tokens_equal_the_reference_tokenizer() {
    for case in json_file(&format!("{}/golden.json", stories()))["tokenize"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let found = parsed(&["tokenize", "--tokenizer", &stories(), "--text", text, "--json"]);
        assert_eq!(found["ids"], case["ids"], "{text:?}");
        assert_eq!(found["tokens"].as_array().unwrap().len(), found["offsets"].as_array().unwrap().len());
    }
}

#[test]
fn messages_render_as_transformers_renders_them() {
    let directory = tempdir().unwrap();
    let golden = json_file(&fixture("trl/llama-tiny.json"));
    let tokenizer = fixture("trl/llama-tiny-policy");
    for (row, expected) in golden["rows"].as_array().unwrap().iter().zip(golden["chat_text"].as_array().unwrap()) {
        let file = directory.path().join("messages.json");
        fs::write(&file, row["prompt"].to_string()).unwrap();
        let file = path(&file);
        let found =
            parsed(&["render", "--tokenizer", &tokenizer, "--messages", &file, "--add-generation-prompt", "--json"]);
        assert_eq!(found["text"], expected["prompt"]);
    }
}

#[test]
fn losses_of_given_log_probs() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("rows.jsonl");
    let row = json!({
        "chosen_logp": -10.0, "rejected_logp": -12.0, "ref_chosen_logp": -11.0, "ref_rejected_logp": -11.0,
        "chosen_tokens": 5, "rejected_tokens": 6, "earlier": [[-11.5, -11.0]],
    });
    fs::write(&file, format!("{row}\n{row}\n")).unwrap();
    let file = path(&file);
    let table = parsed(&["loss", "--objective", "dpo", "--set", "beta=0.5", "--input", &file, "--json"]);
    // softplus(−β·Δ) with Δ = 2
    let expected = (-1.0f64).exp().ln_1p();
    assert!((table["loss"].as_f64().unwrap() - expected).abs() < 1e-12);
    assert_eq!(table["chosen_reward"], json!([0.5, 0.5]));
    assert_eq!(table["gradient"].as_array().unwrap().len(), 2);
    let held =
        parsed(&["loss", "--objective", "spo", "--set", "lambda=0", "--set", "alpha=0.5", "--input", &file, "--json"]);
    assert_eq!(held["loss"], table["loss"]);
    assert!(out(&["loss", "--objective", "ipo", "--input", &file]).contains("ipo: mean loss"));
}

#[test]
fn data_is_checked_previewed_and_searched_for_conflicts() {
    let file = path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.test.jsonl.gz"));
    let report = parsed(&["data", "check", &file, "--tokenizer", &stories(), "--json"]);
    assert_eq!(report["report"]["files"][0]["rows"], 1028);
    assert!(report["stats"]["dimensions"]["honesty"]["pairs"].as_u64().unwrap() > 600);
    let text = out(&["data", "check", &file]);
    assert!(text.contains("1028 rows, jsonl, prefs"), "{text}");
    let missed = spo(&["data", "check", &file, "--tokenizer", &stories(), "--min-pairs", "5000"]);
    assert_eq!(missed.code, 3);
    assert!(missed.out.contains("gate missed: min-pairs = 5000"), "{}", missed.out);
    let shared = spo(&["data", "check", &file, "--test", &file, "--max-shared", "0"]);
    assert_eq!(shared.code, 3);
    let shown = out(&["data", "preview", &file, "--rows", "1", "--response-format", " {response}"]);
    assert!(shown.contains("⟦ Pigs can fly, but they prefer to stay on the ground.</s>⟧"), "{shown}");
    let conflicts = parsed(&["data", "conflict", &file, "--json"]);
    assert_eq!((&conflicts[0]["first"], &conflicts[0]["second"]), (&json!("helpfulness"), &json!("honesty")));
    assert!(conflicts[0]["conflict_rate"]["value"].as_f64().unwrap() > 0.5);
    assert!(out(&["data", "conflict", &file]).contains("helpfulness × honesty"));
    let directory = tempfile::tempdir().unwrap();
    let picture = path(&directory.path().join("conflict.svg"));
    out(&["data", "conflict", &file, "--picture", &picture]);
    assert!(std::fs::read_to_string(&picture).unwrap().contains("helpfulness × honesty"));
    let (rows, cache) = (path(&directory.path().join("rows.jsonl")), path(&directory.path().join("tokens")));
    let check = ["data", "check", &file, "--max-length", "40", "--rows", &rows, "--token-cache", &cache];
    let first = out(&check);
    let named = std::fs::read_to_string(&rows).unwrap();
    assert!(named.contains("\"reason\":\"prompt-cut\"") && first.contains("beginning of the prompt cut"), "{first}");
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    assert_eq!(out(&check), first, "from the cache");
}

#[test]
fn a_directory_is_checked_by_its_splits() {
    let directory = tempfile::tempdir().unwrap();
    for (name, prompts) in [("train.jsonl", ["a", "b"]), ("test.jsonl", ["b", "c"])] {
        let row = |prompt: &str| format!("{{\"prompt\":\"{prompt}\",\"chosen\":\"x\",\"rejected\":\"y\"}}\n");
        std::fs::write(directory.path().join(name), prompts.map(row).concat()).unwrap();
    }
    let base = path(directory.path());
    let checked = spo(&["data", "check", &base, "--max-shared", "0"]);
    assert_eq!(checked.code, 3, "{}", checked.err);
    assert!(checked.out.contains("1 prompt shared with the test set (train.jsonl:2)"), "{}", checked.out);
    assert!(checked.out.contains("test.jsonl: left out, of another split"), "{}", checked.out);
    assert_eq!(parsed(&["data", "check", &base, "--split", "test", "--json"])["report"]["files"][0]["rows"], 2);
    let alone = spo(&["data", "check", &path(&directory.path().join("test.jsonl")), "--max-shared", "0"]);
    assert_eq!(alone.code, 2, "{}", alone.err);
}

#[test]
fn lists_name_what_there_is() {
    for (what, expected) in [
        ("objectives", "spo"),
        ("pair-options", "degree-weight"),
        ("optimizers", "subzero"),
        ("families", "llama"),
        ("schemas", "token-ids"),
        ("formats", "jsonl"),
        ("devices", "cpu"),
    ] {
        let list = parsed(&["list", what, "--json"]);
        assert!(list.as_array().unwrap().iter().any(|item| item["name"] == expected), "{what}");
        assert!(out(&["list", what]).contains(expected), "{what}");
    }
}

#[test]
fn a_model_is_compared_with_its_reference() {
    let directory = tempdir().unwrap();
    let rows = trl_rows(directory.path());
    let golden = json_file(&fixture("trl/llama-tiny.json"));
    let (model, reference) = (fixture("trl/llama-tiny-policy"), fixture("trl/llama-tiny-ref"));
    let common = ["eval", "--model", &model, "--reference", &reference, "--data", &rows, "--device", "cpu"];
    let limits = ["--max-length", "96", "--overflow", "keep-start", "--dimension", "tone"];
    let found = parsed(&[&common[..], &limits, &["--json"]].concat());
    let logp = |which: &str, place: usize| golden[which]["seq_logps"][place].as_f64().unwrap();
    let ratio = |place| logp("policy", place) - logp("ref", place);
    let margins: Vec<f64> = (0..4).map(|pair| ratio(pair) - ratio(pair + 4)).collect();
    let all = &found["scores"][0]["subsets"]["all"];
    assert_eq!(found["scores"][0]["dimension"], "tone");
    assert_eq!(all["correct"].as_f64().unwrap(), margins.iter().filter(|margin| **margin > 0.0).count() as f64);
    assert!((all["mean_margin"].as_f64().unwrap() - margins.iter().sum::<f64>() / 4.0).abs() < 2e-4);
    assert!(out(&[&common[..], &limits].concat()).contains("tone"));
}

#[test]
fn a_written_run_file_is_read_again() {
    let directory = tempdir().unwrap();
    let file = path(&directory.path().join("new.toml"));
    assert!(out(&["init", &file]).contains("new.toml"));
    let found = spo(&["plan", &file]);
    assert_eq!(found.code, 1, "only the model is missing:\n{}", found.err);
    assert!(found.err.contains("my-model"), "{}", found.err);
}

#[test]
fn a_plan_tells_every_value_and_its_origin() {
    let directory = tempdir().unwrap();
    let file = path(&small_run(directory.path()));
    let changed = ["--set", "rounds.1.lambda=0.5", "--device", "cpu"];
    let text = out(&[&["plan", &file][..], &changed].concat());
    let value = |key: &str| text.lines().find(|line| line.trim_start().starts_with(key)).unwrap().to_owned();
    assert!(value("lambda ").contains("--set rounds.1.lambda=0.5"), "{text}");
    assert!(value("pairs-per-step ").contains("run.toml:"), "{text}");
    assert!(value("adam-eps ").contains("default"), "{text}");
    for line in text.lines().filter(|line| !line.contains('/')) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let dry = out(&[&["train", &file, "--dry-run"][..], &changed].concat());
    // The memory of the process itself is not quite the same each time.
    let settled = |text: &str| text.split_once("program, tokenizer and data").unwrap().0.to_owned();
    assert_eq!(settled(&text), settled(&dry));
    for words in ["what the run will do", "round-2-helpfulness.free", "disk, at most", "memory, about", "--measure"] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    assert!(!text.contains("stages, in order"), "{text}");
    let stages = out(&["plan", &file, "--stages"]);
    let list = stages.split_once("stages, in order").unwrap().1.split_once("what the run will do").unwrap().0;
    let plan = parsed(&["plan", &file, "--json"]);
    let forecast = &plan["forecast"];
    let named = forecast["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap());
    let printed = list.trim().lines().skip(1).map(|line| line.trim_start().split("  ").next().unwrap());
    assert!(named.eq(printed), "{list}");
    for words in ["start", "train round-1-honesty", "compare round-2-helpfulness", "export"] {
        assert!(list.lines().any(|line| line.trim_start().starts_with(words)), "no {words:?} in:\n{list}");
    }
    assert_eq!(forecast["phases"].as_array().unwrap().len(), 3);
    assert!(forecast["phases"][0]["tokens"].as_u64().unwrap() > 100 && forecast["seconds"].is_null(), "{forecast}");
    let measured = &parsed(&["plan", &file, "--json", "--measure", "2"])["forecast"];
    assert!(measured["seconds"].as_f64().unwrap() > 0.0 && measured["speed"]["steps"] == 2, "{measured}");
    assert_eq!(plan["rounds"][1]["arms"][1]["name"], "free");
    assert!(plan["forecast"]["memory"]["phases"][2]["weights"].as_u64().unwrap() > 1_000_000);
    assert!(!directory.path().join("run").exists());
}

#[test]
fn a_run_leaves_a_model_and_a_report() {
    let directory = tempdir().unwrap();
    let file = path(&small_run(directory.path()));
    let found = spo(&["train", &file, "--set", "name=small"]);
    assert_eq!(found.code, 0, "{}", found.err);
    for word in ["honesty", "helpfulness", "Held-out pairs"] {
        assert!(found.out.contains(word), "{}", found.out);
    }
    for word in ["step 1/2, epoch 0.", "loss 0.6931", "step 2/2", "held out: honesty"] {
        assert!(found.err.contains(word), "no {word:?} in:\n{}", found.err);
    }
    let run = directory.path().join("run");
    for name in ["events.jsonl", "plan.json", "report.md", "report.html", "model/config.json", "model/tokenizer.json"] {
        assert!(run.join(name).exists(), "{name}");
    }
    let model = path(&run.join("model"));
    assert!(
        !out(&["generate", "--model", &model, "--prompt", "Once", "--max-new-tokens", "4", "--device", "cpu"])
            .is_empty()
    );
    assert_eq!(spo(&["train", &file]).code, 1, "a second run into the same directory");
}

#[test]
fn the_quickstart_is_a_run_of_its_own_directory() {
    let directory = tempdir().unwrap();
    let out_directory = directory.path().join("quick");
    let mut arguments =
        vec!["quickstart".to_owned(), "--out".into(), path(&out_directory), "--device".into(), "cpu".into()];
    for set in [
        "data.0.limit=64",
        "data.1.limit=64",
        "warmup.steps=2",
        "training.steps=2",
        "training.warmup-steps=0",
        "evaluation.kl-samples=2",
        "evaluation.kl-max-new-tokens=4",
        "evaluation.samples=1",
    ] {
        arguments.extend(["--set".to_owned(), set.to_owned()]);
    }
    assert!(out(&arguments).contains("honesty"));
    for name in
        ["run.toml", "events.jsonl", "plan.json", "report.md", "model/model.safetensors", "input/LICENSE.Apache-2.0"]
    {
        assert!(out_directory.join(name).exists(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_run_in_order() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let directory = tempdir().unwrap();
    let file = path(&small_run(directory.path()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_spo"))
        .args(["train", &file, "--set", "training.steps=100000"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("step 1/")).unwrap().unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
    assert!(directory.path().join("run/events.jsonl").exists());
}

#[test]
fn a_sweep_shares_what_its_runs_have_in_common_and_goes_on() {
    let directory = tempdir().unwrap();
    let (file, out) = (path(&small_run(directory.path())), path(&directory.path().join("sweep")));
    let arguments = ["sweep", &file, "--grid", "rounds.1.lambda=0,1", "--orders", "all", "--out", &out];
    let first = spo(&arguments);
    assert_eq!(first.code, 0, "{}", first.err);
    assert_eq!(first.err.matches(": begins").count(), 4, "{}", first.err);
    // Of every order the first round is trained once, and so is the control of the second one.
    assert_eq!(first.err.matches("is taken over from").count(), 4, "{}", first.err);
    assert!(
        first.out.contains("order=helpfulness-honesty_lambda=1") && first.out.contains("## Hypervolume"),
        "{}",
        first.out
    );
    for name in ["sweep.csv", "hypervolume.csv", "front.svg", "hypervolume.svg", "sweep.html", "sweep.md", "sweep.json"]
    {
        assert!(std::fs::metadata(Path::new(&out).join(name)).unwrap().len() > 0, "{name}");
    }
    let again = spo(&arguments);
    assert_eq!((again.code, again.err.matches("finished before").count()), (0, 4), "{}", again.err);
    assert_eq!(again.out, first.out);
}

/// As docs/run-file.md has it, and as in transformers: the schedule ends one step after the last.
#[test]
fn a_schedule_ends_one_step_after_the_last() {
    let directory = tempdir().unwrap();
    let file = path(&small_run(directory.path()));
    let sets = ["training.steps=5", "training.warmup-steps=1", "training.learning-rate=1e-4", "rounds.1.controls=[]"];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    out(&["train", &file].into_iter().chain(sets).collect::<Vec<_>>());
    let events = fs::read_to_string(directory.path().join("run/events.jsonl")).unwrap();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rates: Vec<f64> = events
        .filter(|event| event["event"] == "step" && event["phase"] == "round-1-honesty")
        .map(|event| event["learning-rate"].as_f64().unwrap())
        .collect();
    let rate = |step: f64| 1e-4 * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * (step - 1.0) / 4.0).cos()));
    assert_eq!(rates.len(), 5);
    assert_eq!(rates[0], 0.0);
    for (step, found) in rates.iter().enumerate().skip(1) {
        assert!((found - rate(step as f64)).abs() < 1e-12, "{rates:?}");
    }
    assert!((rate(5.0) - 1e-5).abs() < 1e-12, "the ratio's rate is that of step 6 of 5");
}
