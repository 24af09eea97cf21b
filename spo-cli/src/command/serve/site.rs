//! What is answered to a request: the page, the list of runs, events, files of a run.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use serde_json::{Value, json};
use spo_train::events::sink::follow::{Cursor, read_added};
use tiny_http::{Header, Method, Response};

use super::runs::{EVENTS, Run, Runs};

const PAGE: &str = include_str!("../../web/index.html");
const SCRIPT: &str = concat!(include_str!("../../web/chart.js"), include_str!("../../web/app.js"));
const STYLE: &str = include_str!("../../web/style.css");

/// Bytes of events in one answer.
const CHUNK: u64 = 4 << 20;

/// The page runs its own script only and asks this server only.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A file of a run may come from anywhere: it runs nothing.
const FILE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox";

type Answer = Response<Box<dyn Read + Send>>;

pub(super) struct Site {
    pub runs: Runs,
    pub address: SocketAddr,
}

impl Site {
    /// The answer to a request.
    pub fn answer(&self, method: &Method, url: &str, host: &str) -> Answer {
        // A page from elsewhere may lead a browser here under its own name; it shall not read the answers.
        if !self.is_own_name(host) {
            return refusal(403, "this server answers to its address only");
        }
        if !matches!(method, Method::Get | Method::Head) {
            return refusal(405, "read-only");
        }
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').splitn(3, '/').collect();
        match parts[..] {
            [""] => text(PAGE.into(), "text/html"),
            ["app.js"] => text(SCRIPT.into(), "text/javascript"),
            ["style.css"] => text(STYLE.into(), "text/css"),
            ["api", "runs"] => text(self.list().to_string(), "application/json"),
            ["api", "runs", rest] => match rest.split_once('/').and_then(|(id, what)| Some((self.runs.get(id)?, what)))
            {
                Some((run, "events")) => events(&run, query),
                _ => refusal(404, "no such run"),
            },
            ["runs", id, name] => self.runs.get(id).and_then(|run| file(&run, name)).unwrap_or_else(missing),
            _ => missing(),
        }
    }

    fn is_own_name(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
        name == "localhost"
            || address.is_ok_and(|ip| ip.is_loopback() || self.address.ip().is_unspecified() || ip == self.address.ip())
    }

    fn list(&self) -> Value {
        let entry = |run: Run| json!({ "id": run.id, "name": run.name, "report": run.open("report.html").is_some() });
        self.runs.list().into_iter().map(entry).collect()
    }
}

/// The events behind a cursor, and how long the file has not changed.
fn events(run: &Run, query: &str) -> Answer {
    let number = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok());
    let cursor = Cursor { offset: number("offset").unwrap_or(0), check: number("check").unwrap_or(0) as u32 };
    let path = run.path.join(EVENTS);
    let changed = path.metadata().and_then(|metadata| metadata.modified());
    let quiet = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).map_or(0.0, |d| d.as_secs_f64());
    match read_added(&path, cursor, CHUNK) {
        Ok(added) => {
            let next = json!({ "offset": added.next.offset, "check": added.next.check });
            let answer = json!({ "text": added.text, "next": next, "restarted": added.restarted, "quiet": quiet });
            text(answer.to_string(), "application/json")
        }
        Err(error) => refusal(500, &error.to_string()),
    }
}

fn file(run: &Run, name: &str) -> Option<Answer> {
    let file = run.open(name)?;
    let kind = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html",
        Some("json") => "application/json",
        Some("csv") => "text/csv",
        Some("svg") => "image/svg+xml",
        Some("md" | "toml" | "jsonl" | "txt") => "text/plain",
        _ => "application/octet-stream",
    };
    let length = file.metadata().ok()?.len() as usize;
    let headers = headers(kind, FILE_POLICY);
    Some(Response::new(200.into(), headers, Box::new(file.take(length as u64)) as _, Some(length), None))
}

fn text(text: String, kind: &str) -> Answer {
    whole(200, text, headers(kind, PAGE_POLICY))
}

fn refusal(code: u16, reason: &str) -> Answer {
    whole(code, format!("{reason}\n"), headers("text/plain", FILE_POLICY))
}

fn missing() -> Answer {
    refusal(404, "not here")
}

fn whole(code: u16, text: String, headers: Vec<Header>) -> Answer {
    let length = text.len();
    Response::new(code.into(), headers, Box::new(std::io::Cursor::new(text)) as _, Some(length), None)
}

fn headers(kind: &str, policy: &str) -> Vec<Header> {
    let charset = if kind.starts_with("text/") { "; charset=utf-8" } else { "" };
    let all = [
        ("Content-Type", format!("{kind}{charset}")),
        ("Content-Security-Policy", policy.to_owned()),
        ("X-Content-Type-Options", "nosniff".to_owned()),
        ("Referrer-Policy", "no-referrer".to_owned()),
        ("Cache-Control", "no-store".to_owned()),
    ];
    let header = |(name, value): (&str, String)| {
        Header::from_bytes(name.as_bytes(), value.as_bytes()).expect("names and values are plain ASCII")
    };
    all.into_iter().map(header).collect()
}
