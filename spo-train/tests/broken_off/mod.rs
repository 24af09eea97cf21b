//! Runs that break off and go on.

use crate::left::{assert_same, left};
use spo_train::config::RunSpec;
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use spo_train::{Manifest, Sink, TrainError, prepare, resume, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Breaks a run off at an event, counted from 1.
struct Breaks {
    at: usize,
    seen: usize,
}

impl Sink for Breaks {
    fn event(&mut self, _: f64, _: &Event) -> Result<(), TrainError> {
        self.seen += 1;
        if self.seen == self.at { Err(TrainError::no_pairs("broken off here")) } else { Ok(()) }
    }
}

/// Stops a run after so many events.
pub struct Stops<'a>(pub usize, pub &'a AtomicBool);

impl Sink for Stops<'_> {
    fn event(&mut self, _: f64, _: &Event) -> Result<(), TrainError> {
        self.0 -= 1;
        if self.0 == 0 {
            self.1.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The finished run in `out` leaves the same where it is broken off at each of these events, counted from 1, and resumed.
#[track_caller]
pub fn goes_on_bit_for_bit(spec: &RunSpec, out: &Path, events: impl IntoIterator<Item = usize>) {
    let (expected, stop) = (left(out), AtomicBool::new(false));
    std::fs::remove_dir_all(out).unwrap();
    let mut broken_off = 0;
    for at in events {
        let broken = run(prepare(spec, &mut Memory::default()).unwrap(), &mut Breaks { at, seen: 0 }, &stop);
        assert!(matches!(broken, Err(TrainError::NoPairs { .. })), "{broken:?}");
        let prepared = prepare(&Manifest::read(out).unwrap().spec().unwrap(), &mut Memory::default()).unwrap();
        resume(prepared, out, &[], &mut Memory::default(), &stop).unwrap();
        assert_same(&left(out), &expected, &format!("event {at}"));
        std::fs::remove_dir_all(out).unwrap();
        broken_off += 1;
    }
    assert!(broken_off > 0, "no event to break off at");
}
