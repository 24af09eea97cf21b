//! The program's allocator.

/// `mi_option_purge_delay`; the bindings do not name it, but the option behind it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_use_numa_nodes - 1;
/// Longer than most steps of a small model, shorter than a phase.
const MILLISECONDS: std::ffi::c_long = 1000;

/// Keeps freed memory for the next allocations a while instead of giving it back to the system after 10 ms: activations
/// come and go at every step, and the system zeroes each page it hands out. What a finished phase held does go back.
pub fn keep_freed_memory() {
    // SAFETY: sets a number.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_delay_of_purges() {
        // SAFETY: reads and sets a number.
        let [before, after] = unsafe {
            let before = libmimalloc_sys::mi_option_get(PURGE_DELAY);
            keep_freed_memory();
            [before, libmimalloc_sys::mi_option_get(PURGE_DELAY)]
        };
        // 10 ms is what no other option of the version in use begins with.
        assert_eq!([before, after], [10, MILLISECONDS]);
    }
}
