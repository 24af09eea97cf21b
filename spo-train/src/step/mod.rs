//! One optimiser step as a library: gradients by the tape, their sums, the optimiser, the learning rate. It knows no run
//! and no file.

pub mod dropout;
pub mod gradients;
pub mod memory;
pub mod optimizer;
pub mod row_sparse;
pub mod schedule;
pub mod tape;
