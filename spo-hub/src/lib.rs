//! Models, adapters, tokenizers and data sets of the Hugging Face Hub, by name.
//!
//! [`Name`] tells a name of the Hub from a path, [`Settings`] read the environment as Python's `huggingface_hub` does, and
//! [`fetch()`](fetch()) brings what is needed into the cache that both share. A download that was cut goes on where it ended, and every
//! file is compared with the hash that the Hub has of it. [`push()`](push()) uploads a directory. Nothing is printed.

// What only the transfers need is there without them too.
#![cfg_attr(not(feature = "online"), allow(dead_code))]

#[cfg(feature = "online")]
mod cache;
#[cfg(feature = "online")]
mod client;
#[cfg(feature = "online")]
mod download;
mod error;
mod fetch;
#[cfg(feature = "online")]
mod files;
mod name;
mod push;
mod settings;
mod want;

#[cfg(feature = "online")]
pub use client::refusal;
pub use error::HubError;
pub use fetch::fetch;
#[cfg(feature = "online")]
pub use files::listed;
pub use name::{Kind, Name};
pub use push::{Pushed, push};
pub use settings::Settings;
pub use want::{Fetched, Progress, Want};
