//! What is loaded and how long it takes: `SPO_LOG=info spo …`.

use tracing_subscriber::EnvFilter;

use crate::output::note;

/// The environment variable that asks for them.
const VARIABLE: &str = "SPO_LOG";

/// Sends messages at least of the level that `SPO_LOG` asks for to the standard error stream; without it, none.
pub(crate) fn start() {
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    match EnvFilter::try_new(&wanted) {
        Ok(filter) => tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init(),
        Err(error) => note(format_args!("{VARIABLE}={wanted}: {error}; expected a level such as info or debug")),
    }
}
