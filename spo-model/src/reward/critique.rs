//! Rewards behind a critique: the model first writes what is good and what is bad about an answer, then the score head
//! reads the last token of that. Source: MM-RLHF, arXiv 2502.10391, in text only and with words of its own.

use super::Critic;
use crate::CausalLm;
use crate::generate::{Control, DecodeOptions, GenerateOptions, Generator, Sampling};
use spo_data::{DataError, Group, Tokenizer, ValueRow};

/// What stands between an answer and its critique.
pub const REQUEST: &str = "\n\nIs this answer correct, clear and complete? Its strengths and weaknesses:\n";
/// Sequences that write together.
const TOGETHER: usize = 16;

/// An answer with its critique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Critiqued {
    /// Answer, request and critique.
    pub tokens: Vec<u32>,
    /// Where the critique begins.
    pub from: usize,
}

impl Critic {
    /// The critic of a tokenizer.
    ///
    /// # Errors
    /// The request cannot be encoded.
    pub fn new(tokenizer: &Tokenizer, max_new_tokens: usize) -> Result<Self, DataError> {
        let (request, stop) = (tokenizer.encode(REQUEST, false)?, tokenizer.terminators().to_vec());
        Ok(Self { request, stop, max_new_tokens })
    }

    /// An answer with a critique that is given, which ends as the tokenizer ends a text.
    ///
    /// # Errors
    /// The critique cannot be encoded.
    pub fn given(&self, tokenizer: &Tokenizer, answer: &[u32], critique: &str) -> Result<Critiqued, DataError> {
        let mut tokens = tokenizer.encode(critique.trim(), false)?;
        tokens.extend(tokenizer.eos().or_else(|| self.stop.first().copied()));
        Ok(self.with(answer, &tokens))
    }

    fn with(&self, answer: &[u32], critique: &[u32]) -> Critiqued {
        Critiqued { tokens: [answer, &self.request, critique].concat(), from: answer.len() + self.request.len() }
    }
}

impl CausalLm {
    /// Each answer of the groups with the most likely critique, which ends at `max_new_tokens` or the model's context at the
    /// latest.
    pub fn criticise(&self, groups: &[Group], critic: &Critic) -> Vec<Vec<Critiqued>> {
        let prompts: Vec<Vec<u32>> = groups
            .iter()
            .flat_map(|group| group.answers.iter().map(|answer| [group.prompt, answer, &critic.request].concat()))
            .collect();
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let options = GenerateOptions {
            max_new_tokens: critic.max_new_tokens,
            sampling: Sampling::GREEDY,
            seed: 0,
            first_stream: 0,
            stop: critic.stop.clone(),
        };
        let decode = DecodeOptions { batch: TOGETHER, drafts: 0, ..DecodeOptions::default() };
        let mut generator = Generator::new(self.clone(), &decode);
        let mut written = generator.generate(&prompts, &options, &mut |_, _| Control::Continue).into_iter();
        let of_group = |group: &Group| {
            let answers = group.answers.iter().zip(written.by_ref());
            answers.map(|(answer, critique)| critic.with(answer, &critique.ids)).collect()
        };
        groups.iter().map(of_group).collect()
    }

    /// As [`rewards`](Self::rewards), read behind the most likely critique of each answer.
    ///
    /// # Panics
    /// The model has no score head, or no such label.
    pub fn rewards_after_critique(
        &self,
        groups: &[Group],
        label: usize,
        critic: &Critic,
        token_budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Vec<Vec<f64>> {
        let critiqued = self.criticise(groups, critic);
        let with = |(group, answers): (&Group<'_>, &Vec<Critiqued>)| -> (Vec<u32>, Vec<Vec<u32>>) {
            (group.prompt.to_vec(), answers.iter().map(|answer| answer.tokens.clone()).collect())
        };
        let texts: Vec<(Vec<u32>, Vec<Vec<u32>>)> = groups.iter().zip(&critiqued).map(with).collect();
        let groups: Vec<Group> = texts
            .iter()
            .map(|(prompt, answers)| Group { prompt, answers: answers.iter().map(Vec::as_slice).collect() })
            .collect();
        self.rewards(&groups, label, token_budget, progress)
    }
}

impl super::Pooling {
    /// The row that the score head reads of an answer, and none that predict a token but those from `predicted_from` on.
    pub fn row(self, prompt: &[u32], answer: &[u32], predicted_from: usize) -> ValueRow {
        ValueRow { token: self.index(prompt, answer), predicted_from }
    }
}
