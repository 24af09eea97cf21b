//! Preference objectives, pair log-probabilities and the chunked log-prob head
