//! Rotary frequencies and the ways in which families stretch them for long contexts.

use std::f64::consts::PI;

/// Rotary position embedding in the rotate-half layout (Su et al. 2021, arXiv 2104.09864).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How many channels of a head are rotated, the first ones; even.
    pub dim: usize,
    /// How the frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
    /// Neighbouring channels turn together, not those of the two halves (Cohere 2, GLM 4).
    pub pairs: bool,
    /// Queries grow with their position (Ministral 3).
    pub growth: Option<QueryGrowth>,
}

/// Queries at position `p` are multiplied by `1 + beta · ln(1 + ⌊p / context⌋)`, as in Llama 4.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryGrowth {
    /// How fast they grow.
    pub beta: f64,
    /// Positions without growth.
    pub context: f64,
}

impl QueryGrowth {
    /// The factor at a position.
    pub fn at(self, position: usize) -> f32 {
        (1.0 + self.beta * (position as f64 / self.context).floor().ln_1p()) as f32
    }
}

/// Stretching of rotary frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None. Dynamic NTK scaling is this too, as it changes nothing within the context of the training.
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low` are low frequencies.
        low: f64,
        /// Wavelengths below `original_context / high` are high frequencies.
        high: f64,
        /// Context of the pre-training.
        original_context: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071): channels that turn fewer than `slow` times in the
    /// original context are divided by `factor`, those that turn more than `fast` times kept.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns above which a channel is kept.
        fast: f64,
        /// Turns below which a channel is divided.
        slow: f64,
        /// The two channels are rounded outwards to whole ones.
        truncate: bool,
        /// Context of the pre-training.
        original_context: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
    /// The first pairs of channels turn as fast as they would if all did, divided by `factor`; the others do not (Gemma 4).
    Proportional {
        /// Pairs that turn.
        turned: usize,
        /// The divisor.
        factor: f64,
    },
    /// LongRoPE (Ding et al. 2024, arXiv 2402.13753) within the original context: each frequency
    /// divided by a factor of its own.
    LongRope {
        /// Divisors, one per pair of channels.
        factors: Vec<f64>,
        /// Those of longer rows, which are not trained on but exported.
        long_factors: Vec<f64>,
        /// Context of the pre-training.
        original_context: f64,
        /// The longest row with the other divisors.
        long_context: usize,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
}

impl Rope {
    /// Inverse frequencies, `[dim / 2]`.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        (0..self.dim / 2).map(|channel| self.frequency(channel) as f32).collect()
    }

    /// What cosines and sines are multiplied by.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                attention_factor
            }
            _ => 1.0,
        }
    }

    fn frequency(&self, channel: usize) -> f64 {
        let plain = self.theta.powf(-2.0 * channel as f64 / self.dim as f64);
        match &self.scaling {
            RopeScaling::Default => plain,
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Proportional { turned, factor } => {
                if channel < *turned {
                    plain / factor
                } else {
                    0.0
                }
            }
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                let wavelength = 2.0 * PI / plain;
                let smooth = (original_context / wavelength - low) / (high - low);
                blend(plain / factor, plain, smooth)
            }
            RopeScaling::Yarn { factor, fast, slow, truncate, original_context, .. } => {
                // The channel that turns this many times in the original context.
                let at = |turns: f64| {
                    self.dim as f64 * (original_context / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
                };
                let (low, high) = match truncate {
                    true => (at(*fast).floor(), at(*slow).ceil()),
                    false => (at(*fast), at(*slow)),
                };
                let (low, high) = (low.max(0.0), high.min(self.dim as f64 - 1.0));
                let width = if low == high { 0.001 } else { high - low };
                blend(plain, plain / factor, (channel as f64 - low) / width)
            }
            RopeScaling::LongRope { factors, .. } => plain / factors[channel],
        }
    }
}

/// From `a` at 0 and below to `b` at 1 and above.
fn blend(a: f64, b: f64, at: f64) -> f64 {
    let at = at.clamp(0.0, 1.0);
    (1.0 - at) * a + at * b
}
