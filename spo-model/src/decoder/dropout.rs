//! Dropout in front of an adapter, as a function of seed, step and token: nothing to store for resume,
//! and the same for every way of splitting a window into micro-batches.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use std::sync::Arc;

/// Sets a share of an adapter's inputs to 0 and scales the others up, while it has keys.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Share of the inputs that are dropped, in 1/65536.
    dropped: u16,
    /// Tells the layers apart.
    salt: u64,
    /// One key per row of the input; `None` outside training.
    keys: Option<Arc<[u64]>>,
}

impl Dropout {
    /// Dropout of this share of the inputs of the layer at `path`, switched off.
    pub fn new(probability: f64, path: &str) -> Self {
        let digest = blake3::hash(path.as_bytes());
        let salt = u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("a hash has 32 bytes"));
        Self { dropped: (probability * 65536.0).round() as u16, salt, keys: None }
    }

    /// Switched on for inputs with these keys.
    pub fn with_keys(&self, keys: Arc<[u64]>) -> Self {
        Self { keys: Some(keys), ..self.clone() }
    }

    /// That of these rows alone.
    pub fn of_rows(&self, rows: &[usize]) -> Self {
        let keys = self.keys.as_ref().map(|keys| rows.iter().map(|row| keys[*row]).collect());
        Self { keys, ..self.clone() }
    }

    /// The input `[tokens, in]` with values dropped, or `None` if it is switched off.
    pub fn apply(&self, x: Tensor<2>) -> Option<Tensor<2>> {
        let keys = self.keys.as_ref().filter(|_| self.dropped > 0)?;
        let [rows, columns] = x.dims();
        assert_eq!(keys.len(), rows, "one key per row");
        let kept = 65536.0 / (65536.0 - f32::from(self.dropped));
        let mut mask = vec![0.0f32; rows * columns];
        mask.par_chunks_mut(columns).zip(keys.par_iter()).for_each(|(row, key)| {
            for (block, values) in row.chunks_mut(4).enumerate() {
                let bits = mix(key ^ self.salt.wrapping_add(mix(block as u64)));
                for (lane, value) in values.iter_mut().enumerate() {
                    if (bits >> (16 * lane)) as u16 >= self.dropped {
                        *value = kept;
                    }
                }
            }
        });
        let mask = Tensor::<2>::from_data(TensorData::new(mask, [rows, columns]), &x.device().inner());
        let dtype = x.dtype();
        Some(x * mask.cast(dtype))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood 2014).
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;

    fn dropped(probability: f64, path: &str, keys: Vec<u64>, columns: usize) -> Vec<f32> {
        let x = Tensor::<2>::ones([keys.len(), columns], &device::cpu());
        let dropout = Dropout::new(probability, path).with_keys(keys.into());
        dropout.apply(x).expect("it is on").into_data().iter::<f32>().collect()
    }

    #[test]
    fn the_mean_stays_and_the_share_is_right() {
        let values = dropped(0.1, "a", (0..500).collect(), 401);
        let zeros = values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64;
        assert!((zeros - 0.1).abs() < 0.005, "{zeros}");
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
    }

    #[test]
    fn a_row_depends_on_its_own_key_and_layer_only() {
        let all = dropped(0.5, "a", vec![7, 8, 9], 33);
        assert_eq!(all[33..66], dropped(0.5, "a", vec![8], 33));
        assert_ne!(all[33..66], dropped(0.5, "b", vec![8], 33));
        assert_ne!(all[..33], all[33..66]);
    }

    #[test]
    fn without_keys_it_is_off() {
        let x = Tensor::<2>::ones([2, 3], &device::cpu());
        assert!(Dropout::new(0.5, "a").apply(x.clone()).is_none());
        assert!(Dropout::new(0.0, "a").with_keys(vec![1, 2].into()).apply(x).is_none());
    }
}
