//! Kernels for graphics cards of every vendor, in CubeCL: one source for WGSL, SPIR-V, Metal and CUDA.
//!
//! Rules that hold everywhere here: a value is stored in the type `E` of its buffer and computed in f32; no float
//! atomics, so that sums have one order and results one set of bits; at most 32 KiB of shared memory and 256 units a
//! cube; at most 65,535 cubes along an axis; barriers only where all units of a cube come by. Sizes are arguments of a
//! launch, not constants of a kernel, but for head dimensions, tiles and vector widths.
//!
//! A launch takes contiguous buffers, checks their lengths and panics if one does not fit: sizes are the caller's
//! invariants. Kernels read and write no element beyond the lengths so checked.

#![allow(
    clippy::unnecessary_cast,
    reason = "inside kernels, sizes of the device become usize; on the host they are already"
)]

mod buffer;
#[cfg(feature = "kernel-cache")]
pub mod cache;
mod cube;
#[macro_use]
mod launch;

pub mod attention;
pub mod choose;
pub mod dequantise;
pub mod embedding;
pub(crate) mod form;
pub mod glu;
pub mod head;
pub mod matmul;
pub mod norm;
pub mod optimizer;
pub mod rope;
pub mod sums;
#[cfg(feature = "cuda-text")]
pub mod text;

pub use buffer::Buffer;
pub use form::{dequantised, matrix_units};
