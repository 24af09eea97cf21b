#![no_main]

#[path = "../../spo-hub/tests/common/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::hub(bytes));
