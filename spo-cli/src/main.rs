//! The `spo` command; everything is in the library.

use std::process::ExitCode;

// Version 3 keeps freed memory for a while, and the library's `allocator` says how long.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spo_cli::main()
}
