//! Greedy continuation of prompts.

use spo_data::{Group, PackedBatch};
use spo_model::generate::{Control, GenerateOptions, Sampling};

use super::figures::{Details, Figures};
use super::setting::{Setting, Work, repeat};
use crate::error::CliError;

pub(super) fn measure(setting: &Setting, batch: usize) -> Result<Figures, CliError> {
    let prompts: Vec<&[u32]> =
        setting.data.examples.iter().take(batch).map(|example| example.prompt.as_slice()).collect();
    if prompts.len() < batch {
        return Err(CliError::argument("--batch", batch.to_string(), format!("at most the {} pairs", prompts.len())));
    }
    if let Some(index) = prompts.iter().position(|prompt| prompt.is_empty()) {
        let (at, found) = (setting.data.examples[index].id.clone(), "an empty prompt".into());
        return Err(CliError::Unexpected { at, found, expected: "at least one token".into(), usage: false });
    }
    let (arguments, spec) = (setting.arguments, &setting.spec);
    let (longest, context) = (prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0), spec.context);
    let new_tokens = arguments.new_tokens;
    if longest + new_tokens > context {
        let room = context.saturating_sub(longest);
        let expected = format!("at most {room}: the longest prompt has {longest} tokens, the context {context}");
        return Err(CliError::argument("--new-tokens", new_tokens.to_string(), expected));
    }
    // No token ends an answer: every run generates as many.
    let sampling = Sampling::GREEDY;
    let options = GenerateOptions { max_new_tokens: new_tokens, sampling, seed: 0, first_stream: 0, stop: vec![] };
    let mut generator = arguments.decode.generator(setting.model()?, &arguments.model, batch);
    let mut answers = vec![];
    let times = repeat(setting, |_, first| {
        // Every epoch reads the prompts.
        generator.forget();
        answers = generator.generate(&prompts, &options, &mut |_, _| {
            first();
            Control::Continue
        });
        Ok(())
    })?;
    let groups = prompts.iter().zip(&answers).map(|(prompt, answer)| Group { prompt, answers: vec![&answer.ids] });
    let flops = spec.forward_flops(&PackedBatch::new(&groups.collect::<Vec<_>>()));
    let work = Work { pairs: batch, tokens: batch * new_tokens, flops };
    let mut figures = setting.figures("generate", times, work);
    let ids = Some(answers.swap_remove(0).ids);
    figures.details = Details { batch: Some(batch), new_tokens: Some(new_tokens), ids, ..Details::default() };
    Ok(figures)
}
