//! `spo compare`

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use spo_data::{Prompt, read_prompts};
use spo_eval::{Bootstrap, Duel, WinRate, report, win_rate};
use spo_model::generate::{Control, GenerateOptions};
use spo_score::pairing::by_dimension;
use spo_score::{Item, Scores};

use crate::error::CliError;
use crate::generation::{DecodeArguments, SamplingArguments};
use crate::inputs::{DeviceArguments, TextArguments};
use crate::output::{Output, note};
use crate::places::{Place, PointArguments};
use crate::scorers::{ScorerArguments, answer_text, value};

/// Compare policies by what a scorer says of their answers
///
/// Each policy answers the same prompts, each answer drawn from a stream of its own that is the same for all policies; the
/// first policy is compared with each other one: wins, ties, losses, the rate (a tie is half a win) with a 95 % bootstrap
/// interval over prompts, the rate at equal length, mean scores and lengths.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Two or more: model directories, GGUF files, or policies of a run, RUN:POLICY; of a conditional one a point of its front,
    /// RUN:POLICY@honesty=0.7,helpfulness=0.3
    #[arg(required = true, num_args = 2.., value_name = "POLICY")]
    policies: Vec<PathBuf>,
    /// File of prompts, may be repeated: of .jsonl the keys prompt (text or messages), messages or prompt_ids, and id; of
    /// any other one prompt per line
    #[arg(long, value_name = "FILE", required = true)]
    prompts: Vec<PathBuf>,
    #[command(flatten)]
    point: PointArguments,
    #[command(flatten)]
    scorer: ScorerArguments,
    /// Answers of each policy to each prompt; more than one needs --temperature
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// Every answer with its score, JSON lines
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A JSON list with one object per comparison and dimension
    #[arg(long)]
    json: bool,
    /// Bootstrap resamples
    #[arg(long, value_name = "N", default_value_t = 2000)]
    resamples: usize,
    /// Sequences that run together
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Device")]
    batch: u16,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    decode: DecodeArguments,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    text: TextArguments,
}

