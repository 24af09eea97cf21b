//! A server that speaks as much of the Hub's API as is asked of it, and fails where it is told to.

// Each test file uses a part of it.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::Digest;
use spo_hub::Settings;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What goes back; `cut` is after how many bytes of the body the connection ends.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub cut: Option<usize>,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub fn status(status: u16, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Self { status, headers, ..Self::default() }
    }
}

/// A server on a port of its own, until the test's process ends.
pub struct Server {
    pub address: String,
    pub seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request with what `answer` says; its second argument counts the requests of the same path before.
    pub fn start(answer: impl Fn(&Request, usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::<Request>::new()));
        let requests = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = read(&stream) else { continue };
                let before = requests.lock().unwrap().iter().filter(|one| one.path == request.path).count();
                let answer = answer(&request, before);
                requests.lock().unwrap().push(request);
                let _ = write(stream, &answer);
            }
        });
        Self { address, seen }
    }

    /// One that has a repository with these files.
    pub fn with_files(files: &[(&str, &[u8])]) -> Self {
        let files: Vec<(String, Vec<u8>)> =
            files.iter().map(|(name, bytes)| ((*name).into(), bytes.to_vec())).collect();
        Self::start(move |request, _| of_repository(&files, request))
    }

    pub fn settings(&self, cache: &Path) -> Settings {
        Settings {
            endpoint: self.address.clone(),
            token: None,
            cache: cache.into(),
            offline: false,
            tries: 3,
            pause: Duration::from_millis(1),
        }
    }

    pub fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|request| request.path.clone()).collect()
    }
}

/// The Hub's answers about a repository with these files; `.safetensors` are kept as large files.
pub fn of_repository(files: &[(String, Vec<u8>)], request: &Request) -> Answer {
    if request.path.starts_with("/api/") {
        return Answer::ok(listing(files));
    }
    let found = request.path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/'));
    let file = found.and_then(|(_, path)| files.iter().find(|(name, _)| name == path));
    let Some((_, bytes)) = file else { return Answer::status(404, &[("x-error-code", "EntryNotFound")]) };
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    match range.map(|start| start.parse::<usize>().unwrap()) {
        Some(start) => Answer { status: 206, ..Answer::ok(&bytes[start..]) },
        None => Answer::ok(bytes.clone()),
    }
}

pub fn listing(files: &[(String, Vec<u8>)]) -> String {
    listing_at(COMMIT, files)
}

pub fn listing_at(commit: &str, files: &[(String, Vec<u8>)]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let siblings = files.iter().map(|(name, bytes)| {
        let blob = hex(&sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize());
        let mut file = serde_json::json!({ "rfilename": name, "size": bytes.len(), "blobId": blob });
        if name.ends_with(".safetensors") {
            file["lfs"] = serde_json::json!({ "sha256": hex(&sha2::Sha256::digest(bytes)), "size": bytes.len() });
        }
        file
    });
    serde_json::json!({ "sha": commit, "siblings": siblings.collect::<Vec<_>>() }).to_string()
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim().split_once(':') else { break };
        headers.insert(key.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

fn write(mut stream: TcpStream, answer: &Answer) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n", answer.status, answer.body.len())?;
    for (key, value) in &answer.headers {
        write!(stream, "{key}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())])
}
