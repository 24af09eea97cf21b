//! `spo serve`

mod runs;
mod site;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use clap::Args;
use tiny_http::Server;

use crate::error::CliError;
use crate::output::{Output, note};
use runs::Runs;
use site::Site;

/// Requests that are answered at once.
const WORKERS: usize = 4;

/// Show runs in a browser: live curves, the policy × dimension matrix, samples, several runs compared
///
/// Reads the run directories and changes nothing. Only this machine can reach the page unless --host says otherwise.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run directories, or directories that hold some
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Port; 0 takes a free one
    #[arg(long, default_value_t = 7707)]
    port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let runs = Runs::new(&self.runs)?;
        let failed = |reason: String| CliError::Serve { address: format!("{}:{}", self.host, self.port), reason };
        let server = Server::http((self.host, self.port)).map_err(|error| failed(error.to_string()))?;
        let address = server.server_addr().to_ip().ok_or_else(|| failed("no address".into()))?;
        if !self.host.is_loopback() {
            note("everyone who reaches this address can read these runs: their prompts, answers and settings");
        }
        output.line(format_args!("http://{address}/ shows {} runs; Ctrl-C ends it", runs.list().len()))?;
        output.flush()?;
        let (server, site) = (Arc::new(server), Arc::new(Site { runs, address }));
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (server, site) = (server.clone(), site.clone());
                thread::spawn(move || {
                    for request in server.incoming_requests() {
                        let answer = site.answer(request.method(), request.url(), &host(&request));
                        // A browser that went away needs no answer.
                        let _ = request.respond(answer);
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("a worker answers every request"));
        Ok(())
    }
}

fn host(request: &tiny_http::Request) -> String {
    let header = request.headers().iter().find(|header| header.field.equiv("Host"));
    header.map_or_else(String::new, |header| header.value.as_str().to_owned())
}
