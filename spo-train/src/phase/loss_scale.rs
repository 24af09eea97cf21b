//! The factor on the loss of a step in f16, whose gradients would vanish below 6e-8 and overflow above 65,504 (Micikevicius
//! et al. 2018, arXiv 1710.03740, section 3.2).
//!
//! It is a power of two, so that it changes no digit. A step begins with the one that brings the derivative of a token's
//! log-prob to the order of the loss's own times 1,024, and is computed anew with less where a gradient overflows: no batch
//! is left out, and what a step comes to depends on nothing before it.

use burn::tensor::DType;

/// Over the number of rows that the mean is of.
const START: f64 = 1024.0;
/// From one try to the next.
const LESS: f64 = 16.0;

/// The factors to try, the last one 1; that alone where the weights are stored in another type.
pub(super) fn loss_scales(stored: DType, rows: usize) -> Vec<f64> {
    if stored != DType::F16 {
        return vec![1.0];
    }
    let mut scales = vec![START * rows.next_power_of_two() as f64];
    while let Some(scale) = scales.last().filter(|scale| **scale > 1.0) {
        scales.push((scale / LESS).max(1.0));
    }
    scales
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_fall_to_one() {
        assert_eq!(loss_scales(DType::F16, 48), [65536.0, 4096.0, 256.0, 16.0, 1.0]);
        assert_eq!(loss_scales(DType::F16, 2), [2048.0, 128.0, 8.0, 1.0]);
        assert_eq!(loss_scales(DType::BF16, 48), [1.0]);
    }
}
