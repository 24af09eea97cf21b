//! The operations with forms of their own, on the device that `SPO_TEST_DEVICE` names (`cpu` if unset), against their
//! references in f64 on the CPU: values, and gradients through the tape.

use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use spo_kernels::accumulate;
use spo_kernels::adamw::AdamW;
use spo_kernels::attention::{AttentionSpec, Group, PackedAttention};
use spo_kernels::choose::{self, Draws, choose};
use spo_kernels::embedding;
use spo_kernels::glu::{self, glu};
use spo_kernels::head::{self, LogitOptions};
use spo_kernels::linear;
use spo_kernels::product::add_transposed;
use spo_kernels::pull;
use spo_kernels::rms_norm::{self, rms_norm};
use spo_kernels::rope::{self, Angles, rotate};
use spo_kernels::squares::sum_of_squares;
use spo_model::decoder::blocks::{BlockBits, BlockWeight};
use spo_model::device::{self, MatmulStrategy, on_cpu};
use spo_model::quant::packed::{Affine, BlockRows, Book, Fp8, Microscaling, Packed, Scales};
use spo_model::quant::{Coding, FORMATS};
use spo_model::storage::Storage;

fn device() -> Device {
    let name = std::env::var("SPO_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    device::open(&name).unwrap_or_else(|error| panic!("SPO_TEST_DEVICE={name}: {error}"))
}

/// Types that the device computes in, with the largest error as a share of the largest number.
fn types(device: &Device) -> Vec<(DType, f64)> {
    let all = [(DType::F32, 1e-5), (DType::F16, 4e-3), (DType::BF16, 3e-2)];
    all.into_iter().filter(|(dtype, _)| device.supports_dtype(*dtype)).collect()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn wide<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    let x = if x.is_autodiff() { x.clone().inner() } else { x.clone() };
    x.to_device(&Device::flex()).cast(DType::F64).try_into_vec_as::<f64>().unwrap()
}

#[track_caller]
fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f64, |top, x| top.max(x.abs()));
    let error = found.iter().zip(expected).fold(0.0f64, |top, (a, b)| top.max((a - b).abs()));
    assert!(error <= tolerance * scale && found.iter().all(|x| x.is_finite()), "{what}: {error:e} of {scale:e}");
}

/// Output, and the gradients of the inputs for a gradient of the output.
fn parts<const N: usize>(
    inputs: [Tensor<2>; N],
    d_y: &Tensor<2>,
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> Vec<Vec<f64>> {
    let leaves = inputs.map(|x| x.autodiff().require_grad());
    let y = f(leaves.clone());
    let mut found = vec![wide(&y)];
    let tape = pull::pull([(&y, d_y)]).backward();
    found.extend(leaves.iter().map(|leaf| wide(&leaf.grad(&tape).unwrap())));
    found
}

/// The least error of products in f32, as a share of the largest number: NVIDIA's tensor cores multiply f32 as TF32, which
/// has 10 bits.
fn of_products() -> f64 {
    if format!("{:?}", device()).contains("Cuda") { 4e-3 } else { 0.0 }
}

/// `f` on the device in each of its types against `reference` in f64, from the same rounded inputs.
fn check<const N: usize>(
    what: &str,
    shapes: [[usize; 2]; N],
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    reference: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    check_within(what, 0.0, shapes, f, reference);
}

/// The same, where `least` of the largest number is no error in any type.
fn check_within<const N: usize>(
    what: &str,
    least: f64,
    shapes: [[usize; 2]; N],
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    reference: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let device = device();
    for (dtype, tolerance) in types(&device) {
        let tolerance = tolerance.max(least);
        let inputs = shapes.map(|shape| random(shape).cast(dtype));
        let exact = inputs.clone().map(|x| x.cast(DType::F64));
        let d_y = random(reference(exact.clone()).dims()).cast(dtype);
        let expected = parts(exact, &d_y.clone().cast(DType::F64), &reference);
        let found = parts(inputs.map(|x| x.to_device(&device)), &d_y.to_device(&device), &f);
        for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("{what}, {dtype:?}, part {part}"), found, expected, tolerance);
        }
    }
}

