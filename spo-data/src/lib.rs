//! From preference files to checked, tokenised, packed batches
