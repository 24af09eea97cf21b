//! From preference files to checked, tokenised, packed batches.

mod batch;
mod error;
mod example;
mod order;
mod record;
mod tokenize;

pub use batch::{Group, GroupSpan, PackedBatch, micro_batches};
pub use error::DataError;
pub use example::{Example, Preference, RowHash};
pub use order::Order;
pub use record::{AnswerText, Message, PromptText, Record};
pub use tokenize::{ChatTemplate, RenderOptions, TokenSpan, Tokenizer};
