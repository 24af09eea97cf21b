#![no_main]
#![allow(dead_code)]

#[path = "../../spo-model/src/load/header.rs"]
mod header;
#[path = "../../spo-model/src/load/packed.rs"]
mod packed;
#[path = "../../spo-model/src/quant/mod.rs"]
mod quant;
#[path = "../../spo-model/tests/common/packed_target.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::packed(bytes));
