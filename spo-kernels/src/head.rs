//! Log-probabilities from hidden states, and their gradient, of one chunk of rows: `z = scale · (h Wᵀ)`, then
//! `cap · tanh(z / cap)` if there is a cap, and `log p(t) = z_t − log Σ_v e^(z_v)`.
//!
//! `∂ log p(t) / ∂ z_v = 1[v = t] − p(v)`, times the derivatives of scale and cap.

use crate::cpu;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, activation};

/// How logits are made of `h Wᵀ`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitOptions {
    /// Factor on the logits.
    pub scale: f64,
    /// Bound of the logits.
    pub softcap: Option<f64>,
}

/// `log p(target)` of each row, `[rows]`, in `wide`.
///
/// `hidden` `[rows, hidden]` and `weight` `[vocab, hidden]` of one type, `targets` `[rows]` with token ids below `vocab`;
/// none of them on a tape.
pub fn logps(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    wide: DType,
    options: LogitOptions,
) -> Tensor<1> {
    let logps = cpu::head::logps(&hidden, &weight, &targets, options);
    #[cfg(feature = "gpu")]
    let logps = logps.or_else(|| crate::gpu::form::logps(&hidden, &weight, &targets, options));
    logps.unwrap_or_else(|| reference_logps(hidden, weight, targets, wide, options))
}

/// The log-probabilities, `[rows]`, and their gradients with respect to `h Wᵀ`, `[rows, vocab]` in the type of `hidden`;
/// arguments as of [`logps`].
pub fn gradients(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    wide: DType,
    options: LogitOptions,
) -> (Tensor<1>, Tensor<2>) {
    let gradients = cpu::head::gradients(&hidden, &weight, &targets, options);
    #[cfg(feature = "gpu")]
    let gradients = gradients.or_else(|| crate::gpu::form::gradients(&hidden, &weight, &targets, options));
    gradients.unwrap_or_else(|| reference_gradients(hidden, weight, targets, wide, options))
}

/// [`logps`] in burn's operations.
pub fn reference_logps(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    wide: DType,
    options: LogitOptions,
) -> Tensor<1> {
    let [rows, _] = hidden.dims();
    let (logits, _) = capped(scaled_logits(hidden, weight.transpose(), wide, options), options);
    activation::log_softmax(logits, 1).gather(1, targets.reshape([rows, 1])).reshape([rows])
}

/// [`gradients`] in burn's operations.
pub fn reference_gradients(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    wide: DType,
    options: LogitOptions,
) -> (Tensor<1>, Tensor<2>) {
    let compute = hidden.dtype();
    let [rows, _] = hidden.dims();
    let logits = scaled_logits(hidden, weight.transpose(), wide, options);
    let (logits, squashed) = capped(logits, options);
    let targets = targets.reshape([rows, 1]);
    let logps = activation::log_softmax(logits, 1);
    let of_targets = logps.clone().gather(1, targets.clone());
    let ones = Tensor::<2>::ones([rows, 1], (&logps.device(), wide));
    let gradients = logps.exp().neg().scatter(1, targets, ones, IndexingUpdateOp::Add);
    (of_targets.reshape([rows]), uncapped(gradients, squashed, options).cast(compute))
}

/// Scaled (not yet capped) logits `[rows, vocab]` in `wide`, of the weight's transpose `[hidden, vocab]`.
pub fn scaled_logits(hidden: Tensor<2>, transposed: Tensor<2>, wide: DType, options: LogitOptions) -> Tensor<2> {
    let logits = hidden.matmul(transposed).cast(wide);
    if options.scale == 1.0 { logits } else { logits * options.scale }
}

/// The logits with their cap, and `tanh(z / cap)` where there is one.
pub fn capped(logits: Tensor<2>, options: LogitOptions) -> (Tensor<2>, Option<Tensor<2>>) {
    match options.softcap {
        Some(cap) => {
            let squashed = (logits * cap.recip()).tanh();
            (squashed.clone() * cap, Some(squashed))
        }
        None => (logits, None),
    }
}

/// From the derivative of the capped logits to that of `h Wᵀ`.
pub fn uncapped(d_logits: Tensor<2>, squashed: Option<Tensor<2>>, options: LogitOptions) -> Tensor<2> {
    let d_logits = match squashed {
        Some(squashed) => d_logits * (squashed.square().neg() + 1.0),
        None => d_logits,
    };
    if options.scale == 1.0 { d_logits } else { d_logits * options.scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{random, wide};
    use burn::tensor::{Device, TensorData};

    #[test]
    fn forms_follow_the_reference_in_f64() {
        for (rows, width, vocab) in [(1, 3, 7), (23, 12, 57), (40, 64, 1000)] {
            let (hidden, weight) = (random([rows, width]), random([vocab, width]) * 0.4);
            let targets: Vec<i32> = (0..rows).map(|row| ((row * 31 + 5) % vocab) as i32).collect();
            let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &Device::flex());
            for options in [LogitOptions { scale: 1.0, softcap: None }, LogitOptions { scale: 0.5, softcap: Some(3.0) }]
            {
                let exact = |x: &Tensor<2>| x.clone().cast(DType::F64);
                let (logp, gradient) =
                    reference_gradients(exact(&hidden), exact(&weight), targets.clone(), DType::F64, options);
                let (found, gradients) =
                    gradients(hidden.clone(), weight.clone(), targets.clone(), DType::F32, options);
                let alone = logps(hidden.clone(), weight.clone(), targets.clone(), DType::F32, options);
                assert_eq!(wide(&found), wide(&alone));
                let close = |found: Vec<f64>, expected: Vec<f64>| {
                    let largest = expected.iter().fold(1e-3f64, |top, x| top.max(x.abs()));
                    found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 5e-6 * largest)
                };
                assert!(close(wide(&found), wide(&logp)), "{rows} {options:?}");
                assert!(close(wide(&gradients), wide(&gradient)), "{rows} {options:?}");
            }
        }
    }
}
