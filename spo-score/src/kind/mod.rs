//! The kinds of scorers: one file each and one line here.

mod answer;
mod command;
mod http;
mod implicit;
mod np_btl;
mod reward_model;
mod rules;
mod weighted;

use crate::entry::Entry;

/// The kinds of this crate.
pub(crate) const BUILTIN: &[Entry] =
    &[rules::ENTRY, implicit::ENTRY, reward_model::ENTRY, np_btl::ENTRY, command::ENTRY, http::ENTRY, weighted::ENTRY];
