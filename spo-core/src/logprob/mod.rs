//! Token log-probabilities from hidden states.
//!
//! [`chunked`] is what training and scoring use: it never holds more than one chunk of logits. [`dense`] builds all
//! logits with a tape; it is the oracle for tests.

pub mod chunked;
pub mod dense;
pub mod divergence;
pub mod weight;

pub use chunked::{HeadGradient, HeadOptions, HeadPass, token_logps};
