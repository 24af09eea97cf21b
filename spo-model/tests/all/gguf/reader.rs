//! A reader of GGUF that shares nothing with the writer.

use half::f16;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of a file and how far they are read.
pub struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

/// What is in a file.
pub struct File {
    pub metadata: BTreeMap<String, Value>,
    /// Shape (slowest dimension first), type and bytes from its offset on.
    pub tensors: BTreeMap<String, (Vec<usize>, u32, Vec<u8>)>,
}

impl Reader {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.bytes[self.at..self.at + N].try_into().unwrap();
        self.at += N;
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take()) as usize
    }

    fn string(&mut self) -> String {
        let length = self.u64();
        let text = String::from_utf8(self.bytes[self.at..self.at + length].to_vec()).unwrap();
        self.at += length;
        text
    }

    fn value(&mut self, kind: u32) -> Value {
        match kind {
            4 => self.u32().into(),
            5 => i32::from_le_bytes(self.take()).into(),
            6 => f64::from(f32::from_le_bytes(self.take())).into(),
            7 => (self.take::<1>()[0] != 0).into(),
            8 => self.string().into(),
            9 => {
                let (kind, length) = (self.u32(), self.u64());
                (0..length).map(|_| self.value(kind)).collect()
            }
            10 => self.u64().into(),
            other => panic!("kind {other}"),
        }
    }

    /// A file's bytes before its list of tensors.
    pub fn metadata(path: &Path) -> Vec<u8> {
        let mut reader = Self { bytes: std::fs::read(path).unwrap(), at: 8 };
        let (_, pairs) = (reader.u64(), reader.u64());
        for _ in 0..pairs {
            let (_, kind) = (reader.string(), reader.u32());
            reader.value(kind);
        }
        reader.bytes.truncate(reader.at);
        reader.bytes
    }

    pub fn file(path: &Path) -> File {
        let mut reader = Self { bytes: std::fs::read(path).unwrap(), at: 0 };
        assert_eq!(&reader.take::<4>(), b"GGUF");
        assert_eq!(reader.u32(), 3);
        let (tensors, pairs) = (reader.u64(), reader.u64());
        let mut metadata = BTreeMap::new();
        for _ in 0..pairs {
            let (key, kind) = (reader.string(), reader.u32());
            let value = reader.value(kind);
            assert!(metadata.insert(key.clone(), value).is_none(), "{key} twice");
        }
        let mut infos = vec![];
        for _ in 0..tensors {
            let (name, dimensions) = (reader.string(), reader.u32());
            let mut shape: Vec<usize> = (0..dimensions).map(|_| reader.u64()).collect();
            shape.reverse();
            infos.push((name, shape, reader.u32(), reader.u64()));
        }
        let data = reader.at.next_multiple_of(32);
        let tensors = infos.into_iter().map(|(name, shape, kind, offset)| {
            assert_eq!(offset % 32, 0, "{name}");
            (name, (shape, kind, reader.bytes[data + offset..].to_vec()))
        });
        File { metadata, tensors: tensors.collect() }
    }
}

impl File {
    pub fn values(&self, name: &str) -> Vec<f32> {
        let (shape, kind, bytes) = &self.tensors[name];
        let count: usize = shape.iter().product();
        match kind {
            0 => (0..count).map(|i| f32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap())).collect(),
            1 => (0..count).map(|i| f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()).collect(),
            8 => {
                let value = |i: usize| {
                    let block = &bytes[i / 32 * 34..];
                    f16::from_le_bytes([block[0], block[1]]).to_f32() * f32::from(block[2 + i % 32] as i8)
                };
                (0..count).map(value).collect()
            }
            other => panic!("type {other}"),
        }
    }
}
