//! A sink of events: sends the loss of each step through a channel. That the other end is gone is an error of its own.

use spo_train::{Event, Sink, TrainError};
use std::sync::mpsc::Sender;

pub(crate) struct Losses(pub(crate) Sender<(String, f64)>);

impl Sink for Losses {
    fn event(&mut self, _seconds: f64, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::Step(step) => self.0.send((step.phase.clone(), step.loss)).map_err(TrainError::sink),
            _ => Ok(()),
        }
    }
}
