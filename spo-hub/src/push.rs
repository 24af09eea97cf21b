//! A directory to the Hub, in one commit.

use std::path::Path;

use crate::{HubError, Name, Progress, Settings};

/// What was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The page of the repository.
    pub page: String,
    /// The commit, where the Hub says it.
    pub commit: Option<String>,
}

/// Uploads the files of a directory, and those below it, as one commit to a model repository, which is made, as a private
/// one if `private`, where it is not there. Files that the Hub already has are not sent again.
///
/// # Errors
/// There is no token or it may not write; the network fails; a file cannot be read.
#[cfg(feature = "online")]
pub fn push(
    name: &Name,
    dir: &Path,
    message: &str,
    private: bool,
    settings: &Settings,
    heard: &mut dyn FnMut(Progress),
) -> Result<Pushed, HubError> {
    online::push(name, dir, (message, private), settings, heard)
}

/// Built without the Hub: refuses.
///
/// # Errors
/// Always.
#[cfg(not(feature = "online"))]
pub fn push(
    name: &Name,
    _: &Path,
    _: &str,
    _: bool,
    _: &Settings,
    _: &mut dyn FnMut(Progress),
) -> Result<Pushed, HubError> {
    Err(HubError::NotBuilt { name: name.to_string() })
}

#[cfg(feature = "online")]
mod online {
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom};
    use std::path::{Path, PathBuf};

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};
    use sha2::Digest;

    use super::Pushed;
    use crate::client::{Client, Sent, escaped};
    use crate::download::hex;
    use crate::{HubError, Name, Progress, Settings};

    /// A file to upload.
    struct Local {
        path: PathBuf,
        name: String,
        bytes: u64,
        /// Whether it goes to the storage of large files.
        large: bool,
        sha256: String,
    }

    pub fn push(
        name: &Name,
        dir: &Path,
        (message, private): (&str, bool),
        settings: &Settings,
        heard: &mut dyn FnMut(Progress),
    ) -> Result<Pushed, HubError> {
        if settings.token.is_none() {
            let message = "no token is set".into();
            return Err(HubError::Token { name: name.to_string(), status: 401, message });
        }
        let client = Client::new(settings);
        let mut files = local(dir)?;
        create(&client, name, private)?;
        sort(&client, name, &mut files)?;
        let total = files.iter().map(|file| file.bytes).sum();
        let mut done = 0;
        let large: Vec<&Local> = files.iter().filter(|file| file.large).collect();
        for file in large {
            store(&client, name, file)?;
            done += file.bytes;
            heard(Progress::Bytes { name: name.to_string(), done, total });
        }
        let answer = commit(&client, name, message, &files)?;
        heard(Progress::Bytes { name: name.to_string(), done: total, total });
        let commit = answer["commitOid"].as_str().map(Into::into);
        Ok(Pushed { page: client.page(name), commit })
    }

    /// Files of a directory and below, sorted, without hidden ones.
    fn local(dir: &Path) -> Result<Vec<Local>, HubError> {
        let (mut found, mut open) = (vec![], vec![dir.to_owned()]);
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(&next).map_err(|e| HubError::io(&next, e))? {
                let path = entry.map_err(|e| HubError::io(&next, e))?.path();
                let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                    continue;
                }
                if path.is_dir() {
                    open.push(path);
                } else {
                    let (bytes, sha256) = hashed(&path)?;
                    found.push(Local { path, name, bytes, large: false, sha256 });
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn hashed(path: &Path) -> Result<(u64, String), HubError> {
        let failed = |e| HubError::io(path, e);
        let mut file = File::open(path).map_err(failed)?;
        let (mut hasher, mut buffer, mut bytes) = (sha2::Sha256::new(), vec![0; 1 << 16], 0);
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => return Ok((bytes, hex(&hasher.finalize()))),
                read => {
                    hasher.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
    }

    /// Makes the repository; one that is there is fine.
    fn create(client: &Client<'_>, name: &Name, private: bool) -> Result<(), HubError> {
        let url = format!("{}/api/repos/create", client.settings.endpoint);
        let (organisation, own) = name.id.split_once('/').unwrap_or(("", &name.id));
        let body = json!({ "name": own, "organization": organisation, "type": "model", "private": private });
        match client.ask(name, &url, Sent::Json(&body)) {
            Err(HubError::Status { status: 409, .. }) => Ok(()),
            // For one's own name the Hub does not take it as an organisation's.
            Err(HubError::Token { status: 403, .. } | HubError::Status { status: 400 | 403, .. }) => {
                let body = json!({ "name": own, "type": "model", "private": private });
                match client.ask(name, &url, Sent::Json(&body)) {
                    Err(HubError::Status { status: 409, .. }) => Ok(()),
                    other => other.map(|_| ()),
                }
            }
            other => other.map(|_| ()),
        }
    }

    /// Asks which files are large ones.
    fn sort(client: &Client<'_>, name: &Name, files: &mut [Local]) -> Result<(), HubError> {
        let url = format!("{}/api/models/{}/preupload/{}", client.settings.endpoint, name.id, escaped(name.revision()));
        let described = files.iter().map(|file| {
            let mut start = vec![];
            File::open(&file.path)
                .and_then(|read| read.take(512).read_to_end(&mut start))
                .map_err(|e| HubError::io(&file.path, e))?;
            Ok(json!({ "path": file.name, "size": file.bytes, "sample": STANDARD.encode(start) }))
        });
        let described: Vec<Value> = described.collect::<Result<_, HubError>>()?;
        let answer = client.json(name, &url, Sent::Json(&json!({ "files": described })))?;
        for file in files {
            let mode = answer["files"].as_array().into_iter().flatten().find(|one| one["path"] == file.name.as_str());
            let Some(mode) = mode.and_then(|one| one["uploadMode"].as_str()) else {
                let found = format!("nothing of {}", file.name);
                return Err(HubError::Malformed { url, found, expected: "`uploadMode` of every file" });
            };
            file.large = mode == "lfs";
        }
        Ok(())
    }

    /// Sends a large file to where the Hub says, unless it has it.
    fn store(client: &Client<'_>, name: &Name, file: &Local) -> Result<(), HubError> {
        let url = format!("{}/{}.git/info/lfs/objects/batch", client.settings.endpoint, name.id);
        let object = json!({ "oid": file.sha256, "size": file.bytes });
        let asked = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256", "objects": [object],
        });
        let answer = client.json(name, &url, Sent::Json(&asked))?;
        let object = &answer["objects"][0];
        if let Some(message) = object["error"]["message"].as_str() {
            return Err(HubError::Status { url, status: 422, message: message.into() });
        }
        let (upload, verify) = (&object["actions"]["upload"], &object["actions"]["verify"]);
        let Some(href) = upload["href"].as_str() else { return Ok(()) };
        match upload["header"]["chunk_size"].as_str().and_then(|size| size.parse().ok()) {
            Some(size) if size > 0 => in_parts(client, name, file, (href, size), &upload["header"])?,
            _ => client.put(name, href, file.bytes, part(file, 0, file.bytes)?).map(|_| ())?,
        }
        let checked = verify["href"].as_str().map(|href| {
            client.ask(name, href, Sent::Json(&json!({ "oid": file.sha256, "size": file.bytes }))).map(|_| ())
        });
        checked.unwrap_or(Ok(()))
    }

    fn in_parts(
        client: &Client<'_>,
        name: &Name,
        file: &Local,
        (href, size): (&str, u64),
        addresses: &Value,
    ) -> Result<(), HubError> {
        let mut parts = vec![];
        for number in 1..=file.bytes.div_ceil(size) {
            let key = format!("{number:05}");
            let address = addresses[&key].as_str().or_else(|| addresses[number.to_string()].as_str());
            let Some(address) = address else {
                let found = format!("no address of part {number}");
                return Err(HubError::Malformed { url: href.into(), found, expected: "one for each part" });
            };
            let start = (number - 1) * size;
            let bytes = size.min(file.bytes - start);
            let tag = client.put(name, address, bytes, part(file, start, bytes)?)?;
            parts.push(json!({ "partNumber": number, "etag": tag }));
        }
        client.ask(name, href, Sent::Json(&json!({ "oid": file.sha256, "parts": parts }))).map(|_| ())
    }

    fn part(file: &Local, start: u64, bytes: u64) -> Result<impl Read + 'static, HubError> {
        let failed = |e| HubError::io(&file.path, e);
        let mut opened = File::open(&file.path).map_err(failed)?;
        opened.seek(SeekFrom::Start(start)).map_err(failed)?;
        Ok(opened.take(bytes))
    }

    fn commit(client: &Client<'_>, name: &Name, message: &str, files: &[Local]) -> Result<Value, HubError> {
        let mut lines =
            json!({ "key": "header", "value": { "summary": message, "description": "" } }).to_string() + "\n";
        for file in files {
            let value = if file.large {
                json!({ "key": "lfsFile", "value": {
                    "path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.bytes,
                } })
            } else {
                let bytes = std::fs::read(&file.path).map_err(|e| HubError::io(&file.path, e))?;
                json!({ "key": "file", "value": {
                    "path": file.name, "content": STANDARD.encode(bytes), "encoding": "base64",
                } })
            };
            lines += &(value.to_string() + "\n");
        }
        let url = format!("{}/api/models/{}/commit/{}", client.settings.endpoint, name.id, escaped(name.revision()));
        client.json(name, &url, Sent::Lines(&lines))
    }
}
