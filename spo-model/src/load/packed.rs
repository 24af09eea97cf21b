//! Weights of other programs' quantised checkpoints: GPTQ (arXiv 2210.17323; int32 words as AutoGPTQ and GPTQModel
//! store them), AWQ (arXiv 2306.00978; AutoAWQ's GEMM form), bitsandbytes' 4-bit code books (QLoRA, arXiv 2305.14314) and FP8
//! with a scale for each block (DeepSeek-V3, arXiv 2412.19437). Which one a matrix is in, the names beside it tell.

use crate::quant::packed::{
    Affine, Book, Fp8, Microscaling, Packed, Scales, StoredBlocks, bytes_on_cards, greatest_common_divisor,
};
use crate::quant::{Format, float};
use safetensors::Dtype;
use serde::Deserialize;

/// A tensor as the file has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

/// A matrix `[out, in]` in its blocks.
#[derive(Debug)]
pub(super) struct Found {
    pub matrix: Packed,
    /// The type that its scales ask for: one of the three of weights.
    pub dtype: Dtype,
    /// Names of the tensors that it was made of.
    pub used: Vec<String>,
}

/// What is wrong with a packed matrix.
#[derive(Debug)]
pub(super) enum Fault {
    /// A tensor of another shape.
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    /// Anything else.
    Other { name: String, reason: String },
}

/// Rows and columns of a block of FP8 with one scale.
const FP8_BLOCK: usize = 128;
/// Values of MXFP4 that share a scale.
const MX_BLOCK: usize = 32;
/// Columns that the nibbles of an AWQ word are of, from the lowest bits up.
const AWQ_COLUMNS: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// The tensors of a file by name.
pub(super) struct Files<'f, 'a>(pub &'f dyn Fn(&str) -> Option<Raw<'a>>);

/// The matrix `[out, in]` that the file calls `name`, which ends in `.weight`; `None` where it is not packed.
pub(super) fn read(files: &Files, name: &str, [out, inputs]: [usize; 2]) -> Result<Option<Found>, Fault> {
    let base = name.strip_suffix(".weight").unwrap_or(name);
    let there = |part: &str| (files.0)(&format!("{base}.{part}"));
    if let Some(words) = there("qweight") {
        let along_outputs = words.shape == [inputs, out / 8] && there("g_idx").is_none();
        let read = if along_outputs { awq } else { gptq };
        return read(files, base, [out, inputs]).map(Some);
    }
    if there("weight_scale_inv").is_some() {
        return fp8(files, base, [out, inputs]).map(Some);
    }
    for book in ["nf4", "fp4"] {
        let state = format!("{name}.quant_state.bitsandbytes__{book}");
        if (files.0)(&state).is_some() {
            return code_book(files, name, &state, [out, inputs]).map(Some);
        }
    }
    Ok(None)
}

impl<'a> Files<'_, 'a> {
    fn get(&self, name: &str, dtypes: &[Dtype]) -> Result<Raw<'a>, Fault> {
        let other = |reason: String| Fault::Other { name: name.into(), reason };
        let raw = (self.0)(name).ok_or_else(|| other("missing beside the packed weight".into()))?;
        match dtypes.contains(&raw.dtype) {
            true => Ok(raw),
            false => Err(other(format!("of type {:?}, expected {dtypes:?}", raw.dtype))),
        }
    }

    fn shaped(&self, name: &str, dtypes: &[Dtype], expected: &[usize]) -> Result<Raw<'a>, Fault> {
        let raw = self.get(name, dtypes)?;
        match raw.shape == expected {
            true => Ok(raw),
            false => Err(Fault::Shape { name: name.into(), found: raw.shape.into(), expected: expected.into() }),
        }
    }
}

impl Raw<'_> {
    fn words(&self) -> Vec<u32> {
        self.bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    fn floats(&self) -> Vec<f32> {
        let halves = || self.bytes.as_chunks::<2>().0.iter();
        match self.dtype {
            Dtype::F16 => halves().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
            Dtype::BF16 => halves().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect(),
            _ => self.words().into_iter().map(f32::from_bits).collect(),
        }
    }
}

/// Refuses a matrix whose sides do not fill words.
fn whole_words(name: &str, side: usize, pack: usize) -> Result<(), Fault> {
    match side.is_multiple_of(pack) {
        true => Ok(()),
        false => Err(Fault::Other { name: name.into(), reason: format!("{side} values do not fill words of {pack}") }),
    }
}

