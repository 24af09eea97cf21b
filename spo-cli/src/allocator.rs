//! The program's allocator.

/// `mi_option_purge_delay`; the bindings do not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed memory for the next allocation instead of giving it back to the system after 10 ms: activations come and
/// go at every step, and the system zeroes each page it hands out.
pub fn keep_freed_memory() {
    // SAFETY: sets a number; −1 means never.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
