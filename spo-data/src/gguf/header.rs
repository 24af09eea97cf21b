//! The header of a GGUF file, on bytes that may be anything.

use std::collections::BTreeMap;

use super::Fault;

/// Bytes of the least entry of the metadata: the length of an empty key, its type, and one byte.
const LEAST_PAIR: usize = 8 + 4 + 1;
/// Bytes of the least tensor: the length of an empty name, no dimensions, type and offset.
const LEAST_TENSOR: usize = 8 + 4 + 4 + 8;
/// Most dimensions of a tensor.
const DIMENSIONS: u32 = 4;
/// Where data begin if `general.alignment` does not say.
const ALIGNMENT: usize = 32;

/// What stands before the data.
#[derive(Debug)]
pub struct Header {
    /// Keys and values.
    pub metadata: BTreeMap<String, Value>,
    /// Names and places, in the order of the file.
    pub tensors: Vec<(String, Info)>,
    /// Where the data begin.
    pub data: usize,
}

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number of any width.
    Whole(i128),
    /// A number.
    Real(f64),
    /// A switch.
    Bool(bool),
    /// Text.
    Text(String),
    /// Values of one kind, read when they are asked for.
    List {
        /// The format's number of the kind.
        kind: u32,
        /// How many.
        count: usize,
        /// Where they begin in the file.
        start: usize,
    },
}

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The slowest dimension first.
    pub shape: Vec<usize>,
    /// The format's number of its type.
    pub kind: u32,
    /// From the beginning of the data.
    pub offset: usize,
}

/// What a file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Reads a header.
///
/// # Errors
/// Place and reason of what is wrong with it.
pub fn read_header(bytes: &[u8]) -> Result<Header, Fault> {
    let mut cursor = Cursor { bytes, at: 0 };
    let magic: [u8; 4] = cursor.array()?;
    if magic != MAGIC {
        return Err(cursor.fault(0, format!("found {:?}, expected GGUF", String::from_utf8_lossy(&magic))));
    }
    match cursor.u32()? {
        2 | 3 => {}
        1 => return Err(cursor.fault(4, "version 1, expected 2 or 3: convert the model again")),
        version if (2..=3).contains(&version.swap_bytes()) => {
            return Err(cursor.fault(4, "the file is big-endian, expected little-endian"));
        }
        version => return Err(cursor.fault(4, format!("version {version}, expected 2 or 3"))),
    }
    let tensors = cursor.count(LEAST_TENSOR, "tensors")?;
    let pairs = cursor.count(LEAST_PAIR, "keys")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..pairs {
        let at = cursor.at;
        let key = cursor.text()?.to_owned();
        let kind = cursor.u32()?;
        let value = cursor.value(kind).map_err(|(place, reason)| (place, format!("key `{key}`: {reason}")))?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.fault(at, format!("key `{key}` is there twice")));
        }
    }
    let alignment = alignment(&metadata)?;
    let tensors = (0..tensors).map(|_| cursor.tensor(alignment)).collect::<Result<_, _>>()?;
    let data = cursor.at.checked_next_multiple_of(alignment);
    let data = data.ok_or_else(|| cursor.fault(cursor.at, "the data begin nowhere"))?;
    Ok(Header { metadata, tensors, data })
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<usize, Fault> {
    match metadata.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(Value::Whole(by)) if (1..=1 << 20).contains(by) && (*by as usize).is_power_of_two() => Ok(*by as usize),
        Some(other) => Err(("key `general.alignment`".into(), format!("found {other:?}, expected a power of two"))),
    }
}

/// Reads little-endian values.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn fault(&self, at: usize, reason: impl Into<String>) -> Fault {
        (format!("byte {at}"), reason.into())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        let ends = || self.fault(self.at, format!("{count} bytes expected, but the file ends at {}", self.bytes.len()));
        let taken = taken.ok_or_else(ends)?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(*self.take(N)?.first_chunk().expect("as many were taken"))
    }

    pub fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> Result<usize, Fault> {
        let (at, size) = (self.at, u64::from_le_bytes(self.array()?));
        usize::try_from(size).map_err(|_| self.fault(at, format!("{size} is more than this machine can address")))
    }

    /// A number of things that take at least so many bytes each.
    fn count(&mut self, least: usize, what: &str) -> Result<usize, Fault> {
        let (at, count) = (self.at, self.size()?);
        let left = self.bytes.len() - self.at;
        match count.checked_mul(least).is_some_and(|bytes| bytes <= left) {
            true => Ok(count),
            false => Err(self.fault(at, format!("{count} {what} do not fit into the {left} bytes that follow"))),
        }
    }

    pub fn text(&mut self) -> Result<&'a str, Fault> {
        let length = self.count(1, "bytes of text")?;
        let at = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|_| self.fault(at, "the text is not UTF-8"))
    }

    /// A single value, or where a list is.
    fn value(&mut self, kind: u32) -> Result<Value, Fault> {
        if kind != LIST {
            return self.scalar(kind);
        }
        let (at, kind) = (self.at, self.u32()?);
        let Some(least) = least_bytes(kind) else {
            return Err(self.fault(at, format!("a list of values of type {kind}, expected 0 to 8 or 10 to 12")));
        };
        let count = self.count(least, "values")?;
        let start = self.at;
        if kind == TEXT {
            (0..count).try_for_each(|_| self.text().map(drop))?;
        } else {
            self.take(count * least)?;
        }
        Ok(Value::List { kind, count, start })
    }

    pub fn scalar(&mut self, kind: u32) -> Result<Value, Fault> {
        let at = self.at;
        Ok(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Whole(self.u32()?.into()),
            5 => Value::Whole(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Real(shortest(f32::from_le_bytes(self.array()?))),
            7 => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(self.fault(at, format!("found {other}, expected 0 or 1"))),
            },
            TEXT => Value::Text(self.text()?.to_owned()),
            10 => Value::Whole(u64::from_le_bytes(self.array()?).into()),
            11 => Value::Whole(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Real(f64::from_le_bytes(self.array()?)),
            _ => return Err(self.fault(at, format!("a value of type {kind}, expected 0 to 12"))),
        })
    }

    fn tensor(&mut self, alignment: usize) -> Result<(String, Info), Fault> {
        let name = self.text()?.to_owned();
        let within = |(place, reason): Fault| (format!("tensor `{name}`"), format!("{place}: {reason}"));
        let (at, dimensions) = (self.at, self.u32().map_err(within)?);
        if dimensions > DIMENSIONS {
            let reason = format!("{dimensions} dimensions, expected at most {DIMENSIONS}");
            return Err(within(self.fault(at, reason)));
        }
        let mut shape = (0..dimensions).map(|_| self.size()).collect::<Result<Vec<_>, _>>().map_err(within)?;
        // The dimension that varies fastest comes first in the file.
        shape.reverse();
        if shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size)).is_none() {
            return Err(within(self.fault(at, format!("shape {shape:?} has more values than can be counted"))));
        }
        let kind = self.u32().map_err(within)?;
        let (at, offset) = (self.at, self.size().map_err(within)?);
        if !offset.is_multiple_of(alignment) {
            return Err(within(self.fault(at, format!("begins at {offset}, expected a multiple of {alignment}"))));
        }
        Ok((name, Info { shape, kind, offset }))
    }
}

const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Bytes that a value of this kind has at least, if there is such a kind. Lists of lists are not read: no key has one.
fn least_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        TEXT | 10..=12 => Some(8),
        _ => None,
    }
}

/// The number that people wrote before it was rounded to 32 bits: 1e-5, not 9.999999747378752e-6.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}