const FLOATS: &[Dtype] = &[Dtype::F16, Dtype::BF16, Dtype::F32];

/// Scales `[out, groups]` of words, which the file stores the other way round, with the number of groups.
fn group_scales(files: &Files, base: &str, [out, inputs]: [usize; 2]) -> Result<(Vec<f32>, usize, Dtype), Fault> {
    let name = format!("{base}.scales");
    let scales = files.get(&name, FLOATS)?;
    let groups = scales.shape.first().copied().unwrap_or(0);
    if scales.shape != [groups, out] || groups == 0 || !inputs.is_multiple_of(groups) {
        return Err(Fault::Shape { name, found: scales.shape.into(), expected: vec![groups.max(1), out] });
    }
    Ok((transposed(&scales.floats(), out), groups, scales.dtype))
}

/// `[rows, columns]` → `[columns, rows]`
fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

/// `w = s (q − z)` with the zero point `z` stored less one; `g_idx` says which group an input is of.
fn gptq(files: &Files, base: &str, [out, inputs]: [usize; 2]) -> Result<Found, Fault> {
    let [qweight, qzeros, g_idx] = ["qweight", "qzeros", "g_idx"].map(|part| format!("{base}.{part}"));
    let words = files.get(&qweight, &[Dtype::I32, Dtype::U32])?;
    let bits = words.shape.first().map_or(0, |rows| rows.saturating_mul(32) / inputs.max(1));
    if ![2, 4, 8].contains(&bits) {
        let reason = format!("{bits} bits a value, expected 2, 4 or 8 (shape {:?} for {inputs} inputs)", words.shape);
        return Err(Fault::Other { name: qweight, reason });
    }
    let pack = 32 / bits;
    whole_words(&qweight, inputs, pack)?;
    whole_words(&qzeros, out, pack)?;
    let words = files.shaped(&qweight, &[Dtype::I32, Dtype::U32], &[inputs / pack, out])?.words();
    let (scales, groups, dtype) = group_scales(files, base, [out, inputs])?;
    let of_zeros = files.shaped(&qzeros, &[Dtype::I32, Dtype::U32], &[groups, out / pack])?.words();
    let mut used = vec![qweight, qzeros, format!("{base}.scales")];
    let group_of = match (files.0)(&g_idx) {
        Some(_) => {
            let indices = files.shaped(&g_idx, &[Dtype::I32], &[inputs])?.words();
            if let Some(wrong) = indices.iter().find(|index| **index as usize >= groups) {
                let reason = format!("it names the group {}, and there are {groups}", wrong.cast_signed());
                return Err(Fault::Other { name: g_idx, reason });
            }
            used.push(g_idx);
            let in_order = |(input, group): (usize, &u32)| input / (inputs / groups) == *group as usize;
            (!indices.iter().enumerate().all(in_order)).then_some(indices)
        }
        None => None,
    };
    let mask = (1u32 << bits) - 1;
    let zero = |(row, group): (usize, usize)| {
        let word = of_zeros[group * (out / pack) + row / pack];
        ((word >> (bits * (row % pack))).wrapping_add(1) & mask) as u8
    };
    let zeros = (0..out).flat_map(|row| (0..groups).map(move |group| (row, group))).map(zero).collect();
    let words = transposed(&words, out);
    let matrix = Packed::Affine(Affine { dims: [out, inputs], bits, words, scales, zeros, group_of });
    Ok(Found { matrix, dtype, used })
}

/// `w = s (q − z)` of 4 bits, eight columns to a word in an order of their own.
fn awq(files: &Files, base: &str, [out, inputs]: [usize; 2]) -> Result<Found, Fault> {
    let used = ["qweight", "qzeros", "scales"].map(|part| format!("{base}.{part}"));
    whole_words(&used[0], out, 8)?;
    let (scales, groups, dtype) = group_scales(files, base, [out, inputs])?;
    let dtypes = &[Dtype::I32, Dtype::U32];
    let of_codes = files.shaped(&used[0], dtypes, &[inputs, out / 8])?.words();
    let of_zeros = files.shaped(&used[1], dtypes, &[groups, out / 8])?.words();
    let nibble_of: Vec<usize> =
        (0..8).map(|column| AWQ_COLUMNS.iter().position(|of| *of == column).expect("every column")).collect();
    let part =
        |words: &[u32], line: usize, row: usize| words[line * (out / 8) + row / 8] >> (4 * nibble_of[row % 8]) & 15;
    let zeros = (0..out).flat_map(|row| (0..groups).map(move |group| (row, group)));
    let zeros = zeros.map(|(row, group)| part(&of_zeros, group, row) as u8).collect();
    let width = Affine::words_of_row(inputs, 4);
    let mut words = vec![0; out * width];
    for row in 0..out {
        for input in 0..inputs {
            words[row * width + input / 8] |= part(&of_codes, input, row) << (4 * (input % 8));
        }
    }
    let matrix = Packed::Affine(Affine { dims: [out, inputs], bits: 4, words, scales, zeros, group_of: None });
    Ok(Found { matrix, dtype, used: used.into() })
}

