//! What the CPU does in its own way: matrix products, rows of numbers, and tensors as slices.
//!
//! burn's CPU backend computes most operations on one thread and in several passes. The operations of this module take
//! one pass, on all threads, in f32; burn's own operations are their reference, and what runs on every other device and
//! type. No result depends on the number of threads: each number is summed in an order of its own, fixed by the shapes.

pub mod matmul;
pub mod rows;
pub mod values;
pub mod vector;

pub use matmul::{Matrix, add_product, product, product_into};
pub use values::Values;