/// One answer of one policy.
struct Answer {
    item: Item,
    tokens: usize,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        self.check()?;
        let device = self.device.open()?;
        let mut answers = vec![];
        let mut names = vec![];
        for policy in &self.policies {
            let place = self.place(policy)?;
            names.push(place.name.clone());
            answers.push(self.answer(&place, &device)?);
        }
        let mut scorer = self.scorer.open(&device)?;
        let mut scores = vec![];
        for (name, answers) in names.iter().zip(&answers) {
            let items: Vec<Item> = answers.iter().map(|answer| answer.item.clone()).collect();
            let progress = ProgressBar::new(items.len() as u64).with_message(format!("scoring {name}"));
            scores.push(scorer.score(&items, &mut |done| {
                progress.set_position(done as u64);
                true
            })?);
            progress.finish_and_clear();
        }
        if let Some(path) = &self.out {
            write_answers(path, &names, &answers, &scores)?;
        }
        let found = self.win_rates(&names, &answers, &scores)?;
        if self.json {
            return output.pretty_json(&found);
        }
        output.line(report::win_rate_table(&found).trim_end())
    }

    /// What a policy's name stands for; `--weights` is for those that follow some and name none of their own.
    fn place(&self, policy: &Path) -> Result<Place, CliError> {
        let weights = self.point.weights.as_ref();
        let named = |weights| Place::named(policy, None, weights);
        named(weights).or_else(|error| if weights.is_some() { named(None).map_err(|_| error) } else { Err(error) })
    }

    fn check(&self) -> Result<(), CliError> {
        if self.scorer.scorer.is_empty() {
            return Err(CliError::argument("--scorer", "none", "who scores; `spo list scorers` shows the kinds"));
        }
        if self.samples > 1 && self.sampling.temperature == 0.0 {
            let expected = "--temperature above 0: without it all answers to a prompt are the same";
            return Err(CliError::argument("--samples", self.samples.to_string(), expected));
        }
        match &self.out {
            Some(path) if path.exists() => Err(CliError::Exists { path: path.clone() }),
            _ => Ok(()),
        }
    }

    /// What a policy says to all prompts; answer `k` to prompt `i` has stream `samples · i + k`.
    fn answer(&self, place: &Place, device: &Device) -> Result<Vec<Answer>, CliError> {
        let (tokenizer, text) = (place.tokenizer()?, self.text.spec(place.text.as_ref()));
        let mut prompts: Vec<Prompt> = vec![];
        for file in &self.prompts {
            for named in read_prompts(file)? {
                prompts.push(named.laid_out(&text, &tokenizer)?);
            }
        }
        if prompts.is_empty() {
            return Err(CliError::NoRows { file: self.prompts[0].display().to_string(), dropped: vec![] });
        }
        let model = place.load(&self.device, device)?;
        for prompt in &prompts {
            if prompt.ids.len() >= model.spec().context {
                let (name, context) = (prompt.id.clone(), model.spec().context);
                return Err(CliError::PromptTooLong { name, found: prompt.ids.len(), context });
            }
            model.spec().check_row(&prompt.id, &prompt.ids, &[])?;
        }
        let mut generator = self.decode.generator(model, Path::new(&place.name), self.batch.into());
        let samples = usize::from(self.samples);
        let ids: Vec<&[u32]> =
            prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.ids.as_slice(), samples)).collect();
        let options: GenerateOptions = self.sampling.options(&tokenizer);
        let progress = ProgressBar::new(ids.len() as u64).with_message(format!("answers of {}", place.name));
        let mut last = None;
        let generated = generator.generate(&ids, &options, &mut |index, _| {
            if last != Some(index) {
                last = Some(index);
                progress.set_position(index as u64);
            }
            Control::Continue
        });
        progress.finish_and_clear();
        let answer = |(index, generation): (usize, spo_model::generate::Generation)| {
            let prompt = &prompts[index / samples];
            let item = Item {
                id: prompt.id.clone(),
                prompt: prompt.text.clone(),
                response: answer_text(&tokenizer, &generation.ids)?,
                prompt_ids: prompt.ids.clone(),
                response_ids: generation.ids,
                dimension: None,
            };
            Ok(Answer { tokens: item.response_ids.len(), item })
        };
        generated.into_iter().enumerate().map(answer).collect()
    }

    /// The first policy against each other one, in every dimension.
    fn win_rates(
        &self,
        names: &[String],
        answers: &[Vec<Answer>],
        scores: &[Vec<Option<Scores>>],
    ) -> Result<Vec<WinRate>, CliError> {
        let bootstrap = Bootstrap { resamples: self.resamples, seed: self.sampling.seed };
        let by_policy: Vec<_> = scores.iter().map(|scores| by_dimension(scores, "score")).collect();
        let mut found = vec![];
        for other in 1..names.len() {
            for (dimension, own) in &by_policy[0] {
                let theirs = by_policy[other].get(dimension).map_or(&[][..], Vec::as_slice);
                let duel = |(index, a): &(usize, f64)| {
                    let (_, b) = theirs.iter().find(|(theirs, _)| theirs == index)?;
                    let tokens = |policy: usize| answers[policy][*index].tokens;
                    let prompt = index / usize::from(self.samples);
                    Some(Duel { prompt, a: *a, b: *b, a_tokens: tokens(0), b_tokens: tokens(other) })
                };
                let duels: Vec<Duel> = own.iter().filter_map(duel).collect();
                let left = answers[0].len() - duels.len();
                if left > 0 {
                    note(format_args!(
                        "{left} of {} answers have no score for {dimension} on both sides",
                        answers[0].len()
                    ));
                }
                found.push(win_rate((&names[0], &names[other]), dimension, &duels, &bootstrap)?);
            }
        }
        match found.is_empty() {
            true => Err(CliError::NoRows { file: "the scores".into(), dropped: vec!["the scorer gave none".into()] }),
            false => Ok(found),
        }
    }
}

fn write_answers(
    path: &Path,
    names: &[String],
    answers: &[Vec<Answer>],
    scores: &[Vec<Option<Scores>>],
) -> Result<(), CliError> {
    let mut lines = String::new();
    for ((name, answers), scores) in names.iter().zip(answers).zip(scores) {
        for (answer, scores) in answers.iter().zip(scores) {
            let item = &answer.item;
            let line: Value = json!({
                "policy": name, "id": item.id, "prompt": item.prompt_text(), "response": item.response,
                "tokens": answer.tokens, "score": value(scores.as_ref()),
            });
            lines += &(line.to_string() + "\n");
        }
    }
    Ok(spo_train::persist::durable::write(path, lines.as_bytes())?)
}
