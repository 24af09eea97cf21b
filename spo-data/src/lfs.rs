//! Pointers of Git LFS: the text that stands for a large file in a repository.

/// How the text begins that stands for a large file in a Git repository.
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether bytes are not a file's own, but those of the text that stands for it in a Git repository.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS_POINTER)
}
