//! Every way that a graphics card can multiply, on the products of a model.

use std::time::Instant;

use burn::tensor::{Device, Distribution, FloatDType, Tensor};
use serde::Serialize;
use spo_model::ModelSpec;
use spo_model::device::{self, MatmulStrategy, multiplied, on_cpu};

use super::Arguments;
use super::setting::Setting;
use crate::error::CliError;
use crate::output::{Output, note};
use crate::places::Place;

/// Seconds that the products between two looks at the clock should take, and how often the clock is looked at.
const ROUND: f64 = 0.02;
const ROUNDS: usize = 3;
/// At most so many products are in the queue of the device at once.
const QUEUED: usize = 32;
/// How far a product may be from `auto`'s, over its largest number: sums of f16 and bf16 are rounded, f32 may be multiplied
/// in TF32.
const AGREE: f32 = 2e-2;

/// How cubek's reasons begin.
const UNAVAILABLE: &str = "Unable to launch matmul because a required feature is unavailable: ";

/// A layer's matrix, `[out, in]`, and how many a block has.
struct Layer {
    name: &'static str,
    out: usize,
    inputs: usize,
    count: usize,
}

/// One product of a layer.
#[derive(Debug, Clone, Serialize)]
struct Product {
    product: String,
    rows: usize,
    inner: usize,
    columns: usize,
    ms: f64,
    tflops: f64,
    /// The largest distance from `auto`'s, over its largest number.
    difference: f32,
}

/// What one strategy came to.
#[derive(Debug, Serialize)]
struct Record {
    what: &'static str,
    strategy: &'static str,
    device: String,
    dtype: String,
    tokens: usize,
    products: Vec<Product>,
    /// All products of a block, each as often as it has it, and those of the head.
    block_ms: f64,
    head_ms: f64,
    /// Of all of them, each once.
    tflops: f64,
    /// Why it is not measured, or not to be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

fn layers(spec: &ModelSpec) -> Vec<Layer> {
    let (hidden, heads, kv) = (spec.hidden_size, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let inner = spec.experts.as_ref().map_or(spec.intermediate_size, |experts| experts.intermediate_size);
    vec![
        Layer { name: "q", out: heads, inputs: hidden, count: 1 },
        Layer { name: "k, v", out: kv, inputs: hidden, count: 2 },
        Layer { name: "o", out: hidden, inputs: heads, count: 1 },
        Layer { name: "up", out: inner, inputs: hidden, count: spec.mlp.projections().len().saturating_sub(1) },
        Layer { name: "down", out: hidden, inputs: inner, count: 1 },
        Layer { name: "head", out: spec.vocab_size, inputs: hidden, count: 0 },
    ]
}

/// The operands of a layer's products: forward, and the gradients of its input and of its weight.
fn operands(layer: &Layer, tokens: usize, dtype: FloatDType, device: &Device) -> [(&'static str, [Tensor<2>; 2]); 3] {
    let random = |shape| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), device).cast(dtype);
    let (x, weight, d_y) =
        (random([tokens, layer.inputs]), random([layer.out, layer.inputs]), random([tokens, layer.out]));
    [
        ("forward", [x.clone(), weight.clone().transpose()]),
        ("d_x", [d_y.clone(), weight]),
        ("d_w", [d_y.transpose(), x]),
    ]
}

/// Measures one product; the answer of another strategy, if there is one, is what it is held against.
fn measure(
    strategy: MatmulStrategy,
    product: String,
    [a, b]: &[Tensor<2>; 2],
    expected: Option<&Tensor<2>>,
) -> Result<(Product, Tensor<2>), String> {
    let once = || multiplied(strategy, a.clone(), b.clone()).ok_or("only graphics cards have strategies")?;
    let wait = |x: Tensor<2>| x.slice([0..1, 0..1]).try_into_data().map(drop).map_err(|error| error.to_string());
    let found = once()?;
    wait(found.clone())?;
    let difference = match expected {
        None => 0.0,
        Some(expected) => {
            let largest = |x: Tensor<2>| {
                x.cast(FloatDType::F32).abs().max().try_into_scalar::<f32>().map_err(|error| error.to_string())
            };
            largest(found.clone() - expected.clone())? / largest(expected.clone())?.max(f32::MIN_POSITIVE)
        }
    };
    let round = |count: usize| {
        let started = Instant::now();
        let mut last = None;
        for _ in 0..count {
            last = Some(once()?);
        }
        wait(last.ok_or("nothing was multiplied")?)?;
        Ok::<_, String>(started.elapsed().as_secs_f64() / count as f64)
    };
    let count = ((ROUND / round(1)?) as usize).clamp(1, QUEUED);
    let mut seconds = f64::INFINITY;
    for _ in 0..ROUNDS {
        seconds = seconds.min(round(count)?);
    }
    let ([rows, inner], [_, columns]) = (a.dims(), b.dims());
    let tflops = 2.0 * (rows * inner * columns) as f64 / seconds / 1e12;
    Ok((Product { product, rows, inner, columns, ms: 1e3 * seconds, tflops, difference }, found))
}

/// All strategies, `auto` first, or `auto` and the one that is asked for. Says one line for each.
pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), CliError> {
    let device = device::open(arguments.device.as_deref().unwrap_or("auto"))?;
    if on_cpu(&device) {
        return Err(CliError::argument(
            "--what matmul",
            "the CPU",
            "a graphics card: --device cuda, vulkan, metal, wgpu",
        ));
    }
    device::check_dtype(&device, arguments.dtype.storage())?;
    let policy = Place::named(&arguments.model, None, None)?;
    let layers = layers(&ModelSpec::from_path(&policy.model)?);
    let wanted = |strategy: &MatmulStrategy| match arguments.matmul {
        MatmulStrategy::Auto => true,
        named => *strategy == named,
    };
    let rest = MatmulStrategy::ALL.iter().copied().filter(|strategy| *strategy != MatmulStrategy::Auto);
    let strategies: Vec<_> = std::iter::once(MatmulStrategy::Auto).chain(rest.filter(wanted)).collect();
    let mut records: Vec<_> = strategies.iter().map(|strategy| Record::new(*strategy, arguments, &device)).collect();
    for layer in layers.iter().filter(|layer| layer.out > 0 && layer.inputs > 0) {
        for (kind, operands) in operands(layer, arguments.tokens, arguments.dtype.storage().dtype().into(), &device) {
            let mut expected = None;
            for (strategy, record) in strategies.iter().zip(&mut records) {
                record
                    .add(layer, measure(*strategy, format!("{} {kind}", layer.name), &operands, expected.as_ref()))
                    .map(|product| expected.get_or_insert(product));
            }
            Setting::sync(&device);
            note(format!("{} {kind}: measured", layer.name));
        }
    }
    records.iter_mut().for_each(Record::sum_up);
    match arguments.json {
        true => records.iter().try_for_each(|record| output.json(record)),
        false => output.line(table(&records)),
    }
}

