//! KL divergence of whole next-token distributions, chunk by chunk (tdpo).

use burn::tensor::{Tensor, activation};
use spo_kernels::head::{capped, scaled_logits, uncapped};

use super::chunked::{HeadGradient, HeadOptions, chunks, map_chunks, operands};

/// Hidden states `[rows, hidden]` of a model and its head `[vocab, hidden]`; none of them on a tape.
pub type Head = (Tensor<2>, Tensor<2>);

/// `KL(reference ‖ policy) = Σ_v p(v)·(log p(v) − log q(v))` of each row, `[rows]`.
///
/// Zeng et al. 2024, arXiv 2404.11999. The two models may differ in width, not in vocabulary.
pub fn token_kl(policy: Head, reference: Head, options: &HeadOptions) -> Tensor<1> {
    map_chunks(policy.0, policy.1, options, |logits, (start, length)| {
        let log_q = activation::log_softmax(logits, 1);
        let hidden = reference.0.clone().narrow(0, start, length);
        let whole = HeadOptions { chunk_rows: length, ..options.clone() };
        map_chunks(hidden, reference.1.clone(), &whole, |logits, _| {
            let log_p = activation::log_softmax(logits, 1);
            (log_p.clone().exp() * (log_p - log_q.clone())).sum_dim(1).reshape([length])
        })
    })
}

/// The gradient of `Σ_r d_kl[r] · KL_r` with respect to the policy's hidden states and, if wanted, its head.
///
/// Shapes as in [`token_kl`], `d_kl` `[rows]`. Closed form: the derivative of a row's KL with respect to the policy's
/// logit `v` is `q(v) − p(v)`.
pub fn token_kl_backward(
    policy: Head,
    reference: Head,
    d_kl: Tensor<1>,
    want_weight: bool,
    options: &HeadOptions,
) -> HeadGradient {
    let hidden_dtype = policy.0.dtype();
    let (hidden, weight, dtype) = operands(policy.0, policy.1);
    let (reference, reference_weight, reference_dtype) = operands(reference.0, reference.1);
    let compute = hidden.dtype();
    let ([rows, width], [vocab, _]) = (hidden.dims(), weight.dims());
    let form = options.logits();
    let (transposed, reference_transposed) = (weight.clone().transpose(), reference_weight.transpose());
    let mut d_weight = want_weight.then(|| Tensor::<2>::zeros([vocab, width], (&hidden.device(), dtype)));
    let mut d_hidden = Vec::new();
    for (start, length) in chunks(rows, vocab, options.chunk_rows, &hidden.device()) {
        let chunk = hidden.clone().narrow(0, start, length);
        let (logits, squashed) = capped(scaled_logits(chunk.clone(), transposed.clone(), dtype, form), form);
        let other = reference.clone().narrow(0, start, length);
        let (other, _) = capped(scaled_logits(other, reference_transposed.clone(), reference_dtype, form), form);
        let gradient = d_kl.clone().narrow(0, start, length).reshape([length, 1]).cast(dtype);
        let d_logits = (activation::softmax(logits, 1) - activation::softmax(other, 1).cast(dtype)) * gradient;
        let d_logits = uncapped(d_logits, squashed, form).cast(compute);
        d_hidden.push(d_logits.clone().matmul(weight.clone()).cast(hidden_dtype));
        d_weight = d_weight.map(|sum| sum + d_logits.transpose().matmul(chunk).cast(dtype));
    }
    let hidden = match d_hidden.is_empty() {
        true => Tensor::zeros([0, width], (&hidden.device(), hidden_dtype)),
        false => Tensor::cat(d_hidden, 0),
    };
    HeadGradient { hidden, weight: d_weight }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::{DType, Device, Distribution};

    use super::*;

    fn heads() -> (Head, Head, Tensor<1>) {
        let device = Device::flex();
        device.seed(8);
        let random =
            |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device).cast(DType::F64);
        let d_kl = random([1, 9]).reshape([9]);
        ((random([9, 6]), random([31, 6])), (random([9, 5]), random([31, 5])), d_kl)
    }

    /// All distributions at once, on the tape of the policy.
    fn dense(policy: &Head, reference: &Head, options: &HeadOptions) -> Tensor<1> {
        let log = |head: &Head| {
            let logits = head.0.clone().matmul(head.1.clone().transpose()) * options.logit_scale;
            let logits = match options.softcap {
                Some(cap) => (logits * cap.recip()).tanh() * cap,
                None => logits,
            };
            activation::log_softmax(logits, 1)
        };
        let (log_p, log_q) = (log(reference), log(policy));
        (log_p.clone().exp() * (log_p - log_q)).sum_dim(1).reshape([9])
    }

    #[test]
    fn values_and_gradients_are_those_of_the_dense_form() {
        let (policy, reference, d_kl) = heads();
        let leaf = |x: &Tensor<2>| Tensor::<2>::from_inner(x.clone()).require_grad();
        let tape = |x: &Tensor<2>| Tensor::<2>::from_inner(x.clone());
        let close = |a: Vec<f64>, b: Vec<f64>| assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12));
        let numbers = |x: Tensor<2>| x.try_into_vec_as::<f64>().unwrap();
        for (chunk_rows, softcap, logit_scale) in [(0, None, 1.0), (2, None, 1.0), (9, Some(3.0), 0.5)] {
            let options = HeadOptions { chunk_rows, softcap, logit_scale };
            let tracked = (leaf(&policy.0), leaf(&policy.1));
            let oracle = dense(&tracked, &(tape(&reference.0), tape(&reference.1)), &options);
            let gradients = (oracle.clone() * Tensor::from_inner(d_kl.clone())).sum().backward();
            let kl = token_kl(policy.clone(), reference.clone(), &options).try_into_vec_as::<f64>().unwrap();
            assert!(kl.iter().all(|kl| *kl > 0.0));
            close(kl, oracle.clone().inner().try_into_vec_as::<f64>().unwrap());
            let found = token_kl_backward(policy.clone(), reference.clone(), d_kl.clone(), true, &options);
            close(numbers(found.hidden), numbers(tracked.0.grad(&gradients).unwrap()));
            close(numbers(found.weight.unwrap()), numbers(tracked.1.grad(&gradients).unwrap()));
        }
    }

    #[test]
    fn a_policy_has_no_divergence_from_itself() {
        let (policy, ..) = heads();
        let kl = token_kl(policy.clone(), policy, &HeadOptions::default()).try_into_vec_as::<f64>().unwrap();
        assert!(kl.iter().all(|kl| kl.abs() < 1e-14));
    }
}