#[test]
fn gated_units_and_norms() {
    for shape in [[1, 3], [37, 200], [130, 1376]] {
        let others: &[_] = if shape[1] == 200 { &[glu::Activation::Gelu, glu::Activation::GeluTanh] } else { &[] };
        for &of in [glu::Activation::Silu].iter().chain(others) {
            let what = format!("{of:?} {shape:?}");
            check(&what, [shape; 2], |[gate, up]| glu(of, gate, up), |[gate, up]| glu::reference(of, gate, up));
        }
        for offset in [0.0, 1.0] {
            let flat = |weight: Tensor<2>| weight.reshape([shape[1]]);
            check(
                &format!("norm {shape:?} {offset}"),
                [shape, [1, shape[1]]],
                |[x, weight]| rms_norm(x, flat(weight), 1e-5, offset),
                |[x, weight]| rms_norm::reference(x, flat(weight), 1e-5, offset),
            );
        }
    }
}

#[test]
fn linear_layers() {
    for [tokens, inner, outer] in [[1, 3, 2], [37, 64, 50], [130, 200, 96]] {
        let what = format!("linear {tokens} {inner} {outer}");
        let shapes = [[tokens, inner], [outer, inner]];
        check_within(&what, of_products(), shapes, |[x, w]| linear::linear(x, w), |[x, w]| linear::reference(x, w));
    }
}

#[test]
fn weights_in_few_bits() {
    // 100 columns: the last block is cut short.
    for (bits, [tokens, inner, outer]) in [(BlockBits::Eight, [5, 100, 33]), (BlockBits::Four, [40, 128, 70])] {
        let dense = random([outer, inner]);
        let (on_host, here) =
            (BlockWeight::new(dense.clone(), bits), BlockWeight::new(dense.to_device(&device()), bits));
        let exact = on_host.dense().cast(DType::F64);
        let reference = |[x]: [Tensor<2>; 1]| {
            let weight = exact.clone().transpose();
            x.clone().matmul(if x.is_autodiff() { weight.autodiff() } else { weight })
        };
        check_within(bits.name(), of_products(), [[tokens, inner]], |[x]| here.product(x), reference);
    }
}

/// Matrices `[9, 256]` of every kind of block that files have, out of bytes that look like noise.
fn stored_matrices() -> Vec<(String, Packed)> {
    let dims = [9, 256];
    let noise = |count: usize| -> Vec<u8> { (0..count).map(|i| (i * i * 31 + i * 7 + 13) as u8).collect() };
    let floats = |count: usize| -> Vec<f32> { (0..count).map(|i| 0.01 + 0.003 * (i % 97) as f32).collect() };
    let words = |count: usize| noise(4 * count).as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let blocks = FORMATS.iter().filter(|format| matches!(format.coding, Coding::Codes(_))).map(|format| {
        // Scales of 16 bits of modest size, wherever they stand.
        let mut bytes = noise(format.size(dims[0] * dims[1]).unwrap());
        bytes.iter_mut().for_each(|byte| *byte &= 0x3b);
        (format.name.to_owned(), Packed::Rows(BlockRows { format, dims, bytes }))
    });
    let affine = [(2, false), (4, false), (4, true), (8, true)].map(|(bits, by_input)| {
        let group_of = by_input.then(|| (0..256u32).map(|input| input * 5 % 256 / 32).collect());
        let (scales, zeros) = (floats(9 * 8), noise(9 * 8).iter().map(|byte| byte & 3).collect());
        let of = Affine { dims, bits, words: words(9 * 256 * bits / 32), scales, zeros, group_of };
        (format!("affine {bits} {by_input}"), Packed::Affine(of))
    });
    let book = [64, 96].map(|block| {
        let book = std::array::from_fn(|code| code as f32 * 0.25 - 2.0);
        let scales = Scales::Plain(floats((9 * 256usize).div_ceil(block)));
        (format!("book {block}"), Packed::Book(Book { dims, codes: noise(9 * 128), book, block, scales }))
    });
    let codes = |mask: u8| noise(9 * 256).iter().map(|code| code & mask).collect();
    let fp8 = Packed::Fp8(Fp8 { dims, codes: codes(0xbb), scales: floats(2) });
    let scales = (0..9 * 8).map(|scale| 120 + scale % 9).collect();
    let mx = Packed::Microscaling(Microscaling { dims, codes: noise(9 * 128), scales });
    blocks.chain(affine).chain(book).chain([("FP8".into(), fp8), ("MXFP4".into(), mx)]).collect()
}

