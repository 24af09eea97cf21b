//! Sequences on their way: who runs, who is done, who comes next.

use super::sample::{Plain, Sampler};
use super::{Control, Ended, GenerateOptions, Generation};
use std::ops::ControlFlow;

/// Runs sequences through a model. They are known by their order: new ones come last.
pub(super) trait Decoder: std::fmt::Debug {
    /// Prepares for so many prompts with at most so many new tokens each.
    fn expect(&mut self, _prompts: usize, _max_new_tokens: usize) {}
    /// How many sequences can start now.
    fn room(&self) -> usize;
    /// Starts a sequence for each prompt; a prompt may be empty.
    fn start(&mut self, prompts: &[&[u32]]);
    /// Runs the newest token of every sequence and pushes at least one more to each.
    fn advance(&mut self, sequences: &mut [Sequence]);
    /// Ends the sequences whose entry is false.
    fn keep(&mut self, keep: &[bool]);
    /// Forgets sequences that ended.
    fn forget(&mut self) {}
}

/// The tokens of one sequence, and how the next ones are chosen.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Which prompt of the call.
    index: usize,
    prompt_len: usize,
    tokens: Vec<u32>,
    most: usize,
    sampler: Sampler,
}

impl Sequence {
    /// Prompt and new tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens may still come.
    pub fn left(&self) -> usize {
        self.most - self.generated().len()
    }

    /// Appends the token chosen from the logits `[vocab]` after the newest one, and returns it.
    pub fn push(&mut self, logits: &[f32]) -> u32 {
        let token = self.sampler.choose(logits, &self.tokens, self.generated().len());
        self.tokens.push(token);
        token
    }

    /// How the next token is chosen, where that takes all logits as they are.
    pub fn plain(&self) -> Option<Plain> {
        self.sampler.plain(self.generated().len())
    }

    /// Appends a token that was chosen so.
    pub fn push_chosen(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// Removes the newest `count` tokens and returns them.
    pub fn take_back(&mut self, count: usize) -> Vec<u32> {
        self.tokens.split_off(self.tokens.len() - count)
    }

    fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }
}

/// Continues every prompt, as many at a time as the decoder has room for.
pub(super) fn run(
    decoder: &mut dyn Decoder,
    prompts: &[&[u32]],
    context: usize,
    options: &GenerateOptions,
    watch: &mut dyn FnMut(usize, u32) -> Control,
) -> Vec<Generation> {
    let mut results = vec![Generation { ids: vec![], ended: Ended::Context }; prompts.len()];
    let mut running: Vec<Sequence> = vec![];
    let most = |index: usize| options.max_new_tokens.min(context.saturating_sub(prompts[index].len()));
    let mut waiting = (0..prompts.len()).filter(|index| !prompts[*index].is_empty() && most(*index) > 0).peekable();
    while waiting.peek().is_some() || !running.is_empty() {
        let first = running.len();
        for index in waiting.by_ref().take(decoder.room()) {
            running.push(Sequence {
                index,
                prompt_len: prompts[index].len(),
                tokens: prompts[index].to_vec(),
                most: most(index),
                sampler: Sampler::new(options.sampling, options.seed, options.first_stream + index as u64),
            });
        }
        // The last token of a prompt runs with the others' newest tokens.
        let starting: Vec<&[u32]> = running[first..].iter().map(|s| &s.tokens[..s.prompt_len - 1]).collect();
        if !starting.is_empty() {
            decoder.start(&starting);
        }
        let before: Vec<usize> = running.iter().map(|sequence| sequence.tokens.len()).collect();
        decoder.advance(&mut running);
        let mut keep = vec![];
        for (at, before) in before.into_iter().enumerate() {
            let sequence = &mut running[at];
            match settle(sequence, before, context, options, watch) {
                ControlFlow::Continue(()) => keep.push(true),
                ControlFlow::Break(None) => {
                    decoder.keep(&vec![false; running.len()]);
                    return stopped(results, running);
                }
                ControlFlow::Break(Some(ended)) => {
                    results[sequence.index] = Generation { ids: sequence.generated().to_vec(), ended };
                    keep.push(false);
                }
            }
        }
        if keep.contains(&false) {
            decoder.keep(&keep);
            let mut keep = keep.into_iter();
            running.retain(|_| keep.next().expect("one entry for each sequence"));
        }
    }
    results
}

/// Looks at the tokens from `before` on: whether the sequence goes on, is complete, or all must stop.
fn settle(
    sequence: &mut Sequence,
    before: usize,
    context: usize,
    options: &GenerateOptions,
    watch: &mut dyn FnMut(usize, u32) -> Control,
) -> ControlFlow<Option<Ended>> {
    for end in before..sequence.tokens.len() {
        let token = sequence.tokens[end];
        let control = watch(sequence.index, token);
        let ended = match control {
            Control::Stop => None,
            Control::End => Some(Ended::Watch),
            Control::Continue if options.stop.contains(&token) => Some(Ended::Stop),
            Control::Continue if end + 1 == context => Some(Ended::Context),
            Control::Continue if end + 1 - sequence.prompt_len == sequence.most => Some(Ended::Length),
            Control::Continue => continue,
        };
        sequence.tokens.truncate(end + 1);
        return ControlFlow::Break(ended);
    }
    ControlFlow::Continue(())
}

/// What there is when the caller stops everything.
fn stopped(mut results: Vec<Generation>, running: Vec<Sequence>) -> Vec<Generation> {
    for sequence in running {
        results[sequence.index] = Generation { ids: sequence.generated().to_vec(), ended: Ended::Watch };
    }
    results
}
