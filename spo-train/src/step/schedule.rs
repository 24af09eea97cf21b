//! The course of the learning rate, with the field's meaning: step 0 of a warm-up of `w` steps has
//! rate 0, step `w` the full rate.

use crate::config::TrainingPlan;
use crate::config::spec::Schedule;

/// Learning rate of a step, counted from 0.
pub fn learning_rate(training: &TrainingPlan, step: u64) -> f64 {
    let peak = training.learning_rate;
    if step < training.warmup_steps {
        return peak * step as f64 / training.warmup_steps as f64;
    }
    let span = training.steps.saturating_sub(training.warmup_steps).max(1);
    let progress = ((step - training.warmup_steps) as f64 / span as f64).min(1.0);
    let course = match training.schedule {
        Schedule::Constant => return peak,
        Schedule::Linear => 1.0 - progress,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
    };
    let floor = training.final_learning_rate_ratio;
    peak * (floor + (1.0 - floor) * course)
}
