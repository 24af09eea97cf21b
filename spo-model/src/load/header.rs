//! The check of a safetensors header, on bytes that may be anything. It needs nothing of this
//! crate, so that a fuzz target can include the file alone.

use safetensors::tensor::{Dtype, Metadata};
use safetensors::{SafeTensorError, SafeTensors};
use std::collections::HashMap;

/// Bytes of the longest header that is read: some 150,000 tensors. The format allows 100 MB, which
/// would let a damaged file take a gigabyte of memory before it is found out.
const LONGEST: u64 = 16 << 20;

/// Where the data of a safetensors file begins, and its tensors: each lies inside the file, none
/// overlaps another, and each has the bytes that its type and shape ask for.
pub fn read(file: &[u8]) -> Result<(usize, Metadata), String> {
    let Some((length, rest)) = file.split_first_chunk() else {
        return Err(format!("{} bytes are too few for a header", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST {
        return Err(format!("the header claims {length} bytes, more than the {LONGEST} that are read"));
    }
    if length > rest.len() as u64 {
        return Err(format!("the header claims {length} bytes, but only {} follow", rest.len()));
    }
    let (header, data) = rest.split_at(length as usize);
    match SafeTensors::read_metadata(file) {
        Ok((header, metadata)) => Ok((header + 8, metadata)),
        Err(error) => Err(explain(header, data.len() as u64).unwrap_or_else(|| describe(error))),
    }
}

/// A tensor as a damaged header may describe it.
#[derive(serde::Deserialize)]
struct Claim {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A header entry that may be a tensor or the free text under `__metadata__`.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Entry {
    Tensor(Claim),
    Other(serde::de::IgnoredAny),
}

/// The first tensor that is wrong, by offset, and what is wrong with it.
fn explain(header: &[u8], available: u64) -> Option<String> {
    let entries: HashMap<String, Entry> = serde_json::from_slice(header).ok()?;
    let mut claims = vec![];
    for (name, entry) in entries {
        match entry {
            Entry::Tensor(claim) => claims.push((name, claim)),
            Entry::Other(_) if name == "__metadata__" => {}
            Entry::Other(_) => return Some(format!("`{name}` is not a tensor with dtype, shape and data_offsets")),
        }
    }
    claims.sort_by_key(|(_, claim)| claim.data_offsets);
    let mut end = 0;
    for (name, claim) in &claims {
        if let Some(reason) = claim.fault(end, available) {
            return Some(format!("tensor `{name}`: {reason}"));
        }
        end = claim.data_offsets.1;
    }
    (end < available).then(|| format!("{} bytes of data follow the last tensor", available - end))
}

impl Claim {
    fn fault(&self, expected: u64, available: u64) -> Option<String> {
        let (start, end) = self.data_offsets;
        let dtype = serde_json::from_value::<Dtype>(self.dtype.as_str().into());
        let Ok(dtype) = dtype else { return Some(format!("`{}` is no type of the format", self.dtype)) };
        if end < start {
            return Some(format!("its data ends at {end}, before it starts at {start}"));
        }
        let elements = self.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        let bits = elements.and_then(|elements| elements.checked_mul(dtype.bitsize() as u64));
        let bytes = bits.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
        if bytes != Some(end - start) {
            let (shape, found) = (&self.shape, end - start);
            return Some(format!("shape {shape:?} of {} does not take the {found} bytes it has", self.dtype));
        }
        if end > available {
            return Some(format!("its data ends at {end}, but the file holds {available} bytes of data"));
        }
        match start.cmp(&expected) {
            std::cmp::Ordering::Less => Some(format!("its data starts at {start}, inside the tensor before it")),
            std::cmp::Ordering::Greater => Some(format!("{} bytes before it belong to no tensor", start - expected)),
            std::cmp::Ordering::Equal => None,
        }
    }
}

fn describe(error: SafeTensorError) -> String {
    match error {
        SafeTensorError::InvalidHeader(_) => "the header is not UTF-8".into(),
        SafeTensorError::InvalidHeaderDeserialization(reason) => format!("the header is not valid: {reason}"),
        other => other.to_string(),
    }
}
