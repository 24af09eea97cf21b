//! Every objective of the registry: golden numbers, finite differences, extremes, symmetries, options.
#![allow(clippy::unwrap_used)]

mod batch;
mod definitions;
mod derivatives;
mod golden;
mod options;
mod other_shapes;
mod rewards;
mod table;
