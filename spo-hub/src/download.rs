//! A file into the cache: from where it was cut, and only whole.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use sha1::Digest;

use crate::cache::{Cache, with_parent};
use crate::client::{Client, Sent, escaped, prefix, unreachable};
use crate::files::{Hash, RemoteFile};
use crate::{HubError, Name};

/// Hears how many bytes more there are.
pub(crate) type Heard<'p> = &'p mut dyn FnMut(u64);

/// A hash that is being computed.
enum Hasher {
    Sha256(sha2::Sha256),
    Git(sha1::Sha1),
}

impl Hasher {
    fn of(file: &RemoteFile) -> Self {
        match &file.hash {
            Hash::Sha256(_) => Self::Sha256(sha2::Sha256::new()),
            Hash::Git(_) => Self::Git(sha1::Sha1::new_with_prefix(format!("blob {}\0", file.bytes))),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    fn hex(self) -> String {
        let bytes = match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Git(hasher) => hasher.finalize().to_vec(),
        };
        hex(&bytes)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Downloads a file unless its blob is there, and links it below the commit.
pub(crate) fn file(
    client: &Client<'_>,
    cache: &Cache,
    (name, commit): (&Name, &str),
    file: &RemoteFile,
    heard: Heard<'_>,
) -> Result<(), HubError> {
    let hash = file.hash.text();
    let blob = cache.blob(hash);
    if blob.is_file() {
        heard(file.bytes);
    } else {
        let _lock = cache.lock(hash)?;
        // Another process may have brought it while this one waited.
        if blob.is_file() { heard(file.bytes) } else { bring(client, (name, commit), file, &blob, heard)? }
    }
    cache.link(commit, &file.path, hash).map(|_| ())
}

/// Downloads until the file is whole, as often as something comes, then compares hashes.
fn bring(
    client: &Client<'_>,
    (name, commit): (&Name, &str),
    file: &RemoteFile,
    blob: &Path,
    heard: Heard<'_>,
) -> Result<(), HubError> {
    let partial = blob.with_file_name(format!("{}.incomplete", file.hash.text()));
    with_parent(&partial)?;
    let path: Vec<String> = file.path.split('/').map(escaped).collect();
    let url = format!("{}/{}{}/resolve/{commit}/{}", client.settings.endpoint, prefix(name), name.id, path.join("/"));
    let (mut hasher, mut done) = begun(&partial, file)?;
    heard(done);
    let mut idle = 0;
    while done < file.bytes {
        let before = done;
        match more(client, (name, &url), file, &partial, (&mut hasher, &mut done), heard) {
            Ok(()) => {}
            Err(error @ HubError::Unreachable { .. }) => {
                idle = if done > before { 1 } else { idle + 1 };
                if idle >= client.settings.tries {
                    return Err(error);
                }
                std::thread::sleep(client.settings.pause * 2u32.pow(idle - 1));
            }
            Err(error) => return Err(error),
        }
    }
    let found = hasher.hex();
    if found != file.hash.text() {
        let _ = fs::remove_file(&partial);
        let (name, file, expected) = (name.to_string(), file.path.clone(), file.hash.text().into());
        return Err(HubError::Corrupt { name, file, what: "hash", found, expected });
    }
    if file.bytes == 0 {
        File::create(&partial).map_err(|e| HubError::io(&partial, e))?;
    }
    let synced = File::open(&partial).and_then(|file| file.sync_all());
    synced.and_then(|()| fs::rename(&partial, blob)).map_err(|e| HubError::io(blob, e))
}

/// What an earlier attempt left, hashed; more than the file has is thrown away.
fn begun(partial: &Path, file: &RemoteFile) -> Result<(Hasher, u64), HubError> {
    let mut hasher = Hasher::of(file);
    let failed = |e| HubError::io(partial, e);
    let Ok(there) = fs::metadata(partial) else { return Ok((hasher, 0)) };
    if there.len() > file.bytes {
        fs::remove_file(partial).map_err(failed)?;
        return Ok((hasher, 0));
    }
    let mut reader = File::open(partial).map_err(failed)?.take(there.len());
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer).map_err(failed)? {
            0 => return Ok((hasher, there.len())),
            read => hasher.add(&buffer[..read]),
        }
    }
}

/// One request for what is missing, as far as it comes.
fn more(
    client: &Client<'_>,
    (name, url): (&Name, &str),
    file: &RemoteFile,
    partial: &Path,
    (hasher, done): (&mut Hasher, &mut u64),
    heard: Heard<'_>,
) -> Result<(), HubError> {
    let failed = |e| HubError::io(partial, e);
    let answer = client.ask(name, url, Sent::From(*done))?;
    let continues = *done > 0 && answer.status().as_u16() == 206;
    if !continues {
        (*hasher, *done) = (Hasher::of(file), 0);
    }
    let mut options = OpenOptions::new();
    let mut written =
        options.create(true).write(true).append(continues).truncate(!continues).open(partial).map_err(failed)?;
    let mut reader = answer.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = reader.read(&mut buffer).map_err(|error| cut(url, *done, file, &format!(": {error}")))?;
        if read == 0 {
            break;
        }
        *done += read as u64;
        if *done > file.bytes {
            drop(written);
            let _ = fs::remove_file(partial);
            let (found, expected) = (format!("more than {}", file.bytes), file.bytes.to_string());
            return Err(HubError::Corrupt {
                name: name.to_string(),
                file: file.path.clone(),
                what: "length",
                found,
                expected,
            });
        }
        written.write_all(&buffer[..read]).map_err(failed)?;
        hasher.add(&buffer[..read]);
        heard(read as u64);
    }
    if *done < file.bytes {
        return Err(cut(url, *done, file, ""));
    }
    Ok(())
}

fn cut(url: &str, done: u64, file: &RemoteFile, reason: &str) -> HubError {
    unreachable(url, &format!("the connection was cut after {done} of {} bytes{reason}", file.bytes))
}
