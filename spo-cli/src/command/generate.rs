//! `spo generate`

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use spo_data::{DataError, PromptText, TextSpec, Tokenizer, encode_prompt, read_prompts};
use spo_model::ModelSpec;
use spo_model::generate::{Control, Ended, GenerateOptions, Generation, Generator, TextStream};

use crate::error::CliError;
use crate::generation::{DecodeArguments, SamplingArguments};
use crate::goals::GoalArguments;
use crate::inputs::{DeviceArguments, TextArguments};
use crate::meta::{Meta, MetaArguments};
use crate::output::Output;
use crate::places::{Place, PointArguments};
use crate::steering::SteerArguments;

/// Batches whose results are written together.
const BATCHES: usize = 8;

/// Continue prompts
///
/// JSON keys: id (of prompts from files: the row's own, or file:line), ids (the new tokens, the one that ended the
/// answer included), text (without special tokens and without what --stop cuts off; null where the model has no
/// tokenizer), ended (stop: at the end of the answer; text: at a --stop text; length: at --max-new-tokens; context: the
/// model's context is full). With --samples there is one object per prompt with id, prompt, responses (texts), ids and ended,
/// which `spo data label` takes.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["prompt", "ids", "prompts"]))]
pub(crate) struct Arguments {
    /// Model directory or GGUF file; or a policy of a run, RUN:POLICY, the best one of a round RUN:ROUND@best
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Adapter directory in PEFT's format
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    point: PointArguments,
    /// The prompt as text, laid out as in training: by the chat template, or by --prompt-format
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The prompt as token ids, taken as they are
    #[arg(long, value_delimiter = ',', value_name = "1,2,3")]
    ids: Option<Vec<u32>>,
    /// File of prompts, may be repeated: of .jsonl the keys prompt (text or messages), messages or prompt_ids, and id;
    /// of any other one prompt per line
    #[arg(long, value_name = "FILE")]
    prompts: Vec<PathBuf>,
    /// Prompts that run together
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Device")]
    batch: u16,
    /// Answers to each prompt; more than one needs --temperature and --json
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// One JSON object per prompt and line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    steering: SteerArguments,
    #[command(flatten)]
    goals: GoalArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    decode: DecodeArguments,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    meta: MetaArguments,
}

