//! The theory of sequential preference optimisation on tabular worlds, in f64.
#![allow(clippy::unwrap_used)]

mod equivalence;
mod identities;
mod margins;
mod minimiser;
mod multiplier;
mod own_samples;
mod separable;
mod world;
