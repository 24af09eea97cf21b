//! The schedule of the learning rate, with the field's meaning: step 0 of a warm-up of `w` steps has
//! rate 0, step `w` the full rate.

/// A learning rate for every step of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// The highest rate.
    pub peak: f64,
    /// Steps over which the rate rises linearly from 0 to the peak.
    pub warmup_steps: u64,
    /// How the rate falls from there on.
    pub decay: Decay,
    /// Steps of the whole training, its warm-up among them: where the rate has fallen to the floor.
    pub steps: u64,
    /// The rate at the end as a fraction of the peak.
    pub floor: f64,
}

/// How the learning rate falls after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// It stays at the peak.
    Constant,
    /// A straight line from the peak to the floor.
    Linear,
    /// Half a cosine from the peak to the floor.
    Cosine,
}

impl LearningRate {
    /// The same rate at every step.
    pub fn constant(rate: f64) -> Self {
        Self { peak: rate, warmup_steps: 0, decay: Decay::Constant, steps: 0, floor: 1.0 }
    }

    /// The rate of the step that comes after `done` steps.
    pub fn after(&self, done: u64) -> f64 {
        if done < self.warmup_steps {
            return self.peak * done as f64 / self.warmup_steps as f64;
        }
        let span = self.steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((done - self.warmup_steps) as f64 / span as f64).min(1.0);
        let left = match self.decay {
            Decay::Constant => return self.peak,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.peak * (self.floor + (1.0 - self.floor) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_to_the_peak_and_falls_to_the_floor() {
        let rates = |decay| {
            let rate = LearningRate { peak: 2.0, warmup_steps: 2, decay, steps: 6, floor: 0.5 };
            [0, 1, 2, 4, 6, 9].map(|done| rate.after(done))
        };
        assert_eq!(rates(Decay::Constant), [0.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(rates(Decay::Linear), [0.0, 1.0, 2.0, 1.5, 1.0, 1.0]);
        let cosine = rates(Decay::Cosine);
        assert_eq!(cosine[..3], [0.0, 1.0, 2.0]);
        assert!((cosine[3] - 1.5).abs() < 1e-15 && cosine[4] == 1.0 && cosine[5] == 1.0);
        assert_eq!(LearningRate::constant(0.3).after(7), 0.3);
    }
}
