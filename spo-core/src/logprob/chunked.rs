//! The memory-safe head: log-probabilities and their closed-form gradient, one chunk of rows at a time.

use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, activation};

/// One chunk of f32 logits takes at most this many bytes when `chunk_rows` is 0.
const CHUNK_BYTES: usize = 64 << 20;

/// How logits are made of hidden states: `z = logit_scale · (h Wᵀ)`, then `softcap · tanh(z / softcap)` if there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadOptions {
    /// Rows per chunk; 0 chooses as many as keep a chunk of f32 logits within 64 MiB.
    pub chunk_rows: usize,
    /// Bound of the logits (Gemma 2's `final_logit_softcapping`).
    pub softcap: Option<f64>,
    /// Factor on the logits (Cohere's `logit_scale`, the inverse of Granite's `logits_scaling`).
    pub logit_scale: f64,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self {
            chunk_rows: 0,
            softcap: None,
            logit_scale: 1.0,
        }
    }
}

/// What [`token_logps_backward`] returns.
#[derive(Debug, Clone)]
pub struct HeadGradient {
    /// `[rows, hidden]`, in the dtype of the hidden states.
    pub hidden: Tensor<2>,
    /// `[vocab, hidden]`, f32 (f64 where the weight is), if it was wanted.
    pub weight: Option<Tensor<2>>,
}

/// The dtype of logits, log-sum-exp and sums: f64 if both inputs are, f32 otherwise.
fn wide(hidden: &Tensor<2>, weight: &Tensor<2>) -> DType {
    if hidden.dtype() == DType::F64 && weight.dtype() == DType::F64 {
        DType::F64
    } else {
        DType::F32
    }
}

/// The operands of the matrix products: the storage dtype where both agree, else the wide one.
fn operands(hidden: Tensor<2>, weight: Tensor<2>) -> (Tensor<2>, Tensor<2>, DType) {
    let dtype = wide(&hidden, &weight);
    if hidden.dtype() == weight.dtype() {
        (hidden, weight, dtype)
    } else {
        (hidden.cast(dtype), weight.cast(dtype), dtype)
    }
}

/// `(start, length)` of each chunk of rows.
fn chunks(rows: usize, vocab: usize, chunk_rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = match chunk_rows {
        0 => (CHUNK_BYTES / (4 * vocab.max(1))).max(1),
        given => given,
    };
    (0..rows)
        .step_by(size)
        .map(move |start| (start, size.min(rows - start)))
}

/// Scaled (not yet capped) logits `[chunk, vocab]` in the wide dtype.
fn scaled_logits(
    hidden: Tensor<2>,
    transposed: Tensor<2>,
    dtype: DType,
    options: &HeadOptions,
) -> Tensor<2> {
    let logits = hidden.matmul(transposed).cast(dtype);
    if options.logit_scale == 1.0 {
        logits
    } else {
        logits * options.logit_scale
    }
}

/// `tanh(z / cap)`, the part that both the value and the slope of the cap need.
fn squash(logits: Tensor<2>, cap: f64) -> Tensor<2> {
    (logits / cap).tanh()
}

/// `log p(target)` of each row, `[rows]`, in f32 (f64 if both inputs are f64).
///
/// `hidden` `[rows, hidden]`, `weight` `[vocab, hidden]` (as Hugging Face stores it), `targets` `[rows]` with token ids
/// below `vocab`; none of them on a tape. At most one chunk of logits exists at a time.
pub fn token_logps(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    options: &HeadOptions,
) -> Tensor<1> {
    let (hidden, weight, dtype) = operands(hidden, weight);
    let [rows, _] = hidden.dims();
    let [vocab, _] = weight.dims();
    let transposed = weight.transpose();
    let parts: Vec<Tensor<1>> = chunks(rows, vocab, options.chunk_rows)
        .map(|(start, length)| {
            let targets = targets
                .clone()
                .narrow(0, start, length)
                .reshape([length, 1]);
            let chunk = hidden.clone().narrow(0, start, length);
            let mut logits = scaled_logits(chunk, transposed.clone(), dtype, options);
            if let Some(cap) = options.softcap {
                logits = squash(logits, cap) * cap;
            }
            activation::log_softmax(logits, 1)
                .gather(1, targets)
                .reshape([length])
        })
        .collect();
    match parts.is_empty() {
        true => Tensor::zeros([0], (&hidden.device(), dtype)),
        false => Tensor::cat(parts, 0),
    }
}

/// The gradient of `Σ_r d_logp[r] · log p(target_r)` with respect to the hidden states and, if wanted, the weight.
///
/// Shapes as in [`token_logps`], `d_logp` `[rows]`. Closed form: the gradient of `log p(t)` with respect to logit `v`
/// is `1[v = t] − p(v)`; logits are computed again, chunk by chunk.
pub fn token_logps_backward(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    d_logp: Tensor<1>,
    want_weight: bool,
    options: &HeadOptions,
) -> HeadGradient {
    let hidden_dtype = hidden.dtype();
    let (hidden, weight, dtype) = operands(hidden, weight);
    let compute = hidden.dtype();
    let [rows, width] = hidden.dims();
    let [vocab, _] = weight.dims();
    let device = hidden.device();
    let transposed = weight.clone().transpose();
    let mut d_weight = want_weight.then(|| Tensor::<2>::zeros([vocab, width], (&device, dtype)));
    let mut d_hidden = Vec::new();
    for (start, length) in chunks(rows, vocab, options.chunk_rows) {
        let chunk = hidden.clone().narrow(0, start, length);
        let targets = targets
            .clone()
            .narrow(0, start, length)
            .reshape([length, 1]);
        let d_logp = d_logp
            .clone()
            .narrow(0, start, length)
            .reshape([length, 1])
            .cast(dtype);
        let logits = scaled_logits(chunk.clone(), transposed.clone(), dtype, options);
        let (logits, squashed) = match options.softcap {
            Some(cap) => {
                let squashed = squash(logits, cap);
                (squashed.clone() * cap, Some(squashed))
            }
            None => (logits, None),
        };
        let mut d_logits = (activation::softmax(logits, 1) * d_logp.clone().neg()).scatter(
            1,
            targets,
            d_logp,
            IndexingUpdateOp::Add,
        );
        if let Some(squashed) = squashed {
            d_logits = d_logits * (squashed.square().neg() + 1.0);
        }
        if options.logit_scale != 1.0 {
            d_logits = d_logits * options.logit_scale;
        }
        let d_logits = d_logits.cast(compute);
        d_hidden.push(d_logits.clone().matmul(weight.clone()).cast(hidden_dtype));
        d_weight = d_weight.map(|sum| sum + d_logits.transpose().matmul(chunk).cast(dtype));
    }
    let hidden = match d_hidden.is_empty() {
        true => Tensor::zeros([0, width], (&device, hidden_dtype)),
        false => Tensor::cat(d_hidden, 0),
    };
    HeadGradient {
        hidden,
        weight: d_weight,
    }
}
