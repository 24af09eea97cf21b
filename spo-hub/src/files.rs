//! What a repository has, and which of it is needed.

use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, Sent, escaped, from_json};
use crate::name::is_inside;
use crate::{Fetched, HubError, Kind, Name, Want};

/// A repository at a commit.
pub(crate) struct Repository {
    pub commit: String,
    pub files: Vec<RemoteFile>,
}

/// A file, and what its bytes hash to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RemoteFile {
    pub path: String,
    pub bytes: u64,
    pub hash: Hash,
}

/// The hash that names a blob.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Hash {
    /// Of large files.
    Sha256(String),
    /// Of git, with a header before the bytes.
    Git(String),
}

impl Hash {
    pub fn text(&self) -> &str {
        match self {
            Self::Sha256(hash) | Self::Git(hash) => hash,
        }
    }
}

/// The Hub's answer, as far as it is read.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// Endings of the files of a model that are read.
const OF_MODELS: [&str; 5] = ["safetensors", "json", "jinja", "txt", "model"];
/// Endings of files of rows.
const OF_ROWS: [&str; 6] = ["parquet", "jsonl", "json", "csv", "tsv", "arrow"];
/// Where the Hub keeps the Parquet files that it makes of a data set.
pub(crate) const PARQUET: &str = "refs/convert/parquet";

impl Repository {
    /// Asks the Hub.
    pub fn ask(client: &Client<'_>, name: &Name) -> Result<Self, HubError> {
        let (endpoint, plural) = (&client.settings.endpoint, name.kind.plural());
        let revision = escaped(name.commit.as_deref().unwrap_or(name.revision()));
        let url = format!("{endpoint}/api/{plural}/{}/revision/{revision}?blobs=true", name.id);
        Self::read(client.json(name, &url, Sent::Nothing)?, &url)
    }

    /// From the Hub's answer to this request.
    fn read(answer: Value, url: &str) -> Result<Self, HubError> {
        let malformed =
            |found: String| HubError::Malformed { url: url.into(), found, expected: "commit, files, hashes" };
        let info: Info = serde_json::from_value(answer).map_err(|error| malformed(error.to_string()))?;
        if !crate::cache::is_commit(&info.sha) {
            return Err(malformed(format!("the commit `{}`", info.sha)));
        }
        let files = info.siblings.into_iter().map(|file| file.known().map_err(malformed));
        let files: Vec<RemoteFile> = files.collect::<Result<_, _>>()?;
        if files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.bytes)).is_none() {
            return Err(malformed("files of more bytes than can be counted".into()));
        }
        Ok(Self { commit: info.sha, files })
    }

    /// The files that are needed.
    pub fn wanted(&self, name: &Name, want: &Want) -> Result<Vec<RemoteFile>, HubError> {
        let paths: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let chosen = chosen(name, want, &paths)?;
        Ok(self.files.iter().filter(|file| chosen.contains(&file.path)).cloned().collect())
    }
}

impl Sibling {
    fn known(self) -> Result<RemoteFile, String> {
        let path = self.rfilename;
        if !is_inside(&path) {
            return Err(format!("the file name `{path}`"));
        }
        let hex =
            |hash: &String, digits: usize| hash.len() == digits && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (bytes, hash) = match (self.lfs, self.size, self.blob_id) {
            (Some(lfs), ..) if hex(&lfs.sha256, 64) => (lfs.size, Hash::Sha256(lfs.sha256)),
            (None, Some(size), Some(id)) if hex(&id, 40) => (size, Hash::Git(id)),
            _ => return Err(format!("{path} without length and hash")),
        };
        Ok(RemoteFile { path, bytes, hash })
    }
}

/// What an answer of the Hub about a repository says, whatever its bytes are: the commit, and the files that are needed.
///
/// # Errors
/// It is no such answer, or nothing of what it names is of use.
pub fn listed(name: &Name, want: &Want, answer: &[u8]) -> Result<(String, Vec<String>), HubError> {
    let url = format!("the answer about {name}");
    let repository = Repository::read(from_json(&url, answer)?, &url)?;
    let files = repository.wanted(name, want)?.into_iter().map(|file| file.path).collect();
    Ok((repository.commit, files))
}

