//! `spo doctor`

use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use clap::Args;
use serde_json::{Map, Value, json};
use spo_core::objective;
use spo_eval::report::bytes;
use spo_hub::Settings;
use spo_kernels::memory::card;
use spo_model::device::{self, COMPILED, MatmulStrategy};
use spo_model::family::FAMILIES;
use spo_model::storage::Storage;
use spo_train::persist::disk_space::free_bytes;
use spo_train::step::memory::available_bytes;

use crate::error::CliError;
use crate::output::Output;

/// Show what this machine and build can do, in one screen to paste into a bug report
///
/// Nothing in it is secret: of a token it says only whether there is one. Every kind of device is opened and multiplies two
/// matrices. The network is not asked.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Variables that change what spo does; their values hold no secret.
const VARIABLES: [&str; 10] = [
    "SPO_LOG",
    "RAYON_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_PATH",
    "VK_ICD_FILENAMES",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "NO_COLOR",
    "RUST_LOG",
];

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let facts = [
            ("spo", build()),
            ("machine", machine()),
            ("devices", devices()),
            ("hub", hub()),
            ("environment", environment()),
        ];
        if self.json {
            let facts: Map<String, Value> = facts.into_iter().map(|(name, facts)| (name.to_owned(), facts)).collect();
            return output.pretty_json(&facts);
        }
        for (name, facts) in facts {
            let mut name = name;
            for (key, value) in facts.as_object().into_iter().flatten() {
                let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                output.line(format_args!("{name:<12} {key:<12} {text}"))?;
                name = "";
            }
        }
        Ok(())
    }
}

fn build() -> Value {
    let on = |on: bool, name: &'static str| on.then_some(name);
    let features = [
        on(cfg!(feature = "hub"), "hub"),
        on(cfg!(feature = "fusion"), "fusion"),
        on(cfg!(feature = "kernel-cache"), "kernel-cache"),
    ];
    let features: Vec<&str> = COMPILED.iter().copied().chain(features.into_iter().flatten()).collect();
    let known = format!(
        "{} objectives, {} model families, {} scorers",
        objective::registry().len(),
        FAMILIES.len(),
        spo_score::Registry::builtin().entries().len()
    );
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "target": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "features": features.join(", "),
        "profile": if cfg!(debug_assertions) { "debug: slow" } else { "release" },
        "knows": known,
    })
}

fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let here = Path::new(".");
    let free = free_bytes(here).map_or("unknown".into(), bytes);
    let memory = match available_bytes() {
        0 => "unknown".into(),
        available => format!("{} available", bytes(available)),
    };
    json!({ "processor": format!("{cores} threads, {}", vectors()), "memory": memory, "disk here": format!("{free} free") })
}

/// The widest vectors of the processor.
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    return match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx2")) {
        (true, _) => "AVX-512",
        (false, true) => "AVX2",
        _ => "neither AVX2 nor AVX-512: slow",
    };
    #[cfg(target_arch = "aarch64")]
    return "NEON";
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return "vectors unknown";
}

fn devices() -> Value {
    let states = COMPILED.iter().map(|name| ((*name).to_owned(), tried(name).into()));
    let auto = device::open("auto").map_or_else(|error| error.to_string(), |device| device::describe(&device));
    Value::Object(states.chain([("auto is".to_owned(), auto.into())]).collect())
}

/// What became of a product of two matrices on a kind of device.
fn tried(name: &str) -> String {
    const SIZE: usize = 256;
    let opened = match device::open(name) {
        Ok(device) => device,
        Err(error) => return error.to_string(),
    };
    let memory = card(&opened).and_then(|card| card.total).map_or(String::new(), |total| format!(", {}", bytes(total)));
    let ones: Tensor<2> = Tensor::ones([SIZE, SIZE], &opened);
    let product = |started: Instant| {
        let sum: f32 = ones.clone().matmul(ones.clone()).sum().into_scalar();
        (sum, started.elapsed().as_secs_f64())
    };
    product(Instant::now());
    let (sum, seconds) = product(Instant::now());
    match sum == (SIZE * SIZE * SIZE) as f32 {
        true => {
            let name = device::describe(&opened);
            format!("works, {name}{memory}, a product of {SIZE}² in {:.2} ms{}", 1e3 * seconds, attention(&opened))
        }
        false => format!("WRONG: the sum of a product is {sum}"),
    }
}

/// The types whose attention multiplies by matrix units, which is tried.
fn attention(device: &Device) -> String {
    let by_units = |storage: &Storage| device::attend_by_matrix_units(device, MatmulStrategy::Auto, *storage);
    let types: Vec<&str> = [Storage::Bf16, Storage::F16].into_iter().filter(by_units).map(Storage::name).collect();
    match types.is_empty() {
        true => String::new(),
        false => format!(", attention of {} by matrix units", types.join(" and ")),
    }
}

fn hub() -> Value {
    if !cfg!(feature = "hub") {
        return json!({ "hub": "not in this build" });
    }
    let settings = Settings::from_env();
    let free = free_bytes(&settings.cache).map_or("unknown".into(), bytes);
    json!({
        "endpoint": settings.endpoint,
        "cache": format!("{}, {free} free", settings.cache.display()),
        "token": if settings.token.is_some() { "set" } else { "not set" },
        "offline": settings.offline,
    })
}

fn environment() -> Value {
    let set = VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?.into())));
    let set: Map<String, Value> = set.collect();
    if set.is_empty() { json!({ "": "nothing that matters is set" }) } else { Value::Object(set) }
}
