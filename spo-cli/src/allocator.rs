//! What the program's allocator keeps of freed memory.

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
use spo_train::Event;
use std::ffi::c_long;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;
/// How long freed memory stays, by the allocator's own default.
const USUAL: Duration = Duration::from_secs(1);
/// The longest that it stays.
const LONGEST: Duration = Duration::from_secs(60);

/// When the last step ended.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Keeps freed memory for longer than a step takes: the next step wants the same memory, and the system clears each page that it
/// hands out anew. Gives it back when the steps are over.
pub(crate) fn hear(event: &Event) {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::PhaseStarted { .. } => *last = None,
        Event::Step(_) => {
            if let Some(before) = last.replace(Instant::now()) {
                keep_for(delay(before.elapsed()));
            }
        }
        Event::PhaseFinished { .. } | Event::RunStopped { .. } => {
            keep_for(USUAL);
            // SAFETY: it may be called at any time, from any thread.
            unsafe { mi_collect(true) };
        }
        _ => (),
    }
}

/// For steps that take so long: they differ, and not every one wants all that the one before gave back.
fn delay(step: Duration) -> Duration {
    (4 * step).clamp(USUAL, LONGEST)
}

/// Whoever sets `MIMALLOC_PURGE_DELAY` decides alone.
fn keep_for(delay: Duration) {
    static TOLD: LazyLock<bool> = LazyLock::new(|| std::env::var_os("MIMALLOC_PURGE_DELAY").is_some());
    if !*TOLD {
        // SAFETY: it may be called at any time, from any thread.
        unsafe { mi_option_set(PURGE_DELAY, delay.as_millis() as c_long) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libmimalloc_sys::mi_option_get;

    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: as above.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, USUAL.as_millis() as c_long);
    }

    #[test]
    fn memory_stays_for_some_steps_within_bounds() {
        let of = |milliseconds| delay(Duration::from_millis(milliseconds)).as_millis();
        assert_eq!([of(3), of(2_500), of(100_000)], [1_000, 10_000, 60_000]);
    }
}
