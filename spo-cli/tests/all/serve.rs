//! The page of `spo serve`: what it answers, and what a real browser shows of a finished and a live run.

// Each test program uses a part of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{path, small_run, spo};
use spo_eval::report::markdown;
use spo_train::Sink;
use spo_train::config::RunPlan;
use spo_train::events::sink::csv::Tables;
use spo_train::events::sink::tensorboard::TensorBoard;
use spo_train::events::sink::{All, read_events};
use spo_train::events::summary::summarize;
use tempfile::tempdir;

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(directories: &[&Path]) -> Self {
        let directories = directories.iter().map(|directory| path(directory));
        let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
        command.args(["serve", "--port", "0"]).args(directories).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_once("http://").unwrap().1.split_once('/').unwrap().0.to_owned();
        Self { child, address }
    }

    /// The whole answer to `METHOD path`, sent as it stands.
    fn raw(&self, request: &str, host: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path}"), &self.address)
    }

    fn run_id(&self) -> String {
        let list = self.get("/api/runs");
        list.split_once("\"id\":\"").unwrap().1.split_once('"').unwrap().0.to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finished_run(directory: &Path) {
    let ended = spo(&["train", &path(&small_run(directory)), "--set", "training.eval-every=1"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[track_caller]
fn status(answer: &str, code: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{}", answer.lines().next().unwrap_or_default());
}

#[test]
fn only_the_runs_are_served_and_only_to_be_read() {
    let directory = tempdir().unwrap();
    let run = directory.path().join("runs/a");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("events.jsonl"), "{}\n").unwrap();
    std::fs::write(run.join("report.html"), "<script>alert(1)</script>").unwrap();
    std::fs::write(directory.path().join("secret"), "hidden").unwrap();
    let server = Server::start(&[&run]);
    let id = server.run_id();
    let report = server.get(&format!("/runs/{id}/report.html"));
    status(&report, 200);
    assert!(report.contains("sandbox"), "a report from elsewhere runs no script:\n{report}");
    status(&server.get("/"), 200);
    let events = server.get(&format!("/api/runs/{id}/events?offset=0&check=0"));
    assert!(events.contains(r#""text":"{}\n""#) && events.contains(r#""offset":3"#), "{events}");
    let secret = path(&directory.path().join("secret"));
    for outside in [
        format!("/runs/{id}/../../secret"),
        format!("/runs/{id}/..%2f..%2fsecret"),
        format!("/runs/{id}/%2e%2e/%2e%2e/secret"),
        format!("/runs/{id}/{secret}"),
        format!("/runs/{id}//{secret}"),
        format!("/runs/{id}/./../../secret"),
        format!("/runs/{id}/"),
        format!("/runs/../{id}/report.html"),
        "/runs/0/report.html".to_owned(),
        "/../secret".to_owned(),
        secret,
    ] {
        let answer = server.get(&outside);
        status(&answer, 404);
        assert!(!answer.contains("hidden"), "{outside}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        status(&server.raw(&format!("{method} /"), &server.address), 405);
    }
    status(&server.raw("GET /api/runs", "evil.example"), 403);
    let port = server.address.rsplit_once(':').unwrap().1;
    status(&server.raw("GET /api/runs", &format!("localhost:{port}")), 200);
}

#[test]
fn a_directory_without_runs_is_an_error() {
    let directory = tempdir().unwrap();
    for command in ["serve", "watch"] {
        let ended = spo(&[command, &path(directory.path())]);
        assert_eq!(ended.code, 1);
        assert!(ended.err.contains("no run is here") && ended.err.contains("spo train"), "{}", ended.err);
    }
}

/// A browser, or a line that says that there is none; with SPO_BROWSER set that is a failure.
fn browser() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok());
    if found.is_none() {
        assert!(std::env::var_os("SPO_BROWSER").is_none(), "no Chromium on this machine, and SPO_BROWSER asks for one");
        println!("skipped: no Chromium on this machine");
    }
    found
}

/// The page's elements after some seconds of the browser's own time.
fn dom(browser: &str, server: &Server, milliseconds: u32) -> String {
    let profile = tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--virtual-time-budget={milliseconds}"))
        .arg(format!("http://{}/", server.address))
        .output()
        .unwrap();
    let dom = String::from_utf8(output.stdout).unwrap();
    assert!(dom.contains("data-ready=\"yes\""), "{dom}\n{}", String::from_utf8_lossy(&output.stderr));
    dom
}

#[test]
fn a_finished_run_in_a_browser() {
    let Some(browser) = browser() else { return };
    let directory = tempdir().unwrap();
    finished_run(directory.path());
    let server = Server::start(&[&directory.path().join("run")]);
    let dom = dom(browser, &server, 4000);
    assert!(dom.contains("data-state=\"finished\"") && dom.contains("report.html"), "{dom}");
    let figure = |title: &str| {
        let figure = dom.split("<figure").find(|figure| figure.contains(&format!("data-title=\"{title}\"")));
        figure.unwrap_or_else(|| panic!("no {title}")).to_owned()
    };
    // Two rounds and a control of two steps each.
    let loss = figure("Loss");
    assert!(loss.contains("data-series=\"3\"") && loss.contains("data-points=\"6\""), "{loss}");
    assert!(loss.matches("<path").count() >= 4 && !loss.contains("NaN"), "{loss}");
    assert!(figure("Held-out loss").contains("data-points=\"6\""));
    let events = std::fs::read_to_string(directory.path().join("run/events.jsonl")).unwrap();
    let mut cells = 0;
    for line in events.lines().filter(|line| line.contains("\"event\":\"evaluated\"")) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        for score in event["scores"].as_array().unwrap().iter().filter(|score| score["kind"] == "log-ratio") {
            let percent = 100.0 * score["subsets"]["all"]["accuracy"].as_f64().unwrap();
            let policy = score["policy"].as_str().unwrap();
            let cell = format!("data-cell=\"{policy}|{}|{percent:.1}\"", score["dimension"].as_str().unwrap());
            assert!(dom.contains(&cell), "{cell}");
            cells += 1;
        }
    }
    assert_eq!(cells, 6, "three policies, two dimensions");
    assert_eq!(dom.matches("class=\"sample\"").count(), 1);
}

#[test]
fn a_live_run_in_a_browser() {
    let Some(browser) = browser() else { return };
    let directory = tempdir().unwrap();
    let file = path(&small_run(directory.path()));
    let mut training = Command::new(env!("CARGO_BIN_EXE_spo"))
        .args(["train", &file, "--set", "training.steps=1000000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let events = directory.path().join("run/events.jsonl");
    let (started, read) = (Instant::now(), || std::fs::read_to_string(&events).unwrap_or_default());
    while !read().contains("\"event\":\"step\"") && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let server = Server::start(&[directory.path()]);
    let step = || {
        let dom = dom(browser, &server, 3000);
        assert!(dom.contains("data-state=\"running\""), "{dom}");
        let polls = dom.split_once("data-polls=\"").unwrap().1.split_once('"').unwrap().0;
        assert!(polls.parse::<u32>().unwrap() > 1, "the page asks again");
        let step = dom.split_once("data-step=\"round-1-honesty ").unwrap().1.split_once('"').unwrap().0;
        step.parse::<u64>().unwrap()
    };
    let (first, second) = (step(), step());
    training.kill().unwrap();
    training.wait().unwrap();
    assert!(0 < first && first < second, "{first} {second}");
}

#[test]
fn a_run_is_watched_from_another_process() {
    let directory = tempdir().unwrap();
    finished_run(directory.path());
    let run = path(&directory.path().join("run"));
    let watched = spo(&["watch", &run]);
    assert_eq!(watched.code, 0, "{}", watched.err);
    for words in ["round-1-honesty step 2/2, epoch", "held out: loss", "KL(", "done in"] {
        assert!(watched.out.contains(words), "no {words:?} in:\n{}", watched.out);
    }
    let tables = ["metrics.csv", "held-out.csv", "evaluations.csv"]
        .map(|name| std::fs::read_to_string(directory.path().join("run").join(name)).unwrap().lines().count());
    // Six steps; three policies on two dimensions, looked at after each step; and a header each.
    assert_eq!(tables[..2], [1 + 6, 1 + 12]);
    assert!(tables[2] > 1 + 3 * 2 * 4);
}

/// Times of a clock that jumps back by an hour and ahead by a year. The program's own are of a clock that cannot.
fn jumping(events: &str) -> String {
    let count = events.lines().count();
    let line = |(index, line): (usize, &str)| {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        let jump = [0.0, -3600.0, 365.0 * 86400.0][3 * index / count];
        event["at"] = (event["at"].as_f64().unwrap() + jump).into();
        format!("{event}\n")
    };
    events.lines().enumerate().map(line).collect()
}

/// `table.csv` without its first column, the time.
fn timeless(table: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(table).unwrap();
    text.lines().map(|line| line.split_once(',').unwrap().1.to_owned()).collect()
}

#[test]
fn events_of_a_clock_that_jumps_are_shown_all_the_same() {
    let directory = tempdir().unwrap();
    finished_run(directory.path());
    let run = directory.path().join("run");
    let watched = |run: &Path| {
        let ended = spo(&["watch", &path(run), "--lines"]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let words = |line: &str| line.split_once("] ").unwrap().1.to_owned();
        ended.out.lines().map(words).collect::<Vec<_>>()
    };
    let other = directory.path().join("jumping/run");
    std::fs::create_dir_all(&other).unwrap();
    let jumped = jumping(&std::fs::read_to_string(run.join("events.jsonl")).unwrap());
    std::fs::write(other.join("events.jsonl"), jumped).unwrap();
    assert_eq!(watched(&other), watched(&run));

    // Tables, TensorBoard and report are made from events alone.
    let records = read_events(&other.join("events.jsonl")).unwrap();
    let (mut tables, mut board) = (Tables::create(&other).unwrap(), TensorBoard::create(&other, 0.0).unwrap());
    for record in &records {
        All(vec![&mut tables, &mut board]).event(record.at, &record.event).unwrap();
    }
    drop((tables, board));
    for table in ["metrics.csv", "held-out.csv", "evaluations.csv"] {
        assert_eq!(timeless(&other.join(table)), timeless(&run.join(table)), "{table}");
    }
    let curves = |run: &Path| {
        let phases = std::fs::read_dir(run.join("tensorboard")).unwrap().map(|entry| entry.unwrap().path());
        let bytes = |phase: &Path| {
            let file = std::fs::read_dir(phase).unwrap().next().unwrap().unwrap();
            (phase.file_name().unwrap().to_owned(), file.metadata().unwrap().len())
        };
        let mut lengths: Vec<_> = phases.map(|phase| bytes(&phase)).collect();
        lengths.sort();
        lengths
    };
    assert_eq!(curves(&other), curves(&run));
    let summary = summarize(&RunPlan::read(&run).unwrap(), &records);
    assert_eq!(markdown(&summary), std::fs::read_to_string(run.join("report.md")).unwrap());

    let server = Server::start(&[&directory.path().join("jumping")]);
    let events = server.get(&format!("/api/runs/{}/events?offset=0&check=0", server.run_id()));
    assert!(events.contains("run-finished"), "{events}");
    let Some(browser) = browser() else { return };
    let dom = dom(browser, &server, 4000);
    assert!(dom.contains("data-state=\"finished\"") && !dom.contains("NaN"), "{dom}");
}

#[test]
fn two_runs_are_compared_in_a_browser() {
    let Some(browser) = browser() else { return };
    let directory = tempdir().unwrap();
    finished_run(directory.path());
    let (first, second) = (directory.path().join("a"), directory.path().join("b"));
    std::fs::rename(directory.path().join("run"), &first).unwrap();
    finished_run(directory.path());
    std::fs::rename(directory.path().join("run"), &second).unwrap();
    let server = Server::start(&[&first, &second]);
    let dom = dom(browser, &server, 4000);
    // Two runs with three phases each in one figure.
    let loss = dom.split("<figure").find(|figure| figure.contains("data-title=\"Loss\"")).unwrap();
    assert!(loss.contains("data-series=\"6\"") && loss.contains("data-points=\"12\""), "{loss}");
    for name in ["a", "b"] {
        assert!(dom.contains(&format!(">{name}<")) || dom.contains(&format!("{name} · ")), "{name}:\n{dom}");
    }
}
