//! The operations of training, scoring and generation that have a form of their own: on the CPU, and where it is
//! written, on graphics cards.
//!
//! One room for all of them, under everything that has a model or a loss. Each operation is a file here: its formula, its
//! reference in burn's operations, the function that takes the best form for its tensors, and the test that holds every
//! form to the reference. The forms are files of the same name in [`cpu`] and `gpu/form`, whose kernels are in `gpu`:
//!
//! | operation | what it does | forms | on the tape |
//! |---|---|---|---|
//! | [`linear`] | `x Wᵀ` | `cpu/linear.rs`, `gpu/form/linear.rs` | yes |
//! | [`blocks`] | `x Wᵀ` of a weight in blocks | `cpu/blocks.rs` | yes |
//! | [`bias`] | `y + b` | `cpu/bias.rs` | yes |
//! | [`glu`] | `act(gate) · up` | `cpu/glu.rs`, `gpu/form/glu.rs` | yes |
//! | [`rms_norm`] | `x / √(mean(x²) + ε) · (w + offset)` | `cpu/rms_norm.rs`, `gpu/form/rms_norm.rs` | yes |
//! | [`rope`] | rotary positions | `cpu/rope.rs`, `gpu/form/rope.rs` | yes |
//! | [`pull`] | where a tape begins to be walked back | `cpu/pull.rs`, `gpu/form/pull.rs` | yes |
//! | [`attention`] | packed, prefix-shared attention | `cpu/attention.rs`, `gpu/form/attention.rs` | closed form |
//! | [`product`] | `a b` and `sum + aᵀ b` | `cpu/product.rs`, `gpu/form/product.rs` | no |
//! | [`head`] | log-probabilities and their gradient from logits | `cpu/head.rs`, `gpu/form/head.rs` | closed form |
//! | [`accumulate`] | the sum of gradients | `gpu/form/accumulate.rs` | no |
//! | [`embedding`] | the gradient of a table whose rows were looked up | `gpu/form/embedding.rs` | no |
//! | [`choose`] | the next token of each row of logits | `gpu/form/choose.rs` | no |
//! | [`squares`] | the sum of squares of gradients | `gpu/form/squares.rs` | no |
//! | [`adamw`] | one AdamW update | `cpu/adamw.rs`, `gpu/form/adamw.rs` | no |
//!
//! [`matmul`] says how graphics cards multiply. [`cpu`] also has what the forms are made of, and [`cpu::decode`], the operations of generation, a few rows at a time.
//!
//! # A form on another backend
//!
//! A form is one file and one line. `gpu/form/glu.rs`, say, has
//! `impl Form<CubeBackend, 2> for Glu` (see [`Form`]): the value, the gradients, and which inputs these need; a
//! `CubeTensor` brings the client and the handle that a CubeCL kernel is launched with. `glu.rs` then tries it after the
//! CPU's form:
//!
//! ```text
//! let y = run::<Flex, 2, 2>(Glu(of), [operand(gate), operand(up)]);
//! #[cfg(feature = "gpu")]
//! let y = y.or_else(|| run::<CubeBackend, 2, 2>(Glu(of), [operand(gate), operand(up)]));
//! y.unwrap_or_else(|| reference(of, gate, up))
//! ```
//!
//! [`run`] makes it a node of the tape. `impl Home for CubeBackend` (see [`Home`]) is written once: which types and
//! devices the forms take, and five conversions; a tensor that it does not take, such as a handle of burn's fusion, goes to
//! the reference. Operations without a tape choose their form in their own function, in the same place. The test beside
//! the function holds the CPU's form to the reference, `spo-model/tests/all/forms.rs` that of the device which
//! `SPO_TEST_DEVICE` names.
//!
//! # Bits
//!
//! No result depends on the number of threads: each number is summed in an order of its own, fixed by the shapes.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use spo_kernels::glu::{Activation, glu, reference};
//!
//! let device = Device::flex();
//! let (gate, up) = (Tensor::<2>::ones([2, 3], &device), Tensor::<2>::ones([2, 3], &device) * 2);
//! let difference = glu(Activation::Gelu, gate.clone(), up.clone()) - reference(Activation::Gelu, gate, up);
//! assert!(difference.abs().max().into_scalar::<f32>() < 1e-6);
//! ```

pub mod accumulate;
pub mod adamw;
pub mod attention;
pub mod bias;
pub mod blocks;
#[cfg(test)]
mod check;
pub mod choose;
pub mod cpu;
pub mod embedding;
pub mod glu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod head;
pub mod host;
pub mod linear;
pub mod matmul;
pub mod memory;
pub mod operation;
pub mod product;
pub mod pull;
pub mod rms_norm;
pub mod rope;
pub mod squares;

pub use operation::{Form, Home, Operand, operand, run};
