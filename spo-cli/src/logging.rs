//! Messages of the libraries below, for looking into faults: `SPO_LOG=debug spo …`.

use tracing_subscriber::EnvFilter;

/// Sends messages of the level that `SPO_LOG` asks for to the standard error stream; without it, none.
pub(crate) fn start() {
    if let Ok(filter) = EnvFilter::try_from_env("SPO_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}
