//! What a line asks for.

use spo_model::generate::Control;

use super::Arguments;
use super::conversation::Conversation;
use super::policies::Policies;
use crate::error::CliError;
use crate::output::{Output, note};
use crate::view::columns;

const HELP: &str = "\
/policy          the policies; /policy NAME lets another one answer from here on
/weights W       how much a conditional policy counts each dimension: honesty=0.7,helpfulness=0.3
/meta TEXT       what a policy that was trained with meta-prompts is asked for: a dimension or a text; without it nothing
/compare TEXT    all policies answer TEXT, or the last message; the conversation stays as it is
/system TEXT     another system message; without TEXT none
/reset           a new conversation
/quit            the end, as Ctrl-D
Ctrl-C stops an answer.";

/// A line of the user.
pub(super) enum Command {
    Message(String),
    Help,
    Reset,
    System(String),
    Policy(Option<String>),
    Weights(Option<String>),
    Meta(String),
    Compare(Option<String>),
    Quit,
}

impl Command {
    pub fn parse(line: &str) -> Result<Self, CliError> {
        let line = line.trim();
        if !line.starts_with('/') {
            return Ok(Self::Message(line.into()));
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = Some(rest.trim().to_owned()).filter(|rest| !rest.is_empty());
        Ok(match name {
            "/help" => Self::Help,
            "/reset" => Self::Reset,
            "/quit" | "/exit" => Self::Quit,
            "/system" => Self::System(argument.unwrap_or_default()),
            "/policy" => Self::Policy(argument),
            "/weights" => Self::Weights(argument),
            "/meta" => Self::Meta(argument.unwrap_or_default()),
            "/compare" => Self::Compare(argument),
            other => {
                let known = "/help, /policy, /weights, /meta, /compare, /system, /reset, /quit";
                return Err(CliError::argument("command", other, known));
            }
        })
    }

    pub fn run(
        self,
        conversation: &mut Conversation,
        policies: &mut Policies,
        arguments: &Arguments,
        stop: &mut dyn FnMut() -> Control,
        output: &mut Output,
    ) -> Result<(), CliError> {
        match self {
            Self::Help => output.line(HELP),
            Self::Reset => {
                conversation.reset();
                Ok(())
            }
            Self::System(text) => {
                conversation.set_system(&text);
                Ok(())
            }
            Self::Meta(text) => conversation.set_meta(&text),
            Self::Policy(None) => {
                let marked = policies.names().into_iter().map(|name| match name == policies.current() {
                    true => format!("* {name}"),
                    false => format!("  {name}"),
                });
                output.line(marked.collect::<Vec<_>>().join("\n"))
            }
            Self::Policy(name) => policies.select(name.as_deref()),
            Self::Weights(None) => output.line(policies.weights()),
            Self::Weights(Some(text)) => {
                let wrong = |reason: String| CliError::argument("/weights", text.clone(), reason);
                policies.weigh(text.parse().map_err(wrong)?)
            }
            Self::Message(text) if text.is_empty() => Ok(()),
            Self::Message(text) => {
                let policy = policies.policy(None, arguments)?;
                let answer = conversation.answer(&text, policy, arguments, stop, &mut |piece| output.piece(piece))?;
                conversation.add(&text, &answer);
                output.line("")
            }
            Self::Compare(text) => {
                let Some(text) = text.or_else(|| conversation.last_message()) else {
                    return Err(CliError::argument("/compare", "no message", "a text to answer"));
                };
                compare(&text, conversation, policies, arguments, stop, output)
            }
            Self::Quit => Ok(()),
        }
    }
}

/// All policies' answers to one message, side by side where the terminal is wide enough.
fn compare(
    text: &str,
    conversation: &mut Conversation,
    policies: &mut Policies,
    arguments: &Arguments,
    stop: &mut dyn FnMut() -> Control,
    output: &mut Output,
) -> Result<(), CliError> {
    let names: Vec<String> = policies.names().into_iter().map(String::from).collect();
    let mut answers = vec![];
    for (number, name) in names.into_iter().enumerate() {
        if output.terminal {
            note(format_args!("{name} …"));
        }
        let policy = policies.policy(Some(number), arguments)?;
        let answer = conversation.answer(text, policy, arguments, stop, &mut |_| Ok(()))?;
        answers.push((name, answer.trim().to_owned()));
        if stop() == Control::Stop {
            break;
        }
    }
    output.line(columns(&answers, output.terminal))
}