/// A prompt to continue.
struct Prompt {
    /// `None` for the one of the command line.
    id: Option<String>,
    /// As it was given, with its goals.
    text: PromptText,
    ids: Vec<u32>,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let device = self.device.open()?;
        let place = Place::named(&self.model, self.adapter.as_deref(), self.point.weights.as_ref())?;
        let tokenizer = place.tokenizer()?;
        let stops = self.sampling.stop_texts(&tokenizer)?;
        self.check_samples(&tokenizer)?;
        let meta = self.meta.meta(place.meta.as_ref())?;
        let prompts = self.read(&tokenizer, &self.text.spec(place.text.as_ref()), &meta)?;
        let model = place.load(&self.device, &device)?;
        let model = self.steering.on(model, &place)?;
        let spec = model.spec().clone();
        prompts.iter().try_for_each(|prompt| check(prompt, &spec))?;
        let options = self.sampling.options(&tokenizer);
        let batch = usize::from(self.batch);
        let mut generator = self.decode.generator(model, &place.model, batch);
        if let ([prompt], false, true) = (prompts.as_slice(), self.json, tokenizer.vocabulary_size() > 0) {
            let mut writer = Writer::new(&tokenizer, &stops, output);
            generator.generate(&[&prompt.ids], &options, &mut |_, token| writer.push(token));
            return writer.finish();
        }
        let progress = ProgressBar::new(prompts.len() as u64);
        if self.samples > 1 {
            return self.sample(&prompts, &mut generator, &options, (&tokenizer, &stops), output);
        }
        for (chunk, prompts) in prompts.chunks(BATCHES * batch).enumerate() {
            let first_stream = (chunk * BATCHES * batch) as u64;
            let options = GenerateOptions { first_stream, ..options.clone() };
            let prompts: Vec<&Prompt> = prompts.iter().collect();
            for line in lines(&mut generator, &prompts, &options, &tokenizer, &stops)? {
                progress.inc(1);
                progress.suspend(|| if self.json { output.json(&line) } else { output.line(text(&line)) })?;
            }
            output.flush()?;
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn read(&self, tokenizer: &Tokenizer, spec: &TextSpec, meta: &Meta) -> Result<Vec<Prompt>, CliError> {
        if let Some(ids) = &self.ids {
            meta.on(PromptText::Ids(ids.clone()), spec)?;
            return Ok(vec![Prompt { id: None, ids: ids.clone(), text: PromptText::Ids(ids.clone()) }]);
        }
        let tags = self.goals.tags()?;
        let made = |id: Option<String>, prompt: PromptText| {
            let text = tags.as_ref().map_or_else(|| prompt.clone(), |tags| tags.on(&prompt));
            let (whole, spec) = meta.on(text.clone(), spec)?;
            Ok::<_, CliError>(Prompt { id, ids: encode_prompt(tokenizer, &spec, &whole)?, text })
        };
        if let Some(text) = &self.prompt {
            return Ok(vec![made(None, PromptText::Text(text.clone()))?]);
        }
        let mut read = vec![];
        for file in &self.prompts {
            for named in read_prompts(file)? {
                read.push(made(Some(named.id), named.prompt)?);
            }
        }
        match read.is_empty() {
            true => Err(CliError::NoRows { file: self.prompts[0].display().to_string(), dropped: vec![] }),
            false => Ok(read),
        }
    }
}

impl Arguments {
    fn check_samples(&self, tokenizer: &Tokenizer) -> Result<(), CliError> {
        let wrong = |expected| Err(CliError::argument("--samples", self.samples.to_string(), expected));
        match self.samples {
            1 => Ok(()),
            _ if !self.json => wrong("--json with it"),
            _ if self.sampling.temperature == 0.0 => {
                wrong("--temperature above 0: without it all answers are the same")
            }
            _ if tokenizer.vocabulary_size() == 0 => wrong("a model with a tokenizer"),
            _ => Ok(()),
        }
    }

    /// Several answers to each prompt, whose prompts are computed once; one object per prompt.
    fn sample(
        &self,
        prompts: &[Prompt],
        generator: &mut Generator,
        options: &GenerateOptions,
        (tokenizer, stops): (&Tokenizer, &[String]),
        output: &mut Output,
    ) -> Result<(), CliError> {
        let samples = usize::from(self.samples);
        let at_once = (BATCHES * usize::from(self.batch)).div_ceil(samples);
        let progress = ProgressBar::new(prompts.len() as u64);
        for (chunk, prompts) in prompts.chunks(at_once).enumerate() {
            let first_stream = (chunk * at_once * samples) as u64;
            let options = GenerateOptions { first_stream, ..options.clone() };
            let repeated: Vec<&Prompt> =
                prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, samples)).collect();
            let lines = lines(generator, &repeated, &options, tokenizer, stops)?;
            for (prompt, lines) in prompts.iter().zip(lines.chunks(samples)) {
                let of = |key: &str| lines.iter().map(|line| line[key].clone()).collect::<Vec<Value>>();
                let mut line = Map::new();
                prompt.id.as_ref().map(|id| line.insert("id".into(), id.as_str().into()));
                line.insert("prompt".into(), prompt.text.to_json());
                line.insert("responses".into(), of("text").into());
                line.insert("ids".into(), of("ids").into());
                line.insert("ended".into(), of("ended").into());
                progress.inc(1);
                progress.suspend(|| output.json(&line))?;
            }
            output.flush()?;
        }
        progress.finish_and_clear();
        Ok(())
    }
}