/// Which of a repository's files are needed, sorted.
pub(crate) fn chosen(name: &Name, want: &Want, paths: &[&str]) -> Result<Vec<String>, HubError> {
    let found: Vec<&str> = match (&name.file, want) {
        (Some(pattern), _) => {
            // A model in several GGUF files is named by its first.
            let parts = pattern.replace("-00001-of-", "-*-of-");
            paths.iter().copied().filter(|path| matches(&parts, path)).collect()
        }
        (None, Want::Model) => of_model(paths),
        (None, Want::Tokenizer) => of_model(paths).into_iter().filter(|path| !path.ends_with(".safetensors")).collect(),
        (None, Want::Rows { config, split, test }) if name.revision.as_deref() == Some(PARQUET) => {
            of_conversion(name, (config.as_deref(), split.as_deref(), *test), paths)?
        }
        (None, Want::Rows { .. }) => paths.iter().copied().filter(|path| of_rows(path)).collect(),
    };
    let mut found: Vec<String> = found.into_iter().map(Into::into).collect();
    found.sort();
    if found.is_empty() || (*want == Want::Model && name.file.is_none() && !loads(&found)) {
        return Err(nothing(name, want, paths));
    }
    Ok(found)
}

fn loads(files: &[String]) -> bool {
    files.iter().any(|path| path.ends_with(".safetensors"))
}

fn of_model<'p>(paths: &[&'p str]) -> Vec<&'p str> {
    let known = |path: &str| path.rsplit_once('.').is_some_and(|(_, ending)| OF_MODELS.contains(&ending));
    // Below lie conversions to other programs; `consolidated` are the same weights once more.
    let own = |path: &&&str| !path.contains('/') && !path.starts_with("consolidated") && known(path);
    paths.iter().filter(own).copied().collect()
}

fn of_rows(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".gz").trim_end_matches(".zst");
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    OF_ROWS.contains(&ending) && !path.starts_with('.') && !name.starts_with("dataset_info")
}

/// Files `CONFIG/SPLIT/0000.parquet`; of a large data set the first part of a split is `partial-SPLIT`.
fn of_conversion<'p>(
    name: &Name,
    (config, split, test): (Option<&str>, Option<&str>, bool),
    paths: &[&'p str],
) -> Result<Vec<&'p str>, HubError> {
    let parts = paths.iter().filter_map(|path| {
        let (config, rest) = path.split_once('/')?;
        let (split, file) = rest.split_once('/')?;
        file.ends_with(".parquet").then(|| (config, split.trim_start_matches("partial-"), *path))
    });
    let parts: Vec<(&str, &str, &str)> = parts.collect();
    if parts.is_empty() {
        return Ok(vec![]);
    }
    let config = choose(name, "hub-config", config, &["default"], parts.iter().map(|part| part.0))?;
    let parts: Vec<_> = parts.into_iter().filter(|part| part.0 == config).collect();
    let usual: &[&str] = if test { &["test", "validation"] } else { &["train"] };
    let split = choose(name, "hub-split", split, usual, parts.iter().map(|part| part.1))?;
    Ok(parts.into_iter().filter(|part| part.1 == split).map(|part| part.2).collect())
}

/// The one that is asked for, else the usual one, else the only one.
fn choose<'p>(
    name: &Name,
    key: &'static str,
    asked: Option<&str>,
    usual: &[&str],
    there: impl Iterator<Item = &'p str>,
) -> Result<&'p str, HubError> {
    let mut known: Vec<&str> = there.collect();
    known.sort_unstable();
    known.dedup();
    let has = |wanted: &str| known.iter().copied().find(|one| *one == wanted);
    let found = match asked {
        Some(asked) => has(asked),
        None => usual.iter().find_map(|usual| has(usual)).or((known.len() == 1).then(|| known[0])),
    };
    found.ok_or_else(|| HubError::Choice {
        name: name.to_string(),
        key,
        found: asked.map(Into::into),
        known: known.into_iter().map(Into::into).collect(),
    })
}

fn nothing(name: &Name, want: &Want, paths: &[&str]) -> HubError {
    let mut endings: Vec<&str> = paths.iter().filter_map(|path| Some(path.rsplit_once('.')?.1)).collect();
    endings.sort_unstable();
    endings.dedup();
    let found = match endings.is_empty() {
        true => "found no files".into(),
        false => format!("found files ending in {}", endings.join(", ")),
    };
    let expected = match (&name.file, want) {
        (Some(_), _) => "a file of that name",
        (None, Want::Model) => "weights in .safetensors",
        (None, Want::Tokenizer) => "tokenizer.json",
        (None, Want::Rows { .. }) => "rows in Parquet, JSON, CSV or Arrow files",
    };
    HubError::Nothing { name: name.to_string(), found, expected }
}

