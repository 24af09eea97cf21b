//! The next token of each row of logits, chosen where they are: only the tokens are read back.

use burn::tensor::Tensor;

/// What tokens are drawn by.
#[derive(Debug, Clone, PartialEq)]
pub struct Draws {
    /// Divides the logits; above 0.
    pub temperature: f32,
    /// `[rows]`, each in [0, 1): the share of the sum of probabilities, in the order of tokens, in which the token is.
    pub uniform: Vec<f32>,
}

/// The most likely token of each row, of several the first; or the one that is drawn. `None` where the logits are in host
/// memory or on a tape: they are read there anyway.
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
pub fn choose(logits: &Tensor<2>, draws: Option<&Draws>) -> Option<Vec<u32>> {
    #[cfg(feature = "gpu")]
    return crate::gpu::form::choose(logits, draws);
    #[cfg(not(feature = "gpu"))]
    {
        let _ = (logits, draws);
        None
    }
}

/// The same from numbers, a row at a time.
pub fn reference(logits: &[f64], draw: Option<(f64, f64)>) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    let Some((temperature, draw)) = draw else { return best as u32 };
    let weights: Vec<f64> = logits.iter().map(|logit| ((logit - logits[best]) / temperature).exp()).collect();
    let mut left = draw * weights.iter().sum::<f64>();
    for (token, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return token as u32;
        }
    }
    best as u32
}
