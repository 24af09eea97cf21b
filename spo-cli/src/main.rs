//! The `spo` command; everything is in the library.

use std::process::ExitCode;

// Version 3 keeps freed memory for a while, `allocator` in the library says how long: activations come and go at every step, and the system would zero
// each page anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spo_cli::main()
}
