//! Writes the CUDA C++ of every GPU kernel to a directory: `cuda_text DIR`. Nothing of NVIDIA's is needed for that;
//! `benches/gpu/nvrtc.py DIR` compiles the files.

use cubecl::prelude::*;
use half::{bf16, f16};
use spo_kernels::gpu::attention::{self, Gradients, Group, Heads, Inputs, Outputs, Plan};
use spo_kernels::gpu::embedding::{self, Sorted};
use spo_kernels::gpu::glu::{self, Activation};
use spo_kernels::gpu::head::{self, Options};
use spo_kernels::gpu::norm::{self, InputGradient, Kind, Norm, Weights};
use spo_kernels::gpu::optimizer::{self, State, Step};
use spo_kernels::gpu::rope::{self, Table, Turn};
use spo_kernels::gpu::{Buffer, choose, dequantise, sums, text};
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let directory = std::env::args().nth(1).ok_or_else(|| io::Error::other("which directory?"))?;
    let directory = Path::new(&directory);
    std::fs::create_dir_all(directory)?;
    let client = cubecl::Device::default().client();
    for (variant, source) in sources(&client) {
        std::fs::write(directory.join(format!("{variant}.cu")), source)?;
    }
    Ok(())
}

/// Kernels by name and variant.
fn sources(client: &Client) -> Vec<(String, String)> {
    let mut all = vec![];
    let mut add = |variant: &str, launches: &dyn Fn()| {
        all.extend(text::recorded(launches).into_iter().map(|(name, text)| (format!("{name}.{variant}"), text)));
    };
    for dim in [64, 128, 256] {
        add(&format!("bf16.{dim}"), &|| attend::<bf16>(client, dim, None, false));
        add(&format!("bf16.{dim}.matrix"), &|| attend::<bf16>(client, dim, None, true));
        add(&format!("f16.{dim}.matrix"), &|| attend::<f16>(client, dim, None, true));
        add(&format!("f32.{dim}"), &|| attend::<f32>(client, dim, None, false));
    }
    for (name, matrix) in [("bf16.128.capped", false), ("bf16.128.capped.matrix", true)] {
        add(name, &|| attend::<bf16>(client, 128, Some(50.0), matrix));
    }
    for (name, kind) in [("rms", Kind::Rms), ("rms-offset", Kind::RmsOffset), ("layer", Kind::Layer)] {
        add(&format!("bf16.{name}"), &|| norms::<bf16>(client, kind));
        add(&format!("f32.{name}"), &|| norms::<f32>(client, kind));
    }
    for (name, of) in [("silu", Activation::Silu), ("gelu", Activation::Gelu), ("gelu-tanh", Activation::GeluTanh)] {
        add(&format!("bf16.{name}"), &|| units::<bf16>(client, of));
        add(&format!("f32.{name}"), &|| units::<f32>(client, of));
    }
    for (name, softcap) in [("plain", None), ("capped", Some(30.0))] {
        add(&format!("bf16.{name}"), &|| heads::<bf16>(client, softcap));
    }
    add("bf16", &|| others::<bf16>(client));
    add("f32", &|| others::<f32>(client));
    all
}

fn attend<E: Float + CubeElement>(client: &Client, dim: usize, softcap: Option<f32>, matrix: bool) {
    let empty = |heads: usize| Buffer::empty::<E>(client, 3 * heads * dim);
    let heads = Heads { heads: 4, kv_heads: 2, dim, scale: 0.1, softcap, matrix };
    let plan = Plan::new(&[Group { prompt: 1, answers: vec![2] }], None).upload(client);
    let inputs = Inputs { q: empty(4), k: empty(2), v: empty(2) };
    let outputs = Outputs { y: empty(4), log_sums: Buffer::empty::<f32>(client, 12) };
    attention::forward::<E>(client, plan.clone(), heads, inputs.clone(), outputs.clone());
    let gradients = Gradients { q: empty(4), k: empty(2), v: empty(2) };
    attention::backward::<E>(client, plan, heads, inputs, outputs, empty(4), gradients);
}

