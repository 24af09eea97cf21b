//! Random numbers by counter: each is a function of a key and its place, so nothing is stored and any part can be drawn
//! alone, in any order, on any number of threads.

use burn::tensor::{DType, Device, Tensor, TensorData, bf16, f16};
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Numbers that one thread draws at a time.
const AT_ONCE: usize = 4096;

/// What numbers are drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The frame on the output side of a matrix, drawn for a window.
    Left,
    /// The frame on its input side, drawn for a window.
    Right,
    /// A direction, drawn for a step.
    Direction,
    /// The rounding to 16 bits, after a step.
    Rounding,
}

/// The key of a stream of numbers: the run's seed, the parameter, what for, the number of the window or step, and which of
/// the estimates of a step.
#[derive(Debug, Clone, Copy)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of these.
    pub fn new(seed: u64, path: &str, role: Role, number: u64, estimate: usize) -> Self {
        Self(*blake3::hash(format!("{seed} {role:?} {number} {estimate} {path}").as_bytes()).as_bytes())
    }

    /// The first `count` values of N(0, 1) under this key (Box & Muller 1958).
    pub fn normals(self, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        values.par_chunks_mut(AT_ONCE).enumerate().for_each(|(chunk, values)| {
            let words = self.words(chunk * AT_ONCE, values.len().next_multiple_of(2));
            for (pair, words) in values.chunks_mut(2).zip(words.chunks_exact(2)) {
                let [u, angle] = [words[0], words[1]].map(|word| (f64::from(word) + 0.5) / f64::from(u32::MAX));
                let (radius, (sine, cosine)) = ((-2.0 * u.min(1.0).ln()).sqrt(), (TAU * angle).sin_cos());
                pair.iter_mut().zip([cosine, sine]).for_each(|(value, part)| *value = (radius * part) as f32);
            }
        });
        values
    }

    /// Words `start` to `start + count` of the stream.
    fn words(self, start: usize, count: usize) -> Vec<u32> {
        let mut bytes = vec![0; 4 * count];
        let mut stream = blake3::Hasher::new_keyed(&self.0).finalize_xof();
        stream.set_position(4 * start as u64);
        stream.fill(&mut bytes);
        bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }
}

/// Values in a type of storage. To 16 bits they are rounded up or down at random so that their mean stays (Croci et al.
/// 2022, arXiv 2103.10534): many small updates add up that rounding to the nearest would lose one by one.
///
/// # Shapes
/// `[elements]` → `[elements]`
pub fn stored(values: Tensor<1>, dtype: DType, key: Key, device: &Device) -> Tensor<1> {
    if !matches!(dtype, DType::BF16 | DType::F16) {
        return values.cast(dtype);
    }
    let values: Vec<f32> = values.into_data().iter::<f32>().collect();
    let (words, elements) = (key.words(0, values.len()), values.len());
    let shares = words.into_iter().map(|word| f64::from(word) / (f64::from(u32::MAX) + 1.0));
    let all = values.into_iter().zip(shares);
    let data = match dtype {
        DType::BF16 => {
            let of = |bits| bf16::from_bits(bits).to_f64();
            let round = |(x, share)| bf16::from_bits(rounded(x, bf16::from_f32(x).to_bits(), of, share));
            TensorData::new(all.map(round).collect::<Vec<_>>(), [elements])
        }
        _ => {
            let of = |bits| f16::from_bits(bits).to_f64();
            let round = |(x, share)| f16::from_bits(rounded(x, f16::from_f32(x).to_bits(), of, share));
            TensorData::new(all.map(round).collect::<Vec<_>>(), [elements])
        }
    };
    Tensor::from_data(data, (device, dtype))
}

/// `nearest`, the bits next to `x`, or those on the other side of `x`, which `share` in [0, 1) decides.
fn rounded(x: f32, nearest: u16, value: impl Fn(u16) -> f64, share: f64) -> u16 {
    let error = f64::from(x) - value(nearest);
    if error == 0.0 || !error.is_finite() {
        return nearest;
    }
    let (sign, magnitude) = (nearest & 0x8000, nearest & 0x7fff);
    let outwards = (error < 0.0) == (sign != 0);
    let other = match (magnitude, outwards) {
        // The numbers next to zero, of the sign of `x`.
        (0, _) => u16::from(error < 0.0) << 15 | 1,
        (_, true) => nearest + 1,
        (_, false) => nearest - 1,
    };
    if share < error / (value(other) - value(nearest)) { other } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spo_model::device;

    fn key(number: u64) -> Key {
        Key::new(3, "layers.0.weight", Role::Direction, number, 0)
    }

    #[test]
    fn numbers_are_normal_and_depend_on_key_and_place_alone() {
        let values = key(0).normals(40_001);
        let moment = |power: i32| values.iter().map(|x| f64::from(*x).powi(power)).sum::<f64>() / values.len() as f64;
        for (power, expected, tolerance) in [(1, 0.0, 0.02), (2, 1.0, 0.03), (3, 0.0, 0.08), (4, 3.0, 0.2)] {
            assert!((moment(power) - expected).abs() < tolerance, "{power}: {}", moment(power));
        }
        assert_eq!(key(0).normals(5001), values[..5001]);
        assert_ne!(key(1).normals(8), values[..8]);
        let others = [(4, "layers.0.weight", Role::Direction, 0), (3, "layers.1.weight", Role::Direction, 0)];
        for (seed, path, role, estimate) in [others[0], others[1], (3, "layers.0.weight", Role::Left, 0)] {
            assert_ne!(Key::new(seed, path, role, 0, estimate).normals(8), values[..8]);
        }
        assert_ne!(Key::new(3, "layers.0.weight", Role::Direction, 0, 1).normals(8), values[..8]);
    }

    #[test]
    fn rounding_keeps_the_mean() {
        for dtype in [DType::BF16, DType::F16] {
            for x in [0.1_f32, -0.1, 1e-3, -7.77, 1.0, 0.0, 1e-8] {
                let values = Tensor::<1>::from_data(TensorData::new(vec![x; 20_000], [20_000]), &device::cpu());
                let round = |number| {
                    let rounded = stored(values.clone(), dtype, key(number), &device::cpu());
                    rounded.into_data().iter::<f64>().collect::<Vec<_>>()
                };
                let found = round(0);
                let mean = found.iter().sum::<f64>() / 20_000.0;
                let gap = found.iter().fold(0.0f64, |gap, y| gap.max((y - f64::from(x)).abs()));
                assert!((mean - f64::from(x)).abs() <= 0.02 * gap, "{x}: mean {mean}, gap {gap}");
                assert_eq!(found, round(0));
                // Nothing is further away than the next number on either side.
                assert!(gap <= f64::from(x).abs() * 2f64.powi(-7) + 6e-8, "{x}: {gap}");
            }
        }
    }
}
