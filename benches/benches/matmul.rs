//! The engine's own matrix product against the `gemm` crate, which burn's CPU backend multiplies with.
//!
//! The linear layers of the yardstick's medium model and of SmolLM2-135M, forward and backward, on 512 tokens (the head:
//! 256 rows), and one head's attention. On one thread; `SPO_BENCH_THREADS=2` takes more. A machine that is busy is
//! compared in turns only: run it several times and take ratios.
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gemm::Parallelism;
use spo_kernels::cpu::{Matrix, product};

/// Rows, columns and inner dimension of a product `a b`, and which operands are stored transposed.
struct Case {
    name: String,
    rows: usize,
    columns: usize,
    inner: usize,
    transposed: [bool; 2],
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    let mut add = |name: String, [rows, columns, inner]: [usize; 3], transposed: [bool; 2]| {
        cases.push(Case { name, rows, columns, inner, transposed });
    };
    for (model, hidden, kv, ffn, vocab) in
        [("medium", 512, 256, 1376, 32_000), ("SmolLM2-135M", 576, 192, 1536, 49_152)]
    {
        let layers = [("q", 512, hidden, hidden), ("k", 512, hidden, kv), ("up", 512, hidden, ffn)];
        let others = [("down", 512, ffn, hidden), ("head", 256, hidden, vocab), ("adapter", 512, hidden, 16)];
        for (layer, tokens, inputs, outputs) in layers.into_iter().chain(others) {
            add(format!("{model} {layer}, forward"), [tokens, outputs, inputs], [false, true]);
            add(format!("{model} {layer}, d_x"), [tokens, inputs, outputs], [false, false]);
            add(format!("{model} {layer}, d_w"), [outputs, inputs, tokens], [true, false]);
        }
    }
    add("attention, scores".into(), [128, 256, 64], [false, true]);
    add("attention, values".into(), [128, 64, 256], [false, false]);
    add("attention, d_k".into(), [256, 64, 128], [true, false]);
    cases
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index * 37 % 101) as f32 / 70.0 - 0.7).collect()
}

/// Row and column stride of `[rows, columns]`.
fn strides([rows, columns]: [usize; 2], transposed: bool) -> (isize, isize) {
    if transposed { (1, rows as isize) } else { (columns as isize, 1) }
}

fn matmul(criterion: &mut Criterion) {
    let threads = std::env::var("SPO_BENCH_THREADS").map_or(1, |text| text.parse().expect("a number of threads"));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first pool");
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    for Case { name, rows, columns, inner, transposed: [a_transposed, b_transposed] } in cases() {
        let (a, b) = (numbers(rows * inner), numbers(inner * columns));
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Elements((2 * rows * columns * inner) as u64));
        group.bench_function("own", |bencher| {
            let view = |values, [rows, columns]: [usize; 2], transposed| match transposed {
                true => Matrix::new(values, columns, rows).transposed(),
                false => Matrix::new(values, rows, columns),
            };
            let (a, b) = (view(&a, [rows, inner], a_transposed), view(&b, [inner, columns], b_transposed));
            bencher.iter(|| product(a, b));
        });
        group.bench_function("gemm", |bencher| {
            let ((a_row, a_column), (b_row, b_column)) =
                (strides([rows, inner], a_transposed), strides([inner, columns], b_transposed));
            bencher.iter(|| {
                let mut out = Vec::<f32>::with_capacity(rows * columns);
                // SAFETY: the strides are those of matrices that fill `a`, `b` and `out`, and all of `out` is written.
                unsafe {
                    gemm::gemm(
                        rows,
                        columns,
                        inner,
                        out.as_mut_ptr(),
                        1,
                        columns as isize,
                        false,
                        a.as_ptr(),
                        a_column,
                        a_row,
                        b.as_ptr(),
                        b_column,
                        b_row,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        parallelism,
                    );
                    out.set_len(rows * columns);
                }
                out
            });
        });
        group.finish();
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
