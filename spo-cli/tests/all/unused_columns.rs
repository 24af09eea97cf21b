//! What the program says about columns and rows that it leaves out.

use crate::support::{self, fixture, path, small_run, spo};
use std::fs;
use std::path::Path;

fn data(command: &str, file: &Path, more: &[&str]) -> support::Ended {
    let tokenizer = fixture("trl/llama-tiny-policy");
    spo(&[&["data", command, &path(file), "--tokenizer", &tokenizer], more].concat())
}

#[test]
fn unused_columns_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pairs.jsonl");
    let row = r#"{"prompt": "Why?", "chosen": "So.", "rejected": "No.", "source": "web", "margin": 2}"#;
    fs::write(&file, row).unwrap();
    let told = format!("{}: columns not used: margin, source", path(&file));
    let found = data("check", &file, &[]);
    assert!(found.code == 0 && found.out.contains(&told), "{}{}", found.out, found.err);
    let found = data("preview", &file, &[]);
    assert!(found.code == 0 && found.err.contains(&told), "{}{}", found.out, found.err);
    let found = data("check", &file, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!(report["report"]["files"][0]["unused"]["source"], 1);
}

#[test]
fn the_built_in_pairs_have_no_unused_column() {
    let pairs = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.test.jsonl.gz");
    let found = spo(&["data", "check", &path(&pairs)]);
    assert!(found.code == 0 && !found.out.contains("not used") && !found.out.contains("left out"), "{}", found.out);
}

#[test]
fn where_no_row_is_left_the_reasons_and_the_rows_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let (file, rows) = (directory.path().join("pairs.jsonl"), directory.path().join("dropped.jsonl"));
    let lines = "{\"prompt\": \"Q?\", \"chosen\": \"yes\", \"rejected\": \"\\n\\n\"}\n{\"prompt\": [], \"chosen\": \
                 [{\"role\": \"assistant\", \"content\": \"yes\"}], \"rejected\": [{\"role\": \"assistant\", \"content\": \"no\"}]}\n";
    fs::write(&file, lines).unwrap();
    let found = data("check", &file, &["--rows", &path(&rows)]);
    assert_eq!(found.code, 1);
    for part in [
        "no row is left",
        "1 row dropped: an answer is empty (pairs.jsonl:1)",
        "the prompt has no token (pairs.jsonl:2)",
    ] {
        assert!(found.err.contains(part), "{}", found.err);
    }
    let dropped = fs::read_to_string(rows).unwrap();
    assert!(dropped.contains("pairs.jsonl:1") && dropped.contains("pairs.jsonl:2"), "{dropped}");
}

#[test]
fn a_run_without_a_row_left_tells_the_reasons_and_names_the_rows() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let empty = "{\"prompt\": \"Q?\", \"chosen\": \"yes\", \"rejected\": \"\\n\\n\"}\n";
    fs::write(at("pairs.jsonl"), empty.repeat(2)).unwrap();
    let text = format!(
        "schema = 1\nout = \"run\"\nholdout = 0\n[model]\npath = {:?}\ndevice = \"cpu\"\n[[data]]\npath = \"pairs.jsonl\"\n\
         [training]\nsteps = 1\npairs-per-step = 1\n[[rounds]]\ndimension = \"preference\"\n[evaluation]\nkl-samples = 0\nsamples = 0\n",
        fixture("trl/llama-tiny-policy")
    );
    fs::write(at("run.toml"), text).unwrap();
    let (file, rows) = (path(&at("run.toml")), at("run/rows.jsonl"));

    let planned = spo(&["plan", &file]);
    assert!(planned.code == 1 && planned.err.contains("2 rows dropped: an answer is empty"), "{}", planned.err);
    assert!(planned.err.contains("spo data check --rows FILE") && !at("run").exists(), "{}", planned.err);

    let trained = spo(&["train", &file]);
    assert!(trained.code == 1 && trained.err.contains("2 rows dropped: an answer is empty"), "{}", trained.err);
    assert!(trained.err.contains("rows.jsonl names the rows"), "{}", trained.err);
    let named = fs::read_to_string(&rows).unwrap();
    let line = |at: usize| format!("{{\"id\":\"pairs.jsonl:{at}\",\"reason\":\"empty-answer\",\"dropped\":true}}\n");
    assert_eq!(named, line(1) + &line(2));

    // The directory is none of a run: mended data train in it, and the file of the attempt is gone.
    fs::write(at("pairs.jsonl"), empty.replace("\\n\\n", "no")).unwrap();
    let trained = spo(&["train", &file]);
    assert!(trained.code == 0 && !rows.exists(), "{}", trained.err);
}

#[test]
fn a_refused_layout_says_how_to_map_or_name_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pairs.jsonl");
    fs::write(&file, r#"{"user_prompt": "Why?", "chosen": "So it is.", "rejected": "So not."}"#).unwrap();
    let found = data("check", &file, &[]);
    assert_eq!(found.code, 1);
    for part in ["would leave out the column \"user_prompt\"", "--column prompt=user_prompt", "--schema trl-implicit"] {
        assert!(found.err.contains(part), "{}", found.err);
    }
    let found = data("preview", &file, &["--column", "prompt=user_prompt"]);
    assert!(found.code == 0 && found.out.contains("⟦So it is."), "{}{}", found.out, found.err);
}

#[test]
fn plan_events_and_report_name_unused_columns() {
    let directory = tempfile::tempdir().unwrap();
    let run = small_run(directory.path());
    let extra = directory.path().join("more.jsonl");
    let row = |at: usize| {
        format!(
            "{{\"prompt\": \"Why {at}?\", \"response_a\": \"So.\", \"response_b\": \"No.\", \"prefs\": {{\"honesty\": 1}}, \
             \"annotator\": \"a{at}\"}}\n"
        )
    };
    fs::write(&extra, (0..8).map(row).collect::<String>()).unwrap();
    let text = fs::read_to_string(&run).unwrap().replacen("[text]", &format!("[[data]]\npath = {extra:?}\n[text]"), 1);
    fs::write(&run, text).unwrap();
    let told = "columns not used: annotator";
    let out = path(&directory.path().join("run"));
    let planned = spo(&["plan", &path(&run), "--out", &out]);
    assert!(planned.code == 0 && planned.out.contains(told), "{}{}", planned.out, planned.err);
    let trained = spo(&["train", &path(&run), "--out", &out]);
    assert!(trained.code == 0, "{}", trained.err);
    for file in ["events.jsonl", "report.md", "report.html", "summary.json"] {
        let text = fs::read_to_string(Path::new(&out).join(file)).unwrap();
        assert!(text.contains(told), "{file}");
    }
}