/// A prompt must have a token, be in the vocabulary and leave room for an answer.
fn check(prompt: &Prompt, spec: &ModelSpec) -> Result<(), CliError> {
    let name = prompt.id.as_deref().unwrap_or("the prompt");
    if prompt.ids.is_empty() {
        return Err(match &prompt.id {
            None => CliError::argument("--prompt", "no token", "at least one token"),
            Some(id) => CliError::Unexpected {
                at: id.clone(),
                found: "no token".into(),
                expected: "at least one token".into(),
                usage: false,
            },
        });
    }
    if prompt.ids.len() >= spec.context {
        return Err(CliError::PromptTooLong { name: name.into(), found: prompt.ids.len(), context: spec.context });
    }
    Ok(spec.check_row(name, &prompt.ids, &[])?)
}

/// Continues prompts; one object for each.
fn lines(
    generator: &mut Generator,
    prompts: &[&Prompt],
    options: &GenerateOptions,
    tokenizer: &Tokenizer,
    stops: &[String],
) -> Result<Vec<Map<String, Value>>, CliError> {
    let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
    let mut streams: Vec<TextStream> = prompts.iter().map(|_| TextStream::new(tokenizer, stops)).collect();
    let has_text = tokenizer.vocabulary_size() > 0;
    let mut failed: Result<(), DataError> = Ok(());
    let generated = generator.generate(&ids, options, &mut |index, token| {
        if !has_text {
            return Control::Continue;
        }
        failed = streams[index].push(token).map(|_| ());
        match streams[index].stopped() {
            _ if failed.is_err() => Control::Stop,
            true => Control::End,
            false => Control::Continue,
        }
    });
    failed?;
    let line = |((prompt, stream), generation): ((&&Prompt, &TextStream), Generation)| {
        let mut line = Map::new();
        if let Some(id) = &prompt.id {
            line.insert("id".into(), id.as_str().into());
        }
        line.insert("ids".into(), json!(generation.ids));
        line.insert("text".into(), if has_text { stream.text().into() } else { Value::Null });
        line.insert("ended".into(), ended(generation.ended).into());
        line
    };
    Ok(prompts.iter().zip(&streams).zip(generated).map(line).collect())
}

fn ended(ended: Ended) -> &'static str {
    match ended {
        Ended::Stop => "stop",
        Ended::Watch => "text",
        Ended::Length => "length",
        Ended::Context => "context",
    }
}

/// For people: the answer, below its prompt's name where there are several.
fn text(line: &Map<String, Value>) -> String {
    let answer = match &line["text"] {
        Value::String(text) => text.clone(),
        _ => line["ids"].to_string().trim_matches(['[', ']']).to_owned(),
    };
    match line.get("id").and_then(Value::as_str) {
        Some(id) => format!("[{id}]\n{answer}\n"),
        None => answer,
    }
}

/// Writes an answer while it comes.
pub(super) struct Writer<'a> {
    stream: TextStream<'a>,
    output: &'a mut Output,
    result: Result<(), CliError>,
}

impl<'a> Writer<'a> {
    pub fn new(tokenizer: &'a Tokenizer, stops: &'a [String], output: &'a mut Output) -> Self {
        Self { stream: TextStream::new(tokenizer, stops), output, result: Ok(()) }
    }

    /// Writes what a token makes certain.
    pub fn push(&mut self, token: u32) -> Control {
        self.result = match self.stream.push(token) {
            Ok(piece) => self.output.piece(piece),
            Err(error) => Err(error.into()),
        };
        match (&self.result, self.stream.stopped()) {
            (Err(_), _) => Control::Stop,
            (Ok(()), true) => Control::End,
            (Ok(()), false) => Control::Continue,
        }
    }

    /// Writes the rest and a line break.
    pub fn finish(mut self) -> Result<(), CliError> {
        self.result?;
        self.output.piece(self.stream.finish())?;
        self.output.line("")
    }
}
