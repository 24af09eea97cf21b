//! Greedy continuation of prompts.

use spo_data::{Group, PackedBatch};
use spo_model::generate::{GenerateOptions, Sampling};

use super::figures::{Details, Figures};
use super::setting::{Setting, Work, repeat};
use crate::error::CliError;

pub(super) fn measure(setting: &Setting, batch: usize) -> Result<Figures, CliError> {
    let model = setting.model()?;
    let prompts: Vec<&[u32]> =
        setting.data.examples.iter().take(batch).map(|example| example.prompt.as_slice()).collect();
    if prompts.len() < batch {
        return Err(CliError::argument("--batch", batch.to_string(), format!("at most the {} pairs", prompts.len())));
    }
    let (longest, context) = (prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0), model.spec().context);
    let new_tokens = setting.arguments.new_tokens;
    if longest + new_tokens > context {
        let expected =
            format!("at most {}: the longest prompt has {longest} tokens, the context {context}", context - longest);
        return Err(CliError::argument("--new-tokens", new_tokens.to_string(), expected));
    }
    let sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0 };
    // No token ends an answer: every run generates as many.
    let options = GenerateOptions { max_new_tokens: new_tokens, sampling, seed: 0, stop: vec![] };
    let mut answers = vec![];
    let times = repeat(setting, |_, first| {
        answers = model.generate(&prompts, &options, &mut |_| first());
        Ok(())
    })?;
    let groups = prompts.iter().zip(&answers).map(|(prompt, answer)| Group { prompt, answers: vec![answer] });
    let flops = model.spec().forward_flops(&PackedBatch::new(&groups.collect::<Vec<_>>()));
    let work = Work { pairs: batch, tokens: batch * new_tokens, flops };
    let mut figures = setting.figures("generate", times, work);
    let ids = Some(answers.swap_remove(0));
    figures.details = Details { batch: Some(batch), new_tokens: Some(new_tokens), ids, ..Details::default() };
    Ok(figures)
}
