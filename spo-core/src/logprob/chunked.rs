//! The memory-safe head: log-probabilities and their closed-form gradient, one chunk of rows at a time.

use burn::tensor::{DType, Device, Int, Tensor};
use spo_kernels::head::{self, LogitOptions, capped, scaled_logits};
use spo_kernels::memory::{CardMemory, card};
use spo_kernels::product::{add_transposed, product};

/// Bytes that a pass over the head may take.
struct Room {
    /// Of one chunk of f32 logits when `chunk_rows` is 0.
    chunk: usize,
    /// Of gradients of logits that are kept for the weight's gradient; what is beyond is computed again.
    kept: usize,
}

impl Room {
    /// The CPU's caches want small chunks. A card wants many rows at once: a GiB of logits, as far as one tensor may be
    /// that large, and the gradients of a sixteenth of its memory.
    fn of(device: &Device) -> Self {
        match card(device) {
            None => Self { chunk: 64 << 20, kept: 128 << 20 },
            Some(CardMemory { total, largest }) => Self {
                chunk: largest.min(1 << 30) as usize,
                kept: total.map_or(128 << 20, |bytes| (bytes / 16) as usize),
            },
        }
    }
}

/// How logits are made of hidden states: `z = logit_scale · (h Wᵀ)`, then `softcap · tanh(z / softcap)` if there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadOptions {
    /// Rows per chunk; 0 chooses as many as keep a chunk of f32 logits within 64 MiB on the CPU, within 1 GiB on a card.
    pub chunk_rows: usize,
    /// Bound of the logits (Gemma 2's `final_logit_softcapping`).
    pub softcap: Option<f64>,
    /// Factor on the logits (Cohere's `logit_scale`, the inverse of Granite's `logits_scaling`).
    pub logit_scale: f64,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self { chunk_rows: 0, softcap: None, logit_scale: 1.0 }
    }
}

impl HeadOptions {
    /// What of them concerns each logit.
    pub fn logits(&self) -> LogitOptions {
        LogitOptions { scale: self.logit_scale, softcap: self.softcap }
    }
}

/// What [`HeadPass::backward`] returns.
#[derive(Debug, Clone)]
pub struct HeadGradient {
    /// `[rows, hidden]`, in the dtype of the hidden states.
    pub hidden: Tensor<2>,
    /// The sum with the weight's gradient, `[vocab, hidden]`, f32 (f64 where the weight is), if it was wanted.
    pub weight: Option<Tensor<2>>,
}

