//! What goes wrong while a template is read or rendered.

/// A message with the line of the template, once it is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Error {
    pub(crate) message: String,
    pub(crate) line: Option<u32>,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: None }
    }

    pub(crate) fn at(line: u32, message: impl Into<String>) -> Self {
        Self { message: message.into(), line: Some(line) }
    }

    /// Something that Jinja renders and this engine does not.
    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new(format!("{what} is not supported: the text might differ from that of transformers"))
    }

    /// Keeps the line that was found first, which is the innermost.
    pub(crate) fn on_line(mut self, line: u32) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

/// An error by its message, as the value of a function.
pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(message))
}
