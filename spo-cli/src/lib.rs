//! The spo command
