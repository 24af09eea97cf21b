//! What a run keeps on disk: files that are there as a whole or not at all, the journal of finished stages, the names of
//! its files.

pub mod directory;
pub mod disk_space;
pub mod durable;
pub(crate) mod float;
pub(crate) mod journal;
