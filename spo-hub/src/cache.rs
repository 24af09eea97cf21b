//! The cache's layout, which `huggingface_hub` of Python has too: blobs by hash, links to them by commit and file name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::{HubError, Name};

/// The part of the cache that one repository has.
pub(crate) struct Cache {
    root: PathBuf,
    folder: String,
}

impl Cache {
    pub fn new(root: &Path, name: &Name) -> Self {
        let folder = format!("{}--{}", name.kind.plural(), name.id.replace('/', "--"));
        Self { root: root.into(), folder }
    }

    fn dir(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    pub fn blob(&self, hash: &str) -> PathBuf {
        self.dir().join("blobs").join(hash)
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir().join("snapshots").join(commit)
    }

    /// The commit that a revision was when it was last asked for.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return self.snapshot(revision).is_dir().then(|| revision.into());
        }
        let commit = fs::read_to_string(self.dir().join("refs").join(revision)).ok()?.trim().to_owned();
        (is_commit(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    pub fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.dir().join("refs").join(revision);
        with_parent(&path)?;
        fs::write(&path, commit).map_err(|e| HubError::io(&path, e))
    }

    /// Waits until no other process downloads this blob.
    pub fn lock(&self, hash: &str) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{hash}.lock"));
        with_parent(&path)?;
        let file = File::create(&path).map_err(|e| HubError::io(&path, e))?;
        file.lock().map_err(|e| HubError::io(&path, e))?;
        Ok(file)
    }

    /// Puts a blob at its file's name below a commit. Returns where.
    pub fn link(&self, commit: &str, file: &str, hash: &str) -> Result<PathBuf, HubError> {
        let path = self.snapshot(commit).join(file);
        if path.exists() {
            return Ok(path);
        }
        with_parent(&path)?;
        // What is left here is a link to a blob that is gone.
        let _ = fs::remove_file(&path);
        let up = "../".repeat(2 + file.matches('/').count());
        place(&Path::new(&up).join("blobs").join(hash), &self.blob(hash), &path).map_err(|e| HubError::io(&path, e))?;
        Ok(path)
    }

    /// All files of a snapshot, as paths inside the repository, sorted.
    pub fn files(&self, commit: &str) -> Vec<String> {
        let (root, mut found) = (self.snapshot(commit), vec![]);
        let mut open = vec![root.clone()];
        while let Some(dir) = open.pop() {
            for path in fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
                match path.is_dir() {
                    true => open.push(path),
                    false => {
                        found.extend(path.strip_prefix(&root).map(|path| path.to_string_lossy().replace('\\', "/")))
                    }
                }
            }
        }
        found.sort();
        found
    }
}

#[cfg(unix)]
fn place(target: &Path, _: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links need a right of their own there.
#[cfg(not(unix))]
fn place(_: &Path, blob: &Path, path: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(|_| ()))
}

pub(crate) fn with_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|e| HubError::io(parent, e))
}

pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
