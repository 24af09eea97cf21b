//! From preference files to checked, tokenised, packed batches

mod batch;
mod budget;
mod dataset;
mod encode;
mod error;
mod example;
pub mod format;
mod layout;
mod load;
mod order;
mod record;
mod report;
pub mod schema;
mod spec;
mod tokenize;

pub use batch::{Group, GroupSpan, PackedBatch, micro_batches};
pub use dataset::{Dataset, DimensionCount, PairRef, split_by_prompt};
pub use encode::{encode_prompt, encode_record};
pub use error::DataError;
pub use example::{Example, Preference, RowHash};
pub use load::{load, load_bytes, load_rows};
pub use order::Order;
pub use record::{AnswerText, Message, PromptText, Record};
pub use report::{FileReport, Incident, LoadReport, Reason};
pub use spec::{DataSpec, Overflow, Paths, TemplateKind, TextSpec};
pub use tokenize::{ChatTemplate, RenderOptions, TokenSpan, Tokenizer};