fn norms<E: Float + CubeElement>(client: &Client, kind: Kind) {
    const WIDTH: usize = 2048;
    let [x, y, d_y] = [(); 3].map(|()| Buffer::empty::<E>(client, WIDTH));
    let [weight, bias] = [(); 2].map(|()| Buffer::empty::<E>(client, WIDTH));
    let statistics = Buffer::empty::<f32>(client, 2);
    let weights = Weights { weight: weight.clone(), bias: Some(bias) };
    let norm = Norm { kind, epsilon: 1e-6, offset: 1.0 };
    norm::statistics::<E>(client, norm, WIDTH, x.clone(), statistics.clone());
    norm::forward::<E>(client, norm, WIDTH, x.clone(), weights.clone(), y.clone(), statistics.clone());
    norm::forward_of_sum::<E>(client, norm, WIDTH, x.clone(), d_y.clone(), weights, y.clone(), statistics.clone());
    let to = InputGradient::Add(y);
    norm::backward::<E>(client, norm, WIDTH, x.clone(), weight, d_y.clone(), statistics.clone(), to);
    let [d_weight, d_bias] = [(); 2].map(|()| Buffer::empty::<f32>(client, WIDTH));
    norm::backward_of_weights::<E>(client, WIDTH, x, d_y, statistics, d_weight, Some(d_bias));
}

fn units<E: Float + CubeElement>(client: &Client, of: Activation) {
    let empty = |len| Buffer::empty::<E>(client, len);
    glu::forward::<E>(client, of, empty(64), empty(64), empty(64));
    glu::backward::<E>(client, of, empty(64), empty(64), empty(64));
    glu::forward_rows::<E>(client, of, 32, empty(128), empty(64));
    glu::backward_rows::<E>(client, of, 32, empty(128), empty(64));
    glu::activate::<E>(client, of, empty(64), empty(64));
    glu::activate_backward::<E>(client, of, empty(64), empty(64));
}

fn heads<E: Float + CubeElement>(client: &Client, softcap: Option<f32>) {
    const VOCAB: usize = 64;
    let options = Options { scale: 1.0, softcap };
    let products = Buffer::empty::<f32>(client, VOCAB);
    let targets = Buffer::empty::<u32>(client, 1);
    let [logps, log_sums] = [(); 2].map(|()| Buffer::empty::<f32>(client, 1));
    head::log_probs(client, options, VOCAB, products.clone(), targets.clone(), logps, log_sums.clone());
    let gradients = Buffer::empty::<E>(client, VOCAB);
    head::gradients::<E>(client, options, VOCAB, products.clone(), targets.clone(), log_sums.clone(), gradients);
    head::products_to_gradients(client, options, VOCAB, products, targets, log_sums);
}

fn others<E: Float + CubeElement>(client: &Client) {
    let empty = |len| Buffer::empty::<E>(client, len);
    let wide = |len| Buffer::empty::<f32>(client, len);
    let table = Table { cos: wide(32), sin: wide(32), turned: 64 };
    rope::turn::<E>(client, Turn::Forth, table, Buffer::empty::<u32>(client, 1), 64, empty(128));
    embedding::accumulate::<E>(client, 64, &Sorted::new(&[0]), empty(64), wide(64));
    for adds in [false, true] {
        let layout = dequantise::Layout { bits: 4, block: 64, inputs: 64, adds };
        let (packed, scales) = (Buffer::empty::<u32>(client, 8), wide(1 + usize::from(adds)));
        dequantise::rows::<E>(client, layout, 0, packed, scales, wide(16), empty(64));
    }
    let chosen = || Buffer::empty::<u32>(client, 1);
    choose::most_likely::<E>(client, 64, empty(64), chosen());
    choose::drawn::<E>(client, 64, empty(64), 1.0, wide(1), chosen());
    sums::accumulate::<E>(client, wide(64), empty(64));
    sums::squares(client, wide(64), wide(1), 0);
    sums::clip_factor(client, 1.0, 1.0, wide(4), wide(1), wide(1));
    let state = State { weight: wide(64), first: wide(64), second: wide(64) };
    let step = Step { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, keep: 1.0, rate: 1e-3, correction: 1.0 };
    optimizer::step(client, step, state.clone(), wide(64), wide(1));
    optimizer::step_and_store::<E>(client, step, state, wide(64), wide(1), empty(64));
}
