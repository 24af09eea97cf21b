//! From preference files to checked, tokenised, packed batches.
//!
//! - [`load`] reads files of any registered [`format`](mod@format) and [`schema`] into a [`Dataset`] of
//!   tokenised [`Example`]s; nothing is dropped, cut or left out without an entry in its [`LoadReport`].
//! - [`Registry`] holds the layouts and formats, and takes those of other crates.
//! - [`Tokenizer`] reads Hugging Face tokenizer directories with their [`ChatTemplate`].
//! - [`Order`] says which examples a batch of training visits, [`PackedBatch`] lays them end to end with
//!   each prompt stored once.
//!
//! ```
//! use spo_data::{DataSpec, Group, Order, PackedBatch, TextSpec, Tokenizer, load_bytes};
//!
//! # let tokenizer_json = br#"{"version": "1.0", "model": {"type": "WordLevel", "unk_token": "<unk>",
//! #     "vocab": {"<unk>": 0, "</s>": 1, "Why": 2, "?": 3, "Because": 4, "No": 5, "idea": 6}},
//! #     "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}"#;
//! let tokenizer = Tokenizer::from_bytes(tokenizer_json, br#"{"eos_token": "</s>"}"#, None)?;
//! let file = br#"{"prompt": "Why?", "response_a": " Because", "response_b": " No idea", "prefs": {"honesty": -1}}"#;
//! let data = load_bytes("pairs.jsonl", file, &DataSpec::default(), &TextSpec::default(), &tokenizer)?;
//! assert_eq!(data.dimensions()["honesty"].pairs, 1);
//!
//! let pairs = data.pairs("honesty");
//! let order = Order { n: pairs.len(), batch: 8, seed: 42, round: 0, shuffle: true };
//! let groups: Vec<Group> = order
//!     .batch(0)
//!     .into_iter()
//!     .map(|index| {
//!         let pair = pairs[index];
//!         let example = &data.examples[pair.example];
//!         Group {
//!             prompt: &example.prompt,
//!             answers: vec![&example.answers[pair.chosen], &example.answers[pair.rejected]],
//!         }
//!     })
//!     .collect();
//! let batch = PackedBatch::new(&groups);
//! assert_eq!(batch.input_ids, [2, 3, 5, 6, 1, 4, 1]);
//! assert_eq!(batch.positions, [0, 1, 2, 3, 4, 2, 3]);
//! # Ok::<(), spo_data::DataError>(())
//! ```

mod batch;
mod budget;
mod cache;
mod check;
mod conflict;
mod dataset;
pub mod degrees;
mod encode;
mod error;
mod example;
mod expand;
mod files;
pub mod format;
pub mod gguf;
pub mod goals;
mod layout;
pub mod lfs;
mod load;
pub mod meta;
mod order;
mod preview;
mod prompts;
mod reading;
mod record;
mod registry;
mod report;
mod rows;
pub mod schema;
mod shares;
mod spec;
mod split;
mod stats;
mod tokenize;
mod tokens;
mod units;
mod unrendered;

pub use batch::{Group, GroupSpan, PackedBatch, ValueRow, micro_batches};
pub use cache::load_cached;
pub use check::{GateMiss, GateSpec};
pub use conflict::{Conflict, Estimate};
pub use dataset::{Dataset, DimensionCount, PairRef};
pub use encode::{encode_prompt, encode_record};
pub use error::{DataError, NoSchema};
pub use example::{Example, Preference, RowHash, SourceRow, row_hash};
pub use files::{files, has_splits};
pub use load::{load, load_bytes, load_rows};
pub use order::Order;
pub use preview::Segment;
pub use prompts::{NamedPrompt, Prompt, prompts_of, read_prompts};
pub use record::{AnswerText, Message, PromptText, Record};
pub use registry::{Entry, Registry};
pub use report::{FileReport, Incident, LoadReport, Reason, TokenShare};
pub use rows::AnswerRef;
pub use spec::{DataSpec, EmptyThink, Overflow, Part, Paths, Supervise, TemplateKind, TextSpec, ToolArguments};
pub use split::{Fold, split_by_fold, split_by_prompt};
pub use stats::{DatasetStats, DimensionStats, Lengths};
pub use tokenize::{
    ChatTemplate, RenderOptions, SpecialTokens, TokenSpan, Tokenizer, TokenizerSettings, template_files,
};
pub use tokens::Tokens;
pub use units::{UnitOrder, Units};
