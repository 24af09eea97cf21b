//! Names of the Hub, and how they are told from paths.

use std::fmt;
use std::path::Path;

use crate::HubError;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model, an adapter, a tokenizer.
    Model,
    /// A data set.
    Dataset,
}

impl Kind {
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "data set",
        }
    }
}

/// A repository of the Hub at a revision, or a file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What it holds.
    pub kind: Kind,
    /// `org/name`; very old ones have no organisation.
    pub id: String,
    /// Branch, tag or commit; `main` if absent.
    pub revision: Option<String>,
    /// A file of the repository, or a pattern with `*` for files of a data set.
    pub file: Option<String>,
    /// The commit that its revision is, where that is settled already.
    pub commit: Option<String>,
}

const SCHEME: &str = "hf://";

/// Endings of files, which a bare name does not have.
const ENDINGS: [&str; 12] =
    ["gguf", "safetensors", "json", "jsonl", "csv", "tsv", "parquet", "arrow", "gz", "zst", "toml", "txt"];

impl Name {
    /// The name that a text is: of `hf://…` always, of a bare `org/name` where neither this path nor a directory `org` is
    /// there below `base`. Everything else is a path.
    ///
    /// # Errors
    /// `hf://` is followed by what cannot be a name.
    pub fn parse(text: &str, base: &Path) -> Result<Option<Self>, HubError> {
        if let Some(rest) = text.strip_prefix(SCHEME) {
            return Self::after_scheme(rest)
                .map(Some)
                .map_err(|reason| HubError::BadName { name: text.into(), reason });
        }
        let (id, revision) = text.split_once('@').map_or((text, None), |(id, revision)| (id, Some(revision)));
        let Some((organisation, name)) = id.split_once('/') else { return Ok(None) };
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let bare = is_word(organisation) && is_word(name) && !ENDINGS.contains(&ending);
        if !bare || revision.is_some_and(|revision| !is_revision(revision)) {
            return Ok(None);
        }
        if base.join(text).exists() || base.join(organisation).is_dir() {
            return Ok(None);
        }
        let revision = revision.map(Into::into);
        Ok(Some(Self { kind: Kind::Model, id: id.into(), revision, file: None, commit: None }))
    }

    /// `[models/|datasets/]org/name[@revision][/file]`.
    fn after_scheme(rest: &str) -> Result<Self, String> {
        let (kind, rest) = match rest.split_once('/') {
            Some(("datasets", rest)) => (Kind::Dataset, rest),
            Some(("models", rest)) => (Kind::Model, rest),
            Some(("spaces" | "buckets", _)) => {
                return Err("found a space or bucket, expected a model or data set".into());
            }
            _ => (Kind::Model, rest),
        };
        let (id, revision, file) = match rest.split_once('@') {
            Some((id, rest)) => {
                let (revision, file) = revision_and_file(rest);
                (id.to_owned(), Some(revision), file)
            }
            None => {
                let mut parts = rest.splitn(3, '/');
                let id: Vec<&str> = parts.by_ref().take(2).collect();
                (id.join("/"), None, parts.next().map(Into::into))
            }
        };
        if id.split('/').count() > 2 || !id.split('/').all(is_word) {
            return Err(format!("found `{id}`, expected org/name"));
        }
        if revision.as_ref().is_some_and(|revision| !is_revision(revision)) {
            return Err(format!(
                "found the revision `{}`, expected a branch, tag or commit",
                revision.unwrap_or_default()
            ));
        }
        if file.as_ref().is_some_and(|file: &String| !is_inside(file)) {
            return Err(format!("found the file `{}`, expected one inside the repository", file.unwrap_or_default()));
        }
        Ok(Self { kind, id, revision, file, commit: None })
    }

    /// The same at another revision.
    pub fn at(&self, revision: &str) -> Self {
        Self { revision: Some(revision.into()), ..self.clone() }
    }

    /// The same with its revision at this commit, wherever that has moved to since.
    pub fn pinned(&self, commit: &str) -> Self {
        Self { commit: Some(commit.into()), ..self.clone() }
    }

    pub(crate) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let datasets = if self.kind == Kind::Dataset { "datasets/" } else { "" };
        write!(f, "{SCHEME}{datasets}{}", self.id)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, "/{file}"))
    }
}

/// `refs/convert/parquet` and `refs/pr/1` have slashes of their own, everything else ends at the first.
fn revision_and_file(rest: &str) -> (String, Option<String>) {
    let rest = rest.replace("%2F", "/");
    let own = if rest.starts_with("refs/") { 3 } else { 1 };
    let parts: Vec<&str> = rest.splitn(own + 1, '/').collect();
    let (revision, file) = parts.split_at(own.min(parts.len()));
    (revision.join("/"), file.first().map(|file| (*file).to_owned()))
}

fn is_word(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !word.is_empty()
        && word.len() <= 96
        && word.chars().all(plain)
        && !word.starts_with(['.', '-'])
        && !word.ends_with(['.', '-'])
        && !word.contains("..")
        && !word.contains("--")
}

/// It becomes part of a path of the cache.
fn is_revision(revision: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain))
}

/// Whether a path of a repository stays inside of it.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.contains('\\')
        && !path.contains(':')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Kind, Name};
    use std::path::Path;

    fn parse(text: &str) -> Option<Name> {
        Name::parse(text, Path::new("/nonexistent")).unwrap()
    }

    #[test]
    fn names_have_kind_revision_and_file() {
        let name = parse("Qwen/Qwen3-0.6B").unwrap();
        assert_eq!((name.kind, name.id.as_str(), name.revision()), (Kind::Model, "Qwen/Qwen3-0.6B", "main"));
        assert_eq!(parse("a/b@v1.0").unwrap().revision(), "v1.0");
        let name = parse("hf://datasets/a/b@refs/convert/parquet/default/train/0.parquet").unwrap();
        assert_eq!(name.revision(), "refs/convert/parquet");
        assert_eq!(name.file.as_deref(), Some("default/train/0.parquet"));
        assert_eq!(parse("hf://a/b/c.gguf").unwrap().file.as_deref(), Some("c.gguf"));
        assert_eq!(parse("hf://gpt2").unwrap().id, "gpt2");
        for text in ["hf://a/b", "hf://datasets/a/b@x", "hf://a/b@refs/pr/1/c/d.gguf"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn paths_are_no_names() {
        for text in ["model", "./a/b", "/a/b", "../b", "a/b/c", "a/b.gguf", "data/x.jsonl", "a/.b", "a/b:round", "a/*"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_there_is_a_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("models")).unwrap();
        assert_eq!(Name::parse("models/mistyped", dir.path()).unwrap(), None);
        assert!(Name::parse("others/tiny", dir.path()).unwrap().is_some());
    }

    #[test]
    fn what_leads_out_of_the_cache_is_refused() {
        let refused =
            ["hf://", "hf://a/b/../c", "hf://../b", "hf://a/b@../x", "hf://a/b//c", "hf://spaces/a/b", "hf://a/b@"];
        for text in refused {
            assert!(Name::parse(text, Path::new(".")).is_err(), "{text}");
        }
    }
}