#[test]
fn weights_in_the_blocks_of_files() {
    let matrices = stored_matrices();
    assert_eq!(matrices.len(), 18);
    for (name, matrix) in matrices {
        let dims = matrix.dims();
        let exact = Tensor::<2>::from_data(TensorData::new(matrix.values(), dims), &Device::flex());
        let here = BlockWeight::coded(matrix.coded().unwrap(), dims, &device());
        let (found, expected) = (wide(&here.dense()), wide(&exact));
        match name.starts_with("affine") {
            true => assert_close(&name, &found, &expected, 1e-6),
            false => assert!(found == expected, "{name}"),
        }
        assert_eq!(matrix.form_on_cards().unwrap().bytes(dims), here.bytes(), "{name}");
        let exact = exact.cast(DType::F64).transpose();
        let reference = |[x]: [Tensor<2>; 1]| {
            x.clone().matmul(if x.is_autodiff() { exact.clone().autodiff() } else { exact.clone() })
        };
        check_within(&name, of_products(), [[5, 256]], |[x]| here.product(x), reference);
    }
}

#[test]
fn sums_of_gradients() {
    let device = device();
    for (dtype, tolerance) in types(&device) {
        // Tokens that share a row, rows that no token has.
        let (vocab, width, ids) = (11, 70, [3, 0, 3, 3, 10, 0, 7]);
        let rows = random([ids.len(), width]).cast(dtype);
        let (sum, more) = (random([vocab * width]), random([vocab * width]).cast(dtype));
        let exact = |x: &Tensor<1>| x.clone().cast(DType::F64);
        let expected = embedding::reference(exact(&sum), &ids, rows.clone().cast(DType::F64));
        let expected = accumulate::reference(expected, exact(&more));
        let found = embedding::add_rows(sum.to_device(&device), &ids, rows.to_device(&device));
        let found = accumulate::accumulate(found, more.to_device(&device));
        assert_eq!(found.dtype(), DType::F32);
        assert_close(&format!("sums, {dtype:?}"), &wide(&found), &wide(&expected), tolerance);

        let (sum, a, b) = (random([9, width]), random([40, 9]).cast(dtype), random([40, width]).cast(dtype));
        let [exact_sum, exact_a, exact_b] = [&sum, &a, &b].map(|x| x.clone().cast(DType::F64));
        let expected = add_transposed(exact_sum, exact_a, exact_b);
        let [sum, a, b] = [sum, a, b].map(|x| x.to_device(&device));
        let found = wide(&add_transposed(sum, a, b));
        assert_close(&format!("sum and product, {dtype:?}"), &found, &wide(&expected), tolerance.max(of_products()));
    }
}

#[test]
fn rotations() {
    for [tokens, heads, dim, turned] in [[1, 1, 2, 2], [9, 3, 12, 12], [40, 2, 16, 4], [300, 4, 64, 64]] {
        let of = |x: Tensor<2>, f: fn(Tensor<3>, &Angles) -> Tensor<3>| {
            let (device, dtype) = (x.device().inner(), x.dtype());
            let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
            let table = |f: fn(f64) -> f64| {
                let angle = |place: usize| (place / turned) as f64 * 0.7 + (place % (turned / 2)) as f64;
                let values: Vec<f64> = (0..tokens * turned).map(|place| f(angle(place))).collect();
                Tensor::<3>::from_data(TensorData::new(values, [tokens, 1, turned]), (&device, wide))
            };
            let angles = Angles::new(table(f64::cos), table(f64::sin));
            f(x.reshape([tokens, heads, dim]), &angles).reshape([tokens, heads * dim])
        };
        let what = format!("rotation {tokens} {heads} {dim} {turned}");
        check(&what, [[tokens, heads * dim]], |[x]| of(x, rotate), |[x]| of(x, rope::reference));
    }
}