/// The dtype of logits, log-sum-exp and sums: f64 if both inputs are, f32 otherwise.
fn wide(hidden: &Tensor<2>, weight: &Tensor<2>) -> DType {
    if hidden.dtype() == DType::F64 && weight.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The operands of the matrix products: the storage dtype where both agree, else the wide one.
pub(super) fn operands(hidden: Tensor<2>, weight: Tensor<2>) -> (Tensor<2>, Tensor<2>, DType) {
    let dtype = wide(&hidden, &weight);
    if hidden.dtype() == weight.dtype() {
        (hidden, weight, dtype)
    } else {
        (hidden.cast(dtype), weight.cast(dtype), dtype)
    }
}

/// Rows per chunk for a vocabulary: what was asked for, or as many as fit.
pub(super) fn chunk_rows(vocab: usize, given: usize, device: &Device) -> usize {
    if given == 0 { (Room::of(device).chunk / (4 * vocab.max(1))).max(1) } else { given }
}

/// `(start, length)` of each chunk of rows.
pub(super) fn chunks(
    rows: usize,
    vocab: usize,
    given: usize,
    device: &Device,
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let size = chunk_rows(vocab, given, device);
    (0..rows).step_by(size).map(move |start| (start, size.min(rows - start)))
}

/// One number per row, `[rows]`; `f` gets each chunk's hidden states and its rows.
fn by_chunks(
    hidden: &Tensor<2>,
    (vocab, dtype): (usize, DType),
    options: &HeadOptions,
    f: impl Fn(Tensor<2>, (usize, usize)) -> Tensor<1>,
) -> Tensor<1> {
    let parts: Vec<Tensor<1>> = chunks(hidden.dims()[0], vocab, options.chunk_rows, &hidden.device())
        .map(|(start, length)| f(hidden.clone().narrow(0, start, length), (start, length)))
        .collect();
    match parts.is_empty() {
        true => Tensor::zeros([0], (&hidden.device(), dtype)),
        false => Tensor::cat(parts, 0),
    }
}

/// One number per row from the logits of each chunk, `[rows]`; `f` gets the chunk's logits and its rows.
pub(super) fn map_chunks(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    options: &HeadOptions,
    f: impl Fn(Tensor<2>, (usize, usize)) -> Tensor<1>,
) -> Tensor<1> {
    let (hidden, weight, dtype) = operands(hidden, weight);
    let ([vocab, _], logits) = (weight.dims(), options.logits());
    let transposed = weight.transpose();
    by_chunks(&hidden, (vocab, dtype), options, |chunk, rows| {
        f(capped(scaled_logits(chunk, transposed.clone(), dtype, logits), logits).0, rows)
    })
}

/// `log p(target)` of each row, `[rows]`, in f32 (f64 if both inputs are f64).
///
/// `hidden` `[rows, hidden]`, `weight` `[vocab, hidden]` (as Hugging Face stores it), `targets` `[rows]` with token ids
/// below `vocab`; none of them on a tape. At most one chunk of logits exists at a time.
pub fn token_logps(hidden: Tensor<2>, weight: Tensor<2>, targets: Tensor<1, Int>, options: &HeadOptions) -> Tensor<1> {
    let (hidden, weight, dtype) = operands(hidden, weight);
    by_chunks(&hidden, (weight.dims()[0], dtype), options, |chunk, (start, length)| {
        head::logps(chunk, weight.clone(), targets.clone().narrow(0, start, length), dtype, options.logits())
    })
}

/// The head of a batch that is trained: its log-probabilities, and what their gradients need.
///
/// The gradient of `log p(t)` with respect to the logits, `1[v = t] − p(v)` (times the derivatives of scale and cap), does not
/// depend on the loss. So the forward pass takes it to the hidden states at once, and no chunk of logits is computed
/// twice unless the weight's gradient is wanted and the gradients would fill more than 128 MiB, on a card a
/// sixteenth of its memory.
#[derive(Debug)]
pub struct HeadPass {
    /// `log p(target)`, `[rows]`, as [`token_logps`] gives them.
    pub logps: Tensor<1>,
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    /// `∂ log p(t) / ∂ h`, `[rows, hidden]`
    unit: Tensor<2>,
    /// The logits' gradients of the first chunks, each `[chunk, vocab]`.
    kept: Vec<Tensor<2>>,
    want_weight: bool,
    options: HeadOptions,
}

impl HeadPass {
    /// Runs the head; shapes as in [`token_logps`].
    pub fn new(
        hidden: Tensor<2>,
        weight: Tensor<2>,
        targets: Tensor<1, Int>,
        want_weight: bool,
        options: &HeadOptions,
    ) -> Self {
        let (rows, width, vocab) = (hidden.dims()[0], hidden.dims()[1], weight.dims()[0]);
        let (compute, compute_weight, dtype) = operands(hidden.clone(), weight.clone());
        let (mut logps, mut units, mut kept, mut kept_bytes) = (vec![], vec![], vec![], 0);
        let kept_at_most = Room::of(&hidden.device()).kept;
        for (start, length) in chunks(rows, vocab, options.chunk_rows, &hidden.device()) {
            let chunk = compute.clone().narrow(0, start, length);
            let chunk_targets = targets.clone().narrow(0, start, length);
            let weight = compute_weight.clone();
            let (logp, gradients) = head::gradients(chunk, weight, chunk_targets, dtype, options.logits());
            logps.push(logp);
            units.push(product(gradients.clone(), compute_weight.clone()));
            kept_bytes += length * vocab * gradients.dtype().size();
            if want_weight && kept_bytes <= kept_at_most {
                kept.push(gradients);
            }
        }
        let device = hidden.device();
        let (logps, unit) = match logps.is_empty() {
            true => (Tensor::zeros([0], (&device, dtype)), Tensor::zeros([0, width], (&device, compute.dtype()))),
            false => (Tensor::cat(logps, 0), Tensor::cat(units, 0)),
        };
        Self { logps, hidden, weight, targets, unit, kept, want_weight, options: options.clone() }
    }

    /// The gradient of `Σ_r d_logp[r] · log p(target_r)` with respect to the hidden states and, if it was wanted, the
    /// weight. `d_logp` `[rows]`. The weight's gradient is added to `sum`, `[vocab, hidden]` in the type it has.
    pub fn backward(self, d_logp: Tensor<1>, sum: Option<Tensor<2>>) -> HeadGradient {
        let (rows, vocab) = (self.hidden.dims()[0], self.weight.dims()[0]);
        let hidden_dtype = self.hidden.dtype();
        let (hidden, weight, dtype) = operands(self.hidden, self.weight);
        let scale = d_logp.reshape([rows, 1]).cast(dtype);
        let scaled = |x: Tensor<2>, to: DType| (x.cast(dtype) * scale.clone()).cast(to);
        let d_hidden = scaled(self.unit, hidden_dtype);
        if !self.want_weight {
            return HeadGradient { hidden: d_hidden, weight: sum };
        }
        let pulled = scaled(hidden.clone(), hidden.dtype());
        let mut d_weight = sum.unwrap_or_else(|| Tensor::zeros(weight.dims(), (&hidden.device(), dtype)));
        let mut kept = self.kept.into_iter();
        for (start, length) in chunks(rows, vocab, self.options.chunk_rows, &hidden.device()) {
            let gradients = kept.next().unwrap_or_else(|| {
                let chunk = hidden.clone().narrow(0, start, length);
                let targets = self.targets.clone().narrow(0, start, length);
                head::gradients(chunk, weight.clone(), targets, dtype, self.options.logits()).1
            });
            d_weight = add_transposed(d_weight, gradients, pulled.clone().narrow(0, start, length));
        }
        HeadGradient { hidden: d_hidden, weight: Some(d_weight) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::{Device, Distribution, TensorData};

    use super::super::dense;
    use super::*;

    const ROWS: usize = 23;
    const WIDTH: usize = 12;
    const VOCAB: usize = 57;

    fn inputs(dtype: DType) -> (Tensor<2>, Tensor<2>, Tensor<1, Int>, Tensor<1>) {
        let device = Device::flex();
        device.seed(4);
        let random = |shape: [usize; 2], scale: f64| {
            Tensor::<2>::random(shape, Distribution::Normal(0.0, scale), &device).cast(dtype)
        };
        let targets: Vec<i32> = (0..ROWS).map(|row| ((row * 31 + 5) % VOCAB) as i32).collect();
        let targets = Tensor::from_data(TensorData::new(targets, [ROWS]), &device);
        let d_logp = random([1, ROWS], 1.0).reshape([ROWS]);
        (random([ROWS, WIDTH], 1.0), random([VOCAB, WIDTH], 0.7), targets, d_logp)
    }

    fn largest<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f64 {
        (a.cast(DType::F64) - b.cast(DType::F64)).abs().max().into_scalar()
    }

    fn assert_close<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f64) {
        let (scale, error) = (b.clone().abs().max().into_scalar::<f64>(), largest(a, b));
        assert!(error <= tolerance * scale, "{error:e} at scale {scale}");
    }

    fn variants() -> Vec<HeadOptions> {
        let mut variants = Vec::new();
        for chunk_rows in [0, 1, 7, 23, 100] {
            variants.push(HeadOptions { chunk_rows, ..HeadOptions::default() });
            variants.push(HeadOptions { chunk_rows, softcap: Some(3.0), logit_scale: 0.5 });
        }
        variants
    }

    #[test]
    fn equals_the_dense_head_in_value_and_gradient() {
        for (dtype, tolerance) in [(DType::F32, 5e-6), (DType::F64, 1e-13)] {
            let (hidden, weight, targets, d_logp) = inputs(dtype);
            for options in variants() {
                let tracked = Tensor::<2>::from_inner(hidden.clone()).require_grad();
                let tracked_weight = Tensor::<2>::from_inner(weight.clone()).require_grad();
                let on_tape = Tensor::from_inner(targets.clone());
                let oracle = dense::token_logps(tracked.clone(), tracked_weight.clone(), on_tape, &options);
                let gradients = (oracle.clone() * Tensor::from_inner(d_logp.clone())).sum().backward();

                let logps = token_logps(hidden.clone(), weight.clone(), targets.clone(), &options);
                assert_eq!(logps.dtype(), dtype);
                assert_close(logps.clone(), oracle.inner(), tolerance);
                let pass = HeadPass::new(hidden.clone(), weight.clone(), targets.clone(), true, &options);
                assert_close(pass.logps.clone(), logps, tolerance);
                let result = pass.backward(d_logp.clone(), None);
                assert_close(result.hidden, tracked.grad(&gradients).unwrap(), tolerance);
                let once = result.weight.unwrap();
                assert_close(once.clone(), tracked_weight.grad(&gradients).unwrap(), tolerance);
                let again = HeadPass::new(hidden.clone(), weight.clone(), targets.clone(), true, &options);
                let twice = again.backward(d_logp.clone(), Some(once.clone())).weight.unwrap();
                assert_close(twice, once * 2.0, tolerance);
            }
        }
    }

    #[test]
    fn half_precision_storage_sums_in_f32() {
        let (hidden, weight, targets, d_logp) = inputs(DType::BF16);
        let options = HeadOptions::default();
        let logps = token_logps(hidden.clone(), weight.clone(), targets.clone(), &options);
        assert_eq!(logps.dtype(), DType::F32);
        let mixed = token_logps(hidden.clone().cast(DType::F32), weight.clone(), targets.clone(), &options);
        let exact =
            token_logps(hidden.clone().cast(DType::F64), weight.clone().cast(DType::F64), targets.clone(), &options);
        assert!(largest(mixed, exact.clone()) < 1e-5);
        assert!(largest(logps, exact) < 0.1); // bf16 logits near 8 have a step of 1/32
        let result = HeadPass::new(hidden, weight, targets, true, &options).backward(d_logp, None);
        assert_eq!(result.hidden.dtype(), DType::BF16);
        assert_eq!(result.weight.unwrap().dtype(), DType::F32);
    }

    #[test]
    fn large_vocabularies_keep_the_last_digits() {
        let device = Device::flex();
        let hidden = Tensor::<2>::random([3, 16], Distribution::Normal(0.0, 1.0), &device);
        let weight = Tensor::<2>::random([150_001, 16], Distribution::Normal(0.0, 1.0), &device);
        let targets = Tensor::<1, Int>::from_data(TensorData::new(vec![0i32, 77_777, 150_000], [3]), &device);
        let options = HeadOptions::default();
        let logps = token_logps(hidden.clone(), weight.clone(), targets.clone(), &options);
        let exact = token_logps(hidden.cast(DType::F64), weight.cast(DType::F64), targets, &options);
        assert!(largest(logps, exact) < 2e-5);
    }

    #[test]
    fn no_rows_give_no_numbers() {
        let (hidden, weight, targets, d_logp) = inputs(DType::F32);
        let (hidden, targets, d_logp) = (hidden.slice(0..0), targets.slice(0..0), d_logp.slice(0..0));
        let options = HeadOptions::default();
        assert_eq!(token_logps(hidden.clone(), weight.clone(), targets.clone(), &options).dims(), [0]);
        let result = HeadPass::new(hidden, weight, targets, true, &options).backward(d_logp, None);
        assert_eq!((result.hidden.dims(), result.weight.unwrap().dims()), ([0, WIDTH], [VOCAB, WIDTH]));
    }
}
