//! The operations of generation: a few rows at a time, each computed alone and in one order, so that a row has the same
//! bits whatever runs beside it.

pub mod attention;
mod block;
pub mod elementwise;
pub mod product;
mod q8;
pub mod rows;

pub use attention::{KeysValues, Seen, attend};
pub use product::{Weight, product};
pub use rows::Rows;
