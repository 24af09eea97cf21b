//! Requests: the token, tries, what a status means.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, header};
use ureq::{Agent, Body, SendBody};

use crate::settings::Settings;
use crate::{HubError, Name};

/// Most bytes of an answer in JSON.
const LARGEST_ANSWER: u64 = 256 << 20;
/// A longer wait than this is the user's to decide on.
const LONGEST_WAIT: u64 = 60;

pub(crate) struct Client<'s> {
    pub settings: &'s Settings,
    agent: Agent,
}

/// What a request sends.
#[derive(Clone, Copy)]
pub(crate) enum Sent<'a> {
    Nothing,
    From(u64),
    Json(&'a Value),
    Lines(&'a str),
}

impl<'s> Client<'s> {
    pub fn new(settings: &'s Settings) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // Storage behind a redirect is another host, which must not see the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("spo/", env!("CARGO_PKG_VERSION")));
        Self { settings, agent: config.build().into() }
    }

    /// An answer in JSON.
    pub fn json(&self, name: &Name, url: &str, sent: Sent<'_>) -> Result<Value, HubError> {
        let answer = self.ask(name, url, sent)?;
        let mut bytes = vec![];
        let read = answer.into_body().into_reader().take(LARGEST_ANSWER).read_to_end(&mut bytes);
        read.map_err(|error| unreachable(url, &error.to_string()))?;
        from_json(url, &bytes)
    }

    /// An answer with a status that says success; what passes by itself is tried again.
    pub fn ask(&self, name: &Name, url: &str, sent: Sent<'_>) -> Result<Response<Body>, HubError> {
        let mut pause = self.settings.pause;
        for attempt in 1.. {
            let last = attempt >= self.settings.tries;
            match self.once(name, url, sent) {
                Err(HubError::Limited { seconds, .. }) if !last && seconds <= LONGEST_WAIT => {
                    std::thread::sleep(Duration::from_secs(seconds));
                }
                Err(error) if !last && error.passes() => std::thread::sleep(pause),
                done => return done,
            }
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    fn once(&self, name: &Name, url: &str, sent: Sent<'_>) -> Result<Response<Body>, HubError> {
        let bearer = self.settings.token.as_ref().filter(|_| self.is_hub(url)).map(|token| format!("Bearer {token}"));
        let answer = match sent {
            Sent::Nothing | Sent::From(0) => with(self.agent.get(url), &bearer).call(),
            Sent::From(start) => {
                with(self.agent.get(url), &bearer).header(header::RANGE, format!("bytes={start}-")).call()
            }
            Sent::Json(value) => with(self.agent.post(url), &bearer)
                .header(header::CONTENT_TYPE, "application/json")
                .send(value.to_string()),
            Sent::Lines(lines) => {
                with(self.agent.post(url), &bearer).header(header::CONTENT_TYPE, "application/x-ndjson").send(lines)
            }
        };
        let answer = answer.map_err(|error| unreachable(url, &error.to_string()))?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refused(name, url, answer)) }
    }

    /// Sends so many bytes to where the Hub wants them stored. Returns the answer's ETag.
    pub fn put(&self, name: &Name, url: &str, bytes: u64, body: impl Read + 'static) -> Result<String, HubError> {
        // Addresses of storage carry their own right.
        let request = self.agent.put(url).header(header::CONTENT_LENGTH, bytes);
        let answer =
            request.send(SendBody::from_owned_reader(body)).map_err(|error| unreachable(url, &error.to_string()))?;
        if !answer.status().is_success() {
            return Err(self.refused(name, url, answer));
        }
        let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        Ok(tag.unwrap_or_default().to_owned())
    }

    fn is_hub(&self, url: &str) -> bool {
        url.strip_prefix(&self.settings.endpoint).is_some_and(|rest| rest.starts_with('/'))
    }

    fn refused(&self, name: &Name, url: &str, answer: Response<Body>) -> HubError {
        let status = answer.status().as_u16();
        let header =
            |key: &str| answer.headers().get(key).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let headers = [header("x-error-code"), header("x-error-message"), header("retry-after")];
        let mut body = vec![];
        let _ = answer.into_body().into_reader().take(4096).read_to_end(&mut body);
        refusal(self.settings, (name, url), status, headers.each_ref().map(String::as_str), &body)
    }

    /// The page of a repository.
    pub fn page(&self, name: &Name) -> String {
        page(self.settings, name)
    }
}

/// Bytes of an answer as JSON.
pub(crate) fn from_json(url: &str, bytes: &[u8]) -> Result<Value, HubError> {
    serde_json::from_slice(bytes).map_err(|_| HubError::Malformed {
        url: url.into(),
        found: format!("`{}`", String::from_utf8_lossy(bytes).chars().take(60).collect::<String>()),
        expected: "JSON",
    })
}

/// Why a request was refused, by the answer's status, its headers `x-error-code`, `x-error-message` and `retry-after` (empty
/// where there is none), and its body, whatever they hold.
pub fn refusal(
    settings: &Settings,
    (name, url): (&Name, &str),
    status: u16,
    [code, said, wait]: [&str; 3],
    body: &[u8],
) -> HubError {
    let message = if said.is_empty() { body_message(body) } else { said.into() };
    let (id, endpoint) = (name.to_string(), settings.endpoint.clone());
    match (status, code) {
        (_, "GatedRepo") => HubError::Gated { name: id, page: page(settings, name), message },
        (_, "RevisionNotFound") => HubError::NoRevision { name: id, revision: name.revision().into() },
        (401, "RepoNotFound") if settings.token.is_some() => HubError::Token { name: id, status, message },
        (_, "RepoNotFound") => HubError::NoRepository { name: id, kind: name.kind.word(), status, endpoint },
        (401 | 403, _) if settings.token.is_some() => HubError::Token { name: id, status, message },
        (401 | 403 | 404, "") => HubError::NoRepository { name: id, kind: name.kind.word(), status, endpoint },
        (429, _) => HubError::Limited { url: url.into(), seconds: wait.trim().parse().unwrap_or(30) },
        _ => HubError::Status { url: url.into(), status, message },
    }
}

fn page(settings: &Settings, name: &Name) -> String {
    format!("{}/{}{}", settings.endpoint, prefix(name), name.id)
}

/// What stands before a repository's id in addresses that are not of the API.
pub(crate) fn prefix(name: &Name) -> &'static str {
    if name.kind == crate::Kind::Dataset { "datasets/" } else { "" }
}

fn with<B>(request: ureq::RequestBuilder<B>, bearer: &Option<String>) -> ureq::RequestBuilder<B> {
    match bearer {
        Some(bearer) => request.header(header::AUTHORIZATION, bearer),
        None => request,
    }
}

pub(crate) fn unreachable(url: &str, reason: &str) -> HubError {
    HubError::Unreachable { url: url.into(), reason: reason.into() }
}

/// `error` of an answer in JSON.
fn body_message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value["error"].as_str().unwrap_or_default().chars().take(300).collect()
}

/// A part of an address, with everything but plain letters escaped.
pub(crate) fn escaped(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    part.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
