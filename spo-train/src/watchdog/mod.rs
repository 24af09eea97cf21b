//! What looks wrong in a run, in plain words.

mod silence;

pub use silence::Silence;
