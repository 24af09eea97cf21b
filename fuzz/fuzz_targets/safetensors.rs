#![no_main]

#[path = "../../spo-model/src/load/header.rs"]
mod header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = header::read(bytes);
});