impl Record {
    fn new(strategy: MatmulStrategy, arguments: &Arguments, device: &Device) -> Self {
        Self {
            what: "matmul",
            strategy: strategy.name(),
            device: device::describe(device),
            dtype: arguments.dtype.storage().name().into(),
            tokens: arguments.tokens,
            products: vec![],
            block_ms: 0.0,
            head_ms: 0.0,
            tflops: 0.0,
            refused: None,
        }
    }

    /// The rate of all products together.
    fn sum_up(&mut self) {
        let ms: f64 = self.products.iter().map(|product| product.ms).sum();
        let operations: f64 = self.products.iter().map(|product| product.tflops * product.ms).sum();
        self.tflops = if ms > 0.0 { operations / ms } else { 0.0 };
    }

    /// Adds what was measured; gives the product itself, if it was the first.
    fn add(&mut self, layer: &Layer, measured: Result<(Product, Tensor<2>), String>) -> Option<Tensor<2>> {
        match measured {
            Ok((product, tensor)) => {
                match layer.count {
                    0 => self.head_ms += product.ms,
                    count => self.block_ms += count as f64 * product.ms,
                }
                if product.difference.is_nan() || product.difference > AGREE {
                    self.refused
                        .get_or_insert(format!("WRONG: {} is off by {:.1e}", product.product, product.difference));
                }
                self.products.push(product);
                Some(tensor)
            }
            Err(reason) => {
                let reason = reason.lines().next().unwrap_or_default();
                let reason = reason.strip_prefix(UNAVAILABLE).unwrap_or(reason);
                self.refused.get_or_insert(format!("{}: {reason}", layer.name));
                None
            }
        }
    }
}

/// A line for each strategy, the fastest first.
fn table(records: &[Record]) -> String {
    let mut sorted: Vec<_> = records.iter().collect();
    sorted.sort_by(|a, b| {
        (a.refused.is_some(), a.block_ms).partial_cmp(&(b.refused.is_some(), b.block_ms)).expect("times are numbers")
    });
    let mut lines = vec![format!("{:<24}{:>12}{:>12}{:>12}  ", "strategy", "block, ms", "head, ms", "TFLOP/s")];
    lines.extend(sorted.iter().map(|record| {
        let (strategy, said) = (record.strategy, record.refused.as_deref().unwrap_or(""));
        let [block, head, rate] = [record.block_ms, record.head_ms, record.tflops];
        match rate > 0.0 {
            true => format!("{strategy:<24}{block:>12.2}{head:>12.2}{rate:>12.2}  {said}").trim_end().to_owned(),
            false => format!("{strategy:<24}{:>12}{:>12}{:>12}  {said}", "–", "–", "–"),
        }
    }));
    lines.join("\n")
}
