//! Token ids, in memory or in a mapped file.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Error, ErrorKind, Write};
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};
use serde::{Serialize, Serializer};

/// Token ids that read as a slice, wherever they are.
///
/// The ids of a large dataset lie in a mapped file, so that the system can give their memory to others.
#[derive(Clone)]
pub struct Tokens(Place);

#[derive(Clone)]
enum Place {
    /// Shared among the copies of a row.
    Memory(Arc<[u32]>),
    /// Bytes of a file, little-endian.
    Mapped { map: Arc<Mmap>, bytes: Range<usize> },
}

impl Tokens {
    /// The ids.
    pub fn as_slice(&self) -> &[u32] {
        self
    }

    /// Ids `start..start + len` of those that begin at a byte of a map; `None` where there are not so many, or they do
    /// not begin at a multiple of 4.
    pub(crate) fn mapped(map: &Arc<Mmap>, first_byte: usize, start: usize, len: usize) -> Option<Self> {
        let from = first_byte.checked_add(start.checked_mul(4)?)?;
        let bytes = from..from.checked_add(len.checked_mul(4)?)?;
        let ids = bytemuck::try_cast_slice::<u8, u32>(map.get(bytes.clone())?).ok()?;
        Some(match cfg!(target_endian = "little") {
            true => Self(Place::Mapped { map: map.clone(), bytes }),
            false => ids.iter().map(|id| u32::from_le(*id)).collect(),
        })
    }

    pub(crate) fn write(&self, writer: &mut impl Write) -> Result<(), Error> {
        self.iter().try_for_each(|id| writer.write_all(&id.to_le_bytes()))
    }
}

impl Deref for Tokens {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.0 {
            Place::Memory(ids) => ids,
            Place::Mapped { map, bytes } => bytemuck::cast_slice(&map[bytes.clone()]),
        }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self(Place::Memory(Arc::default()))
    }
}

impl From<Vec<u32>> for Tokens {
    fn from(ids: Vec<u32>) -> Self {
        Self(Place::Memory(ids.into()))
    }
}

impl<const N: usize> From<[u32; N]> for Tokens {
    fn from(ids: [u32; N]) -> Self {
        Self(Place::Memory(ids.into()))
    }
}

impl From<&[u32]> for Tokens {
    fn from(ids: &[u32]) -> Self {
        Self(Place::Memory(ids.into()))
    }
}

impl FromIterator<u32> for Tokens {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        Self(Place::Memory(ids.into_iter().collect()))
    }
}

impl<'a> IntoIterator for &'a Tokens {
    type Item = &'a u32;
    type IntoIter = std::slice::Iter<'a, u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: AsRef<[u32]> + ?Sized> PartialEq<T> for Tokens {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Tokens {}

impl PartialOrd for Tokens {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tokens {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl AsRef<[u32]> for Tokens {
    fn as_ref(&self) -> &[u32] {
        self
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

/// A file without a name that takes the ids of examples out of memory; it is gone with the last of them.
pub(crate) struct TokenFile {
    file: File,
    /// Ids written so far.
    written: usize,
}

impl TokenFile {
    /// In the system's directory of temporary files (`TMPDIR`).
    pub(crate) fn create() -> Result<Self, Error> {
        Ok(Self { file: tempfile::tempfile()?, written: 0 })
    }

    /// Writes these ids and maps them in place of their memory.
    pub(crate) fn take(&mut self, mut ids: Vec<&mut Tokens>) -> Result<(), Error> {
        let first = self.written;
        let mut writer = BufWriter::new(&self.file);
        let mut count = 0;
        for tokens in &ids {
            tokens.write(&mut writer)?;
            count += tokens.len();
        }
        writer.flush()?;
        drop(writer);
        self.written += count;
        if count == 0 {
            return Ok(());
        }
        // SAFETY: nobody else can open the file, and what is written is not written again.
        let map = unsafe { MmapOptions::new().offset(4 * first as u64).len(4 * count).map(&self.file)? };
        let map = Arc::new(map);
        let mut start = 0;
        for tokens in &mut ids {
            let len = tokens.len();
            **tokens = Tokens::mapped(&map, 0, start, len).ok_or(ErrorKind::UnexpectedEof)?;
            start += len;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn mapped_ids_equal_those_in_memory() {
        let ids: [&[u32]; 5] = [&[1, 2, 3], &[3, 2, 1], &[], &[], &[u32::MAX; 5000]];
        let in_memory = ids.map(Tokens::from);
        let mut tokens = in_memory.clone();
        let mut file = TokenFile::create().unwrap();
        file.take(tokens[..2].iter_mut().collect()).unwrap();
        file.take(tokens[2..4].iter_mut().collect()).unwrap();
        file.take(tokens[4..].iter_mut().collect()).unwrap();
        assert_eq!(tokens, in_memory);
        assert!(matches!(tokens[4].0, Place::Mapped { .. }));
        drop(file);
        assert_eq!(tokens, in_memory, "the map outlives its file");
        assert_eq!(in_memory[0], [1, 2, 3]);
        assert!(in_memory[2] < in_memory[0]);
    }
}
