//! Weights on tokens and answers that some options ask of whoever sums token log-probabilities.

use burn::tensor::{Tensor, activation};

use super::HeadOptions;
use super::chunked::map_chunks;

/// LD-DPO's weight of each of an answer's `own` tokens: 1 up to the `other` answer's length, `alpha` beyond.
///
/// Liu et al. 2024, arXiv 2409.06411. Policy and reference are both summed with these weights, and the gradient of the
/// sequence log-probability goes to token `t` times its weight.
pub fn desensitised(own: usize, other: usize, alpha: f64) -> impl Iterator<Item = f64> {
    (0..own).map(move |token| if token < other { 1.0 } else { alpha })
}

/// `log Σ_v p(v)²` of each row, `[rows]`: how likely two draws from the policy agree.
///
/// WPO (Zhou et al. 2024, arXiv 2406.11827) weighs an answer by the mean over its tokens of
/// `log p(y_t) − log Σ_v p(v)²`. Shapes and chunks as in [`super::token_logps`].
pub fn token_collision(hidden: Tensor<2>, weight: Tensor<2>, options: &HeadOptions) -> Tensor<1> {
    map_chunks(hidden, weight, options, |logits, _| {
        let doubled = activation::log_softmax(logits, 1) * 2.0;
        let largest = doubled.clone().max_dim(1);
        let rows = largest.dims()[0];
        ((doubled - largest.clone()).exp().sum_dim(1).log() + largest).reshape([rows])
    })
}

/// The log weight of one answer from its tokens: the mean of `logp − collision`; 0 for an empty answer.
pub fn on_policy(token_logps: &[f64], token_collisions: &[f64]) -> f64 {
    let sum: f64 = token_logps.iter().zip(token_collisions).map(|(logp, collision)| logp - collision).sum();
    sum / token_logps.len().max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::{DType, Device, Distribution};

    use super::*;

    fn distributions(hidden: &Tensor<2>, weight: &Tensor<2>) -> Vec<Vec<f64>> {
        let p = activation::softmax(hidden.clone().matmul(weight.clone().transpose()), 1);
        let vocab = p.dims()[1];
        p.try_into_vec_as::<f64>().unwrap().chunks(vocab).map(<[f64]>::to_vec).collect()
    }

    #[test]
    fn collisions_are_sums_over_the_vocabulary() {
        let device = Device::flex();
        device.seed(8);
        let random =
            |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device).cast(DType::F64);
        let (h, w) = (random([9, 6]), random([31, 6]));
        let q = distributions(&h, &w);
        for chunk_rows in [0, 2, 9] {
            let options = HeadOptions { chunk_rows, ..HeadOptions::default() };
            let collisions = token_collision(h.clone(), w.clone(), &options).try_into_vec_as::<f64>().unwrap();
            for row in 0..9 {
                let expected = q[row].iter().map(|p| p * p).sum::<f64>().ln();
                assert!((collisions[row] - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn weights_of_tokens_and_answers() {
        assert_eq!(desensitised(4, 2, 0.5).collect::<Vec<_>>(), [1.0, 1.0, 0.5, 0.5]);
        assert_eq!(desensitised(2, 4, 0.5).collect::<Vec<_>>(), [1.0, 1.0]);
        assert_eq!(on_policy(&[-2.0, -4.0], &[-1.0, -1.0]), -2.0);
        assert_eq!(on_policy(&[], &[]), 0.0);
    }
}