#[test]
fn attention() {
    let groups = || {
        let first = Group { start: 0, prompt_len: 45, answer_lens: vec![20, 33] };
        vec![first, Group { start: 98, prompt_len: 1, answer_lens: vec![3, 1, 70] }]
    };
    let (tokens, heads, kv_heads, dim, device) = (173, 4, 2, 24, device());
    for (window, softcap) in [(None, None), (Some(7), None), (None, Some(5.0))] {
        for (dtype, tolerance) in types(&device) {
            let spec = AttentionSpec { window, softcap, ..AttentionSpec::plain(dim) };
            let inputs = [heads, kv_heads, kv_heads].map(|heads| random([tokens, heads, dim]).cast(dtype));
            let d_y = random([tokens, heads * dim]).cast(dtype);
            let [q, k, v] = inputs.clone().map(|x| x.cast(DType::F64));
            let on_host = PackedAttention::new(groups(), &Device::flex());
            let expected = on_host.reference(spec, q.clone(), k.clone(), v.clone());
            let gradients = on_host.reference_backward(spec, q, k, v, d_y.clone().cast(DType::F64));
            let here = PackedAttention::new(groups(), &device);
            let [q, k, v] = inputs.map(|x| x.to_device(&device));
            let what = format!("attention {window:?} {softcap:?} {dtype:?}");
            let y = here.forward(spec, q.clone(), k.clone(), v.clone());
            assert_close(&what, &wide(&y), &wide(&expected), tolerance);
            let found = here.backward(spec, q, k, v, d_y.to_device(&device));
            for (found, expected) in found.iter().zip(&gradients) {
                assert_close(&format!("{what}, backward"), &wide(found), &wide(expected), 2.0 * tolerance);
            }
        }
    }
}

#[test]
fn heads() {
    let device = device();
    for (rows, width, vocab) in [(1, 3, 7), (23, 12, 57), (40, 64, 1001)] {
        for (dtype, tolerance) in types(&device) {
            let tolerance = tolerance.max(of_products());
            let (hidden, weight) = (random([rows, width]).cast(dtype), (random([vocab, width]) * 0.4).cast(dtype));
            let targets: Vec<i32> = (0..rows).map(|row| ((row * 31 + 5) % vocab) as i32).collect();
            let targets =
                |device: &Device| Tensor::<1, Int>::from_data(TensorData::new(targets.clone(), [rows]), device);
            for options in [LogitOptions { scale: 1.0, softcap: None }, LogitOptions { scale: 0.5, softcap: Some(3.0) }]
            {
                let exact = [&hidden, &weight].map(|x| x.clone().cast(DType::F64));
                let [h, w] = exact;
                let (logps, gradients) = head::reference_gradients(h, w, targets(&Device::flex()), DType::F64, options);
                let [h, w] = [&hidden, &weight].map(|x| x.clone().to_device(&device));
                let found = head::gradients(h.clone(), w.clone(), targets(&device), DType::F32, options);
                let what = format!("head {rows} {vocab} {options:?} {dtype:?}");
                assert_close(&what, &wide(&found.0), &wide(&logps), tolerance);
                assert_close(&what, &wide(&found.1), &wide(&gradients), tolerance);
                let alone = head::logps(h, w, targets(&device), DType::F32, options);
                assert_eq!(wide(&alone), wide(&found.0), "{what}");
            }
        }
    }
}

#[test]
fn choices() {
    let device = device();
    for (rows, vocab) in [(1, 2), (3, 5), (4, 1000), (2, 30_011)] {
        for (dtype, _) in types(&device) {
            let logits = (random([rows, vocab]) * 3.0).cast(dtype);
            // Two that are the most likely.
            let largest = logits.clone().narrow(1, vocab / 2, 1);
            let logits = Tensor::cat(vec![logits.clone().narrow(1, 0, vocab - 1), largest], 1);
            let numbers = wide(&logits);
            let uniform: Vec<f32> = (0..rows).map(|row| (row as f32 + 0.37) / rows as f32).collect();
            let logits = logits.to_device(&device);
            for temperature in [None, Some(0.7), Some(1.0)] {
                let draws = temperature.map(|temperature| Draws { temperature, uniform: uniform.clone() });
                let Some(found) = choose(&logits, draws.as_ref()) else {
                    assert_eq!(device, Device::flex(), "cards choose");
                    continue;
                };
                for (row, token) in found.into_iter().enumerate() {
                    // f32 may put the edge of a token's share a little aside.
                    let of = |shift: f64| {
                        let draw =
                            temperature.map(|temperature| (f64::from(temperature), f64::from(uniform[row]) + shift));
                        choose::reference(&numbers[row * vocab..][..vocab], draw)
                    };
                    let near = [of(-2e-6), of(0.0), of(2e-6)];
                    assert!(near.contains(&token), "{dtype:?} {vocab} {temperature:?}: {token} instead of {near:?}");
                }
            }
        }
    }
}

