//! The messages so far, and one more answer.

use spo_data::{Message, PromptText, TextSpec, encode_prompt};
use spo_model::generate::{Control, Ended, GenerateOptions, TextStream};

use super::Arguments;
use super::policies::Policy;
use crate::error::CliError;
use crate::meta::Meta;
use crate::output::note;

/// Messages of the user and answers of the model in turn.
pub(super) struct Conversation {
    text: TextSpec,
    meta: Meta,
    messages: Vec<Message>,
    /// Answers asked for so far: each has its own stream of draws.
    answers: u64,
}

impl Conversation {
    pub fn new(text: TextSpec, meta: Meta) -> Self {
        Self { text, meta, messages: vec![], answers: 0 }
    }

    /// Forgets all messages; the system message stays.
    pub fn reset(&mut self) {
        self.messages.clear();
    }

    /// Changes the system message; an empty one is none.
    pub fn set_system(&mut self, system: &str) {
        self.text.system = (!system.is_empty()).then(|| system.to_owned());
    }

    /// Changes what the policy is asked for; an empty text asks for nothing.
    pub fn set_meta(&mut self, asked: &str) -> Result<(), CliError> {
        self.meta.ask(asked)
    }

    /// The user's last message.
    pub fn last_message(&self) -> Option<String> {
        self.messages.iter().rev().find(|message| message.role == "user").map(Message::text)
    }

    /// Keeps a message and its answer.
    pub fn add(&mut self, message: &str, answer: &str) {
        self.messages.extend([Message::new("user", message), Message::new("assistant", answer)]);
    }

    /// A policy's answer to a message after the conversation, `write` sees it piece by piece. The conversation stays as
    /// it is.
    pub fn answer(
        &mut self,
        message: &str,
        policy: &mut Policy,
        arguments: &Arguments,
        stop: &mut dyn FnMut() -> Control,
        write: &mut dyn FnMut(&str) -> Result<(), CliError>,
    ) -> Result<String, CliError> {
        let mut messages = self.messages.clone();
        messages.push(Message::new("user", message));
        let prompt = match messages.as_slice() {
            [only] => PromptText::Text(only.text()),
            _ => PromptText::Messages(messages),
        };
        let (prompt, text) = self.meta.on(prompt, &self.text)?;
        let ids = encode_prompt(&policy.tokenizer, &text, &prompt)?;
        let context = policy.spec.context;
        if ids.len() >= context {
            return Err(CliError::PromptTooLong { name: "the conversation".into(), found: ids.len(), context });
        }
        policy.spec.check_row("the message", &ids, &[])?;
        let stops = arguments.sampling.stop_texts(&policy.tokenizer)?;
        let options = arguments.sampling.options(&policy.tokenizer);
        let options = GenerateOptions { first_stream: self.answers, ..options };
        let mut stream = TextStream::new(&policy.tokenizer, &stops);
        let mut result = Ok(());
        let generated = policy.generator.generate(&[&ids], &options, &mut |_, token| {
            result = stream.push(token).map_err(CliError::from).and_then(&mut *write);
            if result.is_err() || stream.stopped() { Control::Stop } else { stop() }
        });
        result?;
        write(stream.finish())?;
        self.answers += 1;
        if generated[0].ended == Ended::Context {
            note("the model's context is full: /reset begins anew");
        }
        Ok(stream.text().to_owned())
    }
}
