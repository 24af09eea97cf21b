//! What `spo plan` says a run will take, against what one takes.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, dead_code)]

mod support;

use serde_json::{Value, json};
use spo_model::export::{GgufType, ModelFiles, SHARD_BYTES, save, save_gguf};
use spo_model::{CausalLm, ModelSpec, device};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::spo;

/// The built-in model's files with another shape, and the model of it with random weights.
fn model(hidden: usize, inner: usize, layers: usize) -> (Value, ModelFiles, CausalLm) {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260K");
    let mut files = ModelFiles::from_dir(&assets).unwrap();
    let (_, bytes) = files.files.iter_mut().find(|(name, _)| name == "config.json").unwrap();
    let mut config: Value = serde_json::from_slice(bytes).unwrap();
    let heads = hidden / 64;
    for (key, value) in [
        ("hidden_size", hidden),
        ("intermediate_size", inner),
        ("num_hidden_layers", layers),
        ("num_attention_heads", heads),
        ("num_key_value_heads", heads),
    ] {
        config[key] = value.into();
    }
    config.as_object_mut().unwrap().remove("head_dim");
    *bytes = config.to_string().into_bytes();
    let spec = ModelSpec::from_json(&config.to_string()).unwrap();
    let model = CausalLm::random(&spec, 0, &device::cpu());
    (config, files, model)
}

/// A run of LoRA or of all weights on a model: its file, and the plan of its one phase.
fn run_file(dir: &Path, name: &str, model: &Path, lora: &str) -> (String, Value) {
    let pairs = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.train.jsonl.gz");
    let text = format!(
        r#"schema = 1
[model]
path = {model:?}
device = "cpu"
[[data]]
path = {pairs:?}
limit = 60
[training]
steps = 3
pairs-per-step = 4
[[rounds]]
dimension = "honesty"
[evaluation]
bootstrap-resamples = 40
kl-samples = 0
samples = 0
{lora}"#
    );
    let file = dir.join(format!("{name}.toml")).to_str().unwrap().to_owned();
    std::fs::write(&file, &text).unwrap();
    let json = spo(&["plan", &file, "--json"]);
    let plan: Value = serde_json::from_str(&json.out).unwrap_or_else(|_| panic!("{}", json.err));
    (file, plan["forecast"]["memory"].clone())
}