/// Whether a path is of a pattern in which `*` stands for anything but `/`, and `**` for anything.
fn matches(pattern: &str, path: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(path) = path.strip_prefix(head) else { return false };
    let (deep, rest) = rest.strip_prefix('*').map_or((false, rest), |rest| (true, rest));
    let ends = path.char_indices().map(|(at, _)| at).chain([path.len()]);
    ends.take_while(|at| deep || !path[..*at].contains('/')).any(|at| matches(rest, &path[at..]))
}

/// What was fetched, of files that lie in the cache.
pub(crate) fn fetched(name: &Name, commit: &str, snapshot: &std::path::Path, files: &[String]) -> Fetched {
    let paths: Vec<_> = files.iter().map(|file| snapshot.join(file)).collect();
    let path = match (&name.file, name.kind) {
        (Some(_), Kind::Model) => paths[0].clone(),
        _ => snapshot.to_owned(),
    };
    Fetched { name: name.to_string(), commit: commit.into(), path, files: paths }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{chosen, matches};
    use crate::{HubError, Name, Want};
    use std::path::Path;

    fn name(text: &str) -> Name {
        Name::parse(text, Path::new("/nonexistent")).unwrap().unwrap()
    }

    fn rows(config: Option<&str>, split: Option<&str>, test: bool) -> Want {
        Want::Rows { config: config.map(Into::into), split: split.map(Into::into), test }
    }

    #[test]
    fn only_what_is_read_is_downloaded() {
        let paths = [
            "README.md",
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "tokenizer.json",
            "merges.txt",
            "chat_template.jinja",
            "consolidated.safetensors",
            "original/params.json",
            ".gitattributes",
        ];
        let found = chosen(&name("a/b"), &Want::Model, &paths).unwrap();
        assert_eq!(found, ["chat_template.jinja", "config.json", "merges.txt", "model.safetensors", "tokenizer.json"]);
        let found = chosen(&name("a/b"), &Want::Tokenizer, &paths).unwrap();
        assert!(!found.iter().any(|path| path.ends_with("safetensors")));
        let error = chosen(&name("a/b"), &Want::Model, &["config.json", "x.gguf", "pytorch_model.bin"]).unwrap_err();
        assert!(error.to_string().contains("found files ending in bin, gguf, json"), "{error}");
        let split = ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf", "y.gguf"];
        assert_eq!(chosen(&name("hf://a/b/x-00001-of-00002.gguf"), &Want::Model, &split).unwrap(), &split[..2]);
        assert_eq!(chosen(&name("hf://a/b/x.gguf"), &Want::Model, &["x.gguf", "y.gguf"]).unwrap(), ["x.gguf"]);
    }

    #[test]
    fn configuration_and_split_are_chosen() {
        let name = name("hf://datasets/a/b@refs/convert/parquet");
        let paths = [
            "default/train/0000.parquet",
            "default/test/0000.parquet",
            "default/partial-big/0.parquet",
            "x/y/0.parquet",
        ];
        let pick = |want: &Want| chosen(&name, want, &paths);
        assert_eq!(pick(&rows(None, None, false)).unwrap(), ["default/train/0000.parquet"]);
        assert_eq!(pick(&rows(None, None, true)).unwrap(), ["default/test/0000.parquet"]);
        assert_eq!(pick(&rows(None, Some("big"), false)).unwrap(), ["default/partial-big/0.parquet"]);
        assert_eq!(pick(&rows(Some("x"), None, false)).unwrap(), ["x/y/0.parquet"]);
        let error = pick(&rows(None, Some("tran"), false)).unwrap_err();
        assert!(matches!(&error, HubError::Choice { key: "hub-split", known, .. } if known.len() == 3), "{error}");
        let several = ["default/a/0.parquet", "default/b/0.parquet"];
        assert!(chosen(&name, &rows(None, None, false), &several).is_err());
    }

    #[test]
    fn patterns_stay_in_a_directory_unless_doubled() {
        assert!(matches("data/*.jsonl", "data/a.jsonl") && !matches("data/*.jsonl", "data/b/a.jsonl"));
        assert!(matches("**/a.jsonl", "data/b/a.jsonl") && matches("a", "a") && !matches("a", "ab"));
    }
}
