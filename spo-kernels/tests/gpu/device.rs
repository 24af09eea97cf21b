//! The device under test, its buffers and comparisons.

use cubecl::prelude::*;
use half::f16;
use proptest::prelude::ProptestConfig;
use spo_kernels::gpu::Buffer;

/// The default device of this machine; a test that gets none fails.
pub fn client() -> Client {
    cubecl::Device::default().client()
}

/// A type that buffers are stored in.
pub trait Stored: Float + CubeElement + Default {
    /// Largest error, as a fraction of the largest magnitude.
    const TOLERANCE: f64;
    fn rounded(value: f64) -> Self;
    fn wide(self) -> f64;
}

impl Stored for f32 {
    const TOLERANCE: f64 = 1e-5;
    fn rounded(value: f64) -> Self {
        value as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Stored for f16 {
    const TOLERANCE: f64 = 2e-3;
    fn rounded(value: f64) -> Self {
        Self::from_f64(value)
    }
    fn wide(self) -> f64 {
        self.to_f64()
    }
}

/// Numbers in [−1, 1] that look like none, rounded to `E`.
pub fn numbers<E: Stored>(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    };
    (0..count).map(|_| E::rounded(next()).wide()).collect()
}

pub fn upload<E: Stored>(client: &Client, values: &[f64]) -> Buffer {
    Buffer::from_slice(client, &values.iter().map(|value| E::rounded(*value)).collect::<Vec<_>>())
}

/// A buffer whose every value must be written.
pub fn poisoned<E: Stored>(client: &Client, len: usize) -> Buffer {
    upload::<E>(client, &vec![f64::NAN; len])
}

pub fn download<E: Stored>(client: &Client, buffer: &Buffer) -> Vec<f64> {
    buffer.clone().read::<E>(client).into_iter().map(Stored::wide).collect()
}

/// Panics unless `found` is within `tolerance` of `expected`, in fractions of the largest expected magnitude.
#[track_caller]
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_close_by(what, found, expected, tolerance, largest(expected));
}

/// The largest value without its sign.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(1e-30f64, |most, value| most.max(value.abs()))
}

/// As [`assert_close`], in fractions of this.
#[track_caller]
pub fn assert_close_by(what: &str, found: &[f64], expected: &[f64], tolerance: f64, scale: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(error <= tolerance, "{what}, place {place}: {found} instead of {expected}, {error:e} of {scale}");
    }
}

/// The derivatives of `Σ outputs(x) · d_y` by each of `x`.
pub fn differences(x: &[f64], d_y: &[f64], outputs: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let count = x.len();
    let mut x = x.to_vec();
    let loss = |x: &[f64]| outputs(x).iter().zip(d_y).map(|(y, d_y)| y * d_y).sum::<f64>();
    let derivative = |place: usize| {
        let value = x[place];
        x[place] = value + STEP;
        let above = loss(&x);
        x[place] = value - STEP;
        let below = loss(&x);
        x[place] = value;
        (above - below) / (2.0 * STEP)
    };
    (0..count).map(derivative).collect()
}

pub fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}
