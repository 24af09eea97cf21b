//! A head that gives a text a number.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

/// Path of the head's weight in a model, and its name in a checkpoint.
pub const SCORE: &str = "score.weight";
/// That of its bias.
pub const SCORE_BIAS: &str = "score.bias";

/// Which token of a text the score head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The last one.
    Last,
    /// The rightmost one that is not this padding token, as in transformers: where texts end with their padding token
    /// (pad = eos), that is the one *before* the end. The first one where all are padding.
    BeforePads(u32),
}

impl Pooling {
    /// Index of the token in prompt and answer; 0 of an empty text.
    pub fn index(self, prompt: &[u32], answer: &[u32]) -> usize {
        let last = (prompt.len() + answer.len()).saturating_sub(1);
        let Self::BeforePads(pad) = self else { return last };
        let is_text = |id: &u32| *id != pad;
        let in_answer = answer.iter().rposition(is_text).map(|index| prompt.len() + index);
        in_answer.or_else(|| prompt.iter().rposition(is_text)).unwrap_or(0)
    }
}

/// A linear layer on the final norm's hidden state of one token.
#[derive(Module, Debug)]
pub struct ScoreHead {
    /// `[labels, hidden]`
    pub weight: Param<Tensor<2>>,
    /// `[labels]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Which token it reads.
    #[module(skip)]
    pub pooling: Pooling,
    /// How the critique is asked for that it reads behind, in a model that was trained so.
    #[module(skip)]
    pub critic: Option<Critic>,
}

impl ScoreHead {
    /// Hidden states `[rows, hidden]` → scores `[rows, labels]`, f32 (f64 of an f64 model).
    pub fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        let wide = if hidden.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let scores = hidden.cast(wide).matmul(self.weight.val().cast(wide).transpose());
        match &self.bias {
            Some(bias) => scores + bias.val().cast(wide).unsqueeze::<2>(),
            None => scores,
        }
    }

    /// Scores that it gives.
    pub fn labels(&self) -> usize {
        self.weight.val().dims()[0]
    }
}

/// How critiques are asked for and where they end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Critic {
    /// Tokens of `reward::REQUEST`.
    pub request: Vec<u32>,
    /// Tokens that end a critique; they are part of it.
    pub stop: Vec<u32>,
    /// Most tokens of one that is written.
    pub max_new_tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::Pooling;

    #[test]
    fn the_pooled_token_is_the_rightmost_one_that_is_no_padding() {
        let index = |prompt: &[u32], answer: &[u32]| Pooling::BeforePads(2).index(prompt, answer);
        assert_eq!(index(&[5, 6], &[7, 8]), 3);
        assert_eq!(index(&[5, 6], &[7, 2]), 2, "the end of the text is its padding token");
        assert_eq!(index(&[5, 2], &[2, 2]), 0);
        assert_eq!(index(&[2], &[2, 2]), 0);
        assert_eq!(index(&[], &[7, 2, 8, 2, 2]), 2, "padding inside counts for nothing");
        assert_eq!(Pooling::Last.index(&[5, 6], &[7, 2]), 3);
        assert_eq!(Pooling::Last.index(&[], &[]), 0);
    }
}