/// The most memory that the phase of a run took; `None` where the system does not say.
fn measured(dir: &Path, name: &str, file: &str) -> Option<f64> {
    let out = dir.join(name).to_str().unwrap().to_owned();
    let ended = spo(&["train", file, "--out", &out]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let events = std::fs::read_to_string(Path::new(&out).join("events.jsonl")).unwrap();
    let event = events.lines().find(|line| line.contains("\"phase-finished\"")).unwrap();
    let event: Value = serde_json::from_str(event).unwrap();
    Some(event["peak-bytes"].as_f64().unwrap()).filter(|bytes| *bytes > 0.0)
}

#[test]
fn a_step_takes_what_the_plan_says() {
    let dir = tempfile::tempdir().unwrap();
    let (_, files, model) = model(384, 1024, 6);
    let path = dir.path().join("model");
    save(&model, &files, &path, SHARD_BYTES).unwrap();
    for (name, lora) in [("full", ""), ("lora", "[lora]\nrank = 8\n")] {
        let (file, memory) = run_file(dir.path(), name, &path, lora);
        let planned = spo(&["plan", &file]);
        assert!(planned.out.contains("  memory, about, in MiB on CPU\n"), "{}", planned.err);
        let phase = &memory["phases"][0];
        let of = |key: &str| phase[key].as_f64().unwrap();
        let kept: f64 = [
            "weights",
            "adapters",
            "gradients",
            "optimizer",
            "activations-kept",
            "head",
            "cache",
            "program",
            "allocator",
        ]
        .map(of)
        .iter()
        .sum();
        assert_eq!(kept, of("total"));
        let Some(measured) = measured(dir.path(), name, &file) else {
            eprintln!("this system does not say how much memory a process took: only the plan was checked");
            return;
        };
        // What the allocator keeps differs between systems: the plan must cover what was taken, within a quarter.
        let ratio = measured / of("total");
        eprintln!("{name}: {ratio:.3} of the plan");
        assert!(ratio < 1.25, "{name}: planned {}, measured {measured}: {ratio}", of("total"));
    }
}

/// A checkpoint of random codes: the projections as the kind stores them, the rest as numbers.
fn packed(kind: &str, config: &Value, files: &ModelFiles, dir: &Path) {
    let count = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, inner, layers) = (count("hidden_size"), count("intermediate_size"), count("num_hidden_layers"));
    let group = 128;
    let quantisation = match kind {
        "gptq" => json!({"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": false}),
        "awq" => json!({"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": true, "version": "gemm"}),
        _ => json!({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}),
    };
    let mut config = config.clone();
    config["quantization_config"] = quantisation;
    let numbers = |count: usize, value: f32| value.to_le_bytes().repeat(count);
    let noise = |count: usize| -> Vec<u8> { (0..count).map(|i| ((i * 2_654_435_761) >> 13) as u8 & 0x77).collect() };
    let mut tensors: Vec<(String, &str, Vec<usize>, Vec<u8>)> = vec![];
    let mut plain = |name: String, shape: Vec<usize>, value: f32| {
        let bytes = numbers(shape.iter().product(), value);
        tensors.push((name, "F32", shape, bytes));
    };
    plain("model.embed_tokens.weight".into(), vec![count("vocab_size"), hidden], 0.05);
    plain("model.norm.weight".into(), vec![hidden], 1.0);
    for layer in 0..layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            plain(format!("model.layers.{layer}.{norm}.weight"), vec![hidden], 1.0);
        }
    }
    let attention = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|name| (format!("self_attn.{name}"), hidden, hidden));
    let mlp = [("gate_proj", inner, hidden), ("up_proj", inner, hidden), ("down_proj", hidden, inner)];
    let mlp = mlp.map(|(name, out, inputs)| (format!("mlp.{name}"), out, inputs));
    let all: Vec<_> = attention.into_iter().chain(mlp).collect();
    for (layer, (name, out, inputs)) in (0..layers).flat_map(|layer| all.iter().map(move |of| (layer, of))) {
        let (name, groups) = (format!("model.layers.{layer}.{name}"), inputs / group);
        let mut part =
            |part: &str, kind, shape: Vec<usize>, bytes| tensors.push((format!("{name}.{part}"), kind, shape, bytes));
        let zeros = || vec![0x77; groups * out / 2];
        match kind {
            "gptq" => part("qweight", "I32", vec![inputs / 8, *out], noise(inputs * out / 2)),
            "awq" => part("qweight", "I32", vec![*inputs, out / 8], noise(inputs * out / 2)),
            _ => part("weight", "F8_E4M3", vec![*out, *inputs], noise(inputs * out)),
        }
        if kind == "fp8" {
            part("weight_scale_inv", "F32", vec![out / 128, inputs / 128], numbers(out * inputs / 128 / 128, 1e-3));
        } else {
            part("qzeros", "I32", vec![groups, out / 8], zeros());
            part("scales", "F32", vec![groups, *out], numbers(groups * out, 2e-3));
        }
    }
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    for (name, kind, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(name, json!({"dtype": kind, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::from(header).to_string();
    std::fs::create_dir_all(dir).unwrap();
    for (name, bytes) in &files.files {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let whole = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(dir.join("model.safetensors"), whole).unwrap();
}

#[test]
fn a_base_in_its_blocks_takes_what_the_plan_says() {
    let dir = tempfile::tempdir().unwrap();
    let (config, files, model) = model(768, 2048, 10);
    let gguf = dir.path().join("model.gguf");
    save_gguf(&model, &files, "a model", GgufType::Q8, &gguf).unwrap();
    drop(model);
    let mut bases: Vec<(&str, PathBuf)> = vec![("Q8_0", gguf)];
    for kind in ["gptq", "awq", "fp8"] {
        let path = dir.path().join(kind);
        packed(kind, &config, &files, &path);
        bases.push((kind, path));
    }
    for (name, base) in bases {
        let lora = |base: &str| format!("[lora]\nrank = 8\nquantised-base = \"{base}\"\n");
        let (_, dense) = run_file(dir.path(), &format!("{name}-dense"), &base, &lora("none"));
        let (file, memory) = run_file(dir.path(), name, &base, &lora("as-stored"));
        let weights = |memory: &Value| memory["phases"][0]["weights"].as_f64().unwrap();
        assert!(weights(&memory) < 0.3 * weights(&dense), "{name}: {memory} {dense}");
        let said = memory["kept"].as_str().unwrap().to_lowercase();
        assert!(said.contains("70 projections as stored") && said.contains(&name.to_lowercase()), "{said}");
        assert!(spo(&["plan", &file]).out.to_lowercase().contains(&said));
        let planned = memory["phases"][0]["total"].as_f64().unwrap();
        let Some(measured) = measured(dir.path(), name, &file) else { return };
        let ratio = measured / planned;
        eprintln!("{name}: planned {:.1} MiB, measured {:.1}: {ratio:.3}", planned / 1048576.0, measured / 1048576.0);
        assert!((0.85..1.15).contains(&ratio), "{name}: planned {planned}, measured {measured}: {ratio}");
    }
}

/// Writes a file of rows of 760 token ids and returns its bytes.
fn rows_of_ids(path: &Path, rows: usize) -> u64 {
    let ids = |row: usize, count: usize| -> String {
        let ids: Vec<String> = (0..count).map(|at| (3 + (row * 31 + at * 7) % 500).to_string()).collect();
        ids.join(",")
    };
    let line = |row: usize| {
        let [prompt, chosen, rejected] = [ids(row, 260), ids(row + 1, 250), ids(row + 2, 250)];
        format!(r#"{{"prompt_ids":[{prompt}],"chosen_ids":[{chosen}],"rejected_ids":[{rejected}]}}"#)
    };
    let lines: Vec<String> = (0..500).map(line).collect();
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    (0..rows).for_each(|row| writeln!(file, "{}", lines[row % lines.len()]).unwrap());
    file.flush().unwrap();
    std::fs::metadata(path).unwrap().len()
}

/// Trains and returns the most memory of its own that the process was seen with, pages of mapped files left out: those the
/// system takes back. `None` where the system does not tell them apart.
fn own_memory(file: &str, out: &Path) -> Option<u64> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    command.args(["train", file, "--out"]).arg(out).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (status, mut most) = (format!("/proc/{}/status", child.id()), 0);
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(1024 * kilobytes.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    Some(most).filter(|bytes| *bytes > 0)
}

/// Rows that count twice beside rows mixed by their tokens, in files that are several times as large as what a run of them takes
/// beyond a run of a few rows.
#[test]
fn a_mix_may_be_larger_than_memory() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, rows: [usize; 3]| {
        let names = ["twice", "three-shares", "one-share"].map(|kind| dir.path().join(format!("{name}-{kind}.jsonl")));
        let bytes: u64 = names.iter().zip(rows).map(|(path, rows)| rows_of_ids(path, rows)).sum();
        let held_out = dir.path().join(format!("{name}-held-out.jsonl"));
        rows_of_ids(&held_out, 8);
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260K");
        let [twice, three, one] = &names;
        let text = format!(
            r#"schema = 1
[model]
path = {model:?}
device = "cpu"
[[data]]
path = {twice:?}
weight = 2
[[data]]
path = {three:?}
token-share = 3
[[data]]
path = {one:?}
token-share = 1
[[data]]
path = {held_out:?}
split = "test"
[training]
steps = 2
pairs-per-step = 2
[[rounds]]
dimension = "preference"
[evaluation]
bootstrap-resamples = 40
kl-samples = 0
samples = 0
"#
        );
        let file = dir.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        Some((bytes, own_memory(file.to_str().unwrap(), &dir.path().join(name))?))
    };
    let (Some((_, few)), Some((bytes, many))) = (run("few", [20, 40, 10]), run("many", [20_000, 90_000, 10_000]))
    else {
        eprintln!("this system does not say what of a process's memory is its own");
        return;
    };
    let [bytes, few, many] = [bytes, few, many].map(|bytes| bytes as f64 / 1_048_576.0);
    eprintln!("{bytes:.0} MiB of rows: {many:.1} MiB, {:.1} more than with a few rows", many - few);
    assert!(many - few < bytes / 3.0, "{bytes} MiB of rows took {many} MiB, a few rows {few}");
}