/// E4M3 times the scale of its block.
fn fp8(files: &Files, base: &str, [out, inputs]: [usize; 2]) -> Result<Found, Fault> {
    let used = ["weight", "weight_scale_inv"].map(|part| format!("{base}.{part}"));
    let codes = files.shaped(&used[0], &[Dtype::F8_E4M3], &[out, inputs])?.bytes.to_vec();
    let blocks = [out.div_ceil(FP8_BLOCK), inputs.div_ceil(FP8_BLOCK)];
    let scales = files.shaped(&used[1], FLOATS, &blocks)?.floats();
    Ok(Found { matrix: Packed::Fp8(Fp8 { dims: [out, inputs], codes, scales }), dtype: Dtype::BF16, used: used.into() })
}

/// What bitsandbytes keeps beside a matrix as JSON.
#[derive(Debug, Deserialize)]
struct State {
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// Codes of 4 bits, the higher ones first, that a book turns into numbers, times the scale of their block; scales may be codes
/// of 8 bits themselves, with a book, scales and an offset.
fn code_book(files: &Files, name: &str, state_name: &str, [out, inputs]: [usize; 2]) -> Result<Found, Fault> {
    let part = |part: &str| format!("{name}.{part}");
    let state = files.get(state_name, &[Dtype::U8])?;
    let fault = |reason: String| Fault::Other { name: state_name.into(), reason };
    let state: State = serde_json::from_slice(state.bytes).map_err(|error| fault(error.to_string()))?;
    if state.shape != [out, inputs] {
        return Err(Fault::Shape { name: name.into(), found: state.shape, expected: vec![out, inputs] });
    }
    let count = out * inputs;
    if state.blocksize == 0 || !count.is_multiple_of(2) {
        return Err(fault(format!("blocks of {} values in {count}", state.blocksize)));
    }
    let codes = files.get(name, &[Dtype::U8])?;
    if codes.bytes.len() != count / 2 {
        return Err(Fault::Shape { name: name.into(), found: codes.shape.into(), expected: vec![count / 2, 1] });
    }
    let book = files.shaped(&part("quant_map"), &[Dtype::F32], &[16])?.floats();
    let book = book.try_into().expect("its shape was looked at");
    let blocks = count.div_ceil(state.blocksize);
    let mut used = vec![name.to_owned(), state_name.to_owned(), part("quant_map"), part("absmax")];
    let scales = match state.nested_blocksize {
        None => Scales::Plain(files.shaped(&part("absmax"), &[Dtype::F32], &[blocks])?.floats()),
        Some(nested) => {
            let nested = nested.max(1);
            let of = files.shaped(&part("nested_absmax"), &[Dtype::F32], &[blocks.div_ceil(nested)])?.floats();
            let book = files.shaped(&part("nested_quant_map"), &[Dtype::F32], &[256])?.floats();
            let codes = files.shaped(&part("absmax"), &[Dtype::U8], &[blocks])?.bytes.to_vec();
            used.extend([part("nested_absmax"), part("nested_quant_map")]);
            Scales::Nested { codes, book, of, nested, offset: state.nested_offset.unwrap_or(0.0) }
        }
    };
    let dtype = match state.dtype.as_str() {
        "bfloat16" => Dtype::BF16,
        "float32" => Dtype::F32,
        _ => Dtype::F16,
    };
    let codes = codes.bytes.to_vec();
    let matrix = Packed::Book(Book { dims: [out, inputs], codes, book, block: state.blocksize, scales });
    Ok(Found { matrix, dtype, used })
}

/// The part of a weight `[out, in]` of all experts that is stored in MXFP4 as `{name}_blocks` and `{name}_scales`.
pub(super) fn read_mxfp4(
    files: &Files,
    name: &str,
    part: usize,
    [out, inputs]: [usize; 2],
) -> Result<Option<Found>, Fault> {
    let used = ["blocks", "scales"].map(|part| format!("{name}_{part}"));
    let of = |name: &str| (files.0)(name).filter(|raw| raw.dtype == Dtype::U8);
    let Some((codes, scales)) = of(&used[0]).zip(of(&used[1])) else { return Ok(None) };
    for (name, raw, last) in [(&used[0], codes, Some(MX_BLOCK / 2)), (&used[1], scales, None)] {
        let count = raw.shape.first().copied().unwrap_or_default().max(part + 1);
        let expected: Vec<usize> = [count, out, inputs / MX_BLOCK].into_iter().chain(last).collect();
        if *raw.shape != *expected || !inputs.is_multiple_of(MX_BLOCK) {
            return Err(Fault::Shape { name: name.clone(), found: raw.shape.into(), expected });
        }
    }
    let part_of = |bytes: &[u8], each: usize| {
        let size = out * (inputs / MX_BLOCK) * each;
        bytes[part * size..(part + 1) * size].to_vec()
    };
    let (codes, scales) = (part_of(codes.bytes, MX_BLOCK / 2), part_of(scales.bytes, 1));
    let matrix = Packed::Microscaling(Microscaling { dims: [out, inputs], codes, scales });
    Ok(Some(Found { matrix, dtype: Dtype::BF16, used: used.into() }))
}

/// Bytes of the matrix called `name` in its blocks, by the shapes of its parts, and what they are called; `None` where it
/// is not packed.
pub(super) fn size(files: &Files, name: &str, dims: [usize; 2]) -> Option<StoredBlocks> {
    let ([out, inputs], base) = (dims, name.strip_suffix(".weight").unwrap_or(name));
    let length = |name: String| (files.0)(&name).map(|raw| raw.bytes.len());
    let count = |name: String| (files.0)(&name).map_or(0, |raw| raw.shape.iter().product::<usize>());
    if let Some(words) = (files.0)(&format!("{base}.qweight")) {
        let awq = words.shape == [inputs, out / 8] && length(format!("{base}.g_idx")).is_none();
        let (bits, scales) = (8 * words.bytes.len() / (out * inputs).max(1), count(format!("{base}.scales")));
        return Some(StoredBlocks {
            // Scales as f32, zero points in a byte.
            bytes: words.bytes.len() + 5 * scales,
            on_card: Some(bytes_on_cards(dims, bits, out * inputs / scales.max(1), true)),
            kind: if awq { "AWQ" } else { "GPTQ" },
        });
    }
    if length(format!("{base}.weight_scale_inv")).is_some() {
        let bytes = out * inputs + 4 * count(format!("{base}.weight_scale_inv"));
        return Some(StoredBlocks { bytes, on_card: Some(bytes_on_cards(dims, 8, FP8_BLOCK, false)), kind: "FP8" });
    }
    let scales = length(format!("{name}.absmax"))?;
    let more = ["quant_map", "nested_absmax", "nested_quant_map"];
    let more: usize = more.iter().filter_map(|part| length(format!("{name}.{part}"))).sum();
    // Powers of two, the last of which may be cut short.
    let block = (out * inputs / count(format!("{name}.absmax")).max(1)).next_power_of_two();
    let block = greatest_common_divisor(inputs, block);
    Some(StoredBlocks {
        bytes: out * inputs / 2 + scales + more,
        on_card: Some(bytes_on_cards(dims, 4, block, false)),
        kind: "4-bit code book",
    })
}

/// The matrix `[out, in]` of 16-bit floats that the file calls `name`: their format and bytes.
pub(super) fn halves<'a>(files: &Files<'_, 'a>, name: &str, shape: [usize; 2]) -> Option<(&'static Format, &'a [u8])> {
    let raw = (files.0)(name).filter(|raw| *raw.shape == shape)?;
    let format = match raw.dtype {
        Dtype::BF16 => &float::BF16,
        Dtype::F16 => &float::F16,
        _ => return None,
    };
    Some((format, raw.bytes))
}

/// As [`size`], of a part of a weight in MXFP4.
pub(super) fn mxfp4_size(files: &Files, name: &str, dims: [usize; 2]) -> Option<StoredBlocks> {
    let bytes = dims[0] * dims[1] / MX_BLOCK * (MX_BLOCK / 2 + 1);
    let on_card = Some(bytes_on_cards(dims, 4, MX_BLOCK, false));
    (files.0)(&format!("{name}_blocks")).map(|_| StoredBlocks { bytes, on_card, kind: "MXFP4" })
}
