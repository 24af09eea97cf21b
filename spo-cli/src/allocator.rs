//! The program's allocator.

/// `mi_option_purge_delay`; the bindings do not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Longer than most steps of a small model, shorter than a phase.
const MILLISECONDS: std::ffi::c_long = 1000;

/// Keeps freed memory for the next allocations a while instead of giving it back to the system after 10 ms: activations
/// come and go at every step, and the system zeroes each page it hands out. What a finished phase held does go back.
pub fn keep_freed_memory() {
    // SAFETY: sets a number.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) };
}
