//! Every objective of the registry: golden numbers, finite differences, extremes, symmetries, options.
#![allow(clippy::unwrap_used)]

mod definitions;
mod derivatives;
mod golden;
mod options;
mod other_shapes;
mod table;
mod window;
