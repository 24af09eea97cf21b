#![no_main]

#[path = "../../spo-data/tests/common/targets.rs"]
mod targets;

// The reader catches panics of the library below it, which the fuzzer would take for a finding before that.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |bytes: &[u8]| targets::read("parquet", bytes));