#[test]
fn squares() {
    let device = device();
    let host: Vec<Tensor<1>> = [1, 7, 4096, 50_001].into_iter().map(|count| random([count])).collect();
    let expected: f64 = host.iter().flat_map(wide).map(|x| x * x).sum();
    let found = sum_of_squares(&host.iter().map(|x| x.clone().to_device(&device)).collect::<Vec<_>>());
    assert!((found / expected - 1.0).abs() < 1e-5, "{found} instead of {expected}");
}

#[test]
fn optimiser_steps() {
    let (device, count) = (device(), 50_001);
    let [weight, first, gradient] = [(); 3].map(|()| random([count]));
    let state = [weight, first, random([count]).square() + 0.1];
    let step = AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, scale: 0.7, keep: 0.99, rate: 1e-2, correction: 0.8 };
    let exact = state.clone().map(|x| x.cast(DType::F64));
    let expected = step.reference(exact, gradient.clone().cast(DType::F64));
    let found = step.step(state.map(|x| x.to_device(&device)), gradient.to_device(&device));
    for (found, expected) in found.iter().zip(&expected) {
        assert_close("AdamW", &wide(found), &wide(expected), 1e-6);
    }
}

/// Shapes that fill tiles and such that do not, each matrix as it is and transposed. Every strategy multiplies right or says why
/// it cannot; on a card two can always.
#[test]
fn products_by_every_strategy() {
    let (device, mut multiply) = (device(), vec![]);
    for &strategy in MatmulStrategy::ALL {
        for (dtype, tolerance) in types(&device) {
            for [rows, inner, columns] in [[128, 64, 192], [1, 96, 40], [70, 130, 33]] {
                for turned in [[false, false], [false, true], [true, false]] {
                    let [a, b] = [random([rows, inner]), random([inner, columns])].map(|x: Tensor<2>| x.cast(dtype));
                    let expected = wide(&a.clone().cast(DType::F64).matmul(b.clone().cast(DType::F64)));
                    let of = |x: Tensor<2>, turned: bool| match turned {
                        true => x.transpose().add_scalar(0.0).to_device(&device).transpose(),
                        false => x.to_device(&device),
                    };
                    let product = device::multiplied(strategy, of(a, turned[0]), of(b, turned[1]));
                    if let Some(Ok(product)) = product {
                        let what = format!("{} {dtype:?} {rows} {inner} {columns} {turned:?}", strategy.name());
                        assert_close(&what, &wide(&product), &expected, tolerance);
                        multiply.push(strategy);
                    }
                }
            }
        }
    }
    let always = [MatmulStrategy::Auto, MatmulStrategy::SimpleUnit];
    let chosen = |strategy| device::multiply_by(&device, strategy, Storage::F32);
    if on_cpu(&device) {
        assert_eq!(multiply, []);
        assert_eq!(chosen(MatmulStrategy::Auto).unwrap(), MatmulStrategy::Auto);
        let refused = chosen(MatmulStrategy::SimpleUnit).unwrap_err();
        assert!(refused.to_string().contains("CPU does not multiply by simple-unit"), "{refused}");
    } else {
        assert!(always.iter().all(|strategy| multiply.contains(strategy)), "{multiply:?}");
        // `auto` last: what is chosen is of the whole process.
        for strategy in MatmulStrategy::ALL.iter().copied().rev() {
            match chosen(strategy) {
                Ok(_) => assert!(multiply.contains(&strategy), "{strategy:?}"),
                Err(error) => assert!(!always.contains(&strategy), "{error}"),
            }
        }
    }
}
