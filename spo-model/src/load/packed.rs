//! Weights of other programs' quantised checkpoints, as numbers: GPTQ (arXiv 2210.17323; int32 words as AutoGPTQ and GPTQModel
//! store them), AWQ (arXiv 2306.00978; AutoAWQ's GEMM form), bitsandbytes' 4-bit code books (QLoRA, arXiv 2305.14314) and FP8
//! with a scale for each block (DeepSeek-V3, arXiv 2412.19437). Which one a matrix is in, the names beside it tell.

use super::Storage;
use safetensors::Dtype;
use serde::Deserialize;

/// A tensor as the file has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

/// A matrix `[out, in]`, row by row.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub values: Vec<f32>,
    /// The type that its scales ask for.
    pub storage: Storage,
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
/// Columns that the nibbles of an AWQ word are of, from the lowest bits up.
const AWQ_COLUMNS: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// The tensors of a file by name.
pub(super) struct Files<'f, 'a>(pub &'f dyn Fn(&str) -> Option<Raw<'a>>);

/// The matrix `[out, in]` that the file calls `name`, which ends in `.weight`; `None` where it is not packed.
pub(super) fn read(files: &Files, name: &str, [out, inputs]: [usize; 2]) -> Result<Option<Unpacked>, Fault> {
    let base = name.strip_suffix(".weight").unwrap_or(name);
    let there = |part: &str| (files.0)(&format!("{base}.{part}"));
    if let Some(words) = there("qweight") {
        let awq = words.shape == [inputs, out / 8] && there("g_idx").is_none();
        let read = if awq { awq_values } else { gptq_values };
        return read(files, base, [out, inputs]).map(Some);
    }
    if there("weight_scale_inv").is_some() {
        return fp8_values(files, base, [out, inputs]).map(Some);
    }
    for book in ["nf4", "fp4"] {
        let state = format!("{name}.quant_state.bitsandbytes__{book}");
        if (files.0)(&state).is_some() {
            return book_values(files, name, &state, [out, inputs]).map(Some);
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

/// Scales `[groups, out]` of words, with the number of groups.
fn group_scales(files: &Files, base: &str, [out, inputs]: [usize; 2]) -> Result<(Vec<f32>, usize, Storage), Fault> {
    let name = format!("{base}.scales");
    let scales = files.get(&name, FLOATS)?;
    let groups = scales.shape.first().copied().unwrap_or(0);
    if scales.shape != [groups, out] || groups == 0 || !inputs.is_multiple_of(groups) {
        return Err(Fault::Shape { name, found: scales.shape.into(), expected: vec![groups.max(1), out] });
    }
    let storage = Storage::of_file(scales.dtype).unwrap_or(Storage::F16);
    Ok((scales.floats(), groups, storage))
}

/// `w = s (q − z)` with the zero point `z` stored less one; `g_idx` says which group an input is of.
fn gptq_values(files: &Files, base: &str, [out, inputs]: [usize; 2]) -> Result<Unpacked, Fault> {
    let [qweight, qzeros, g_idx] = ["qweight", "qzeros", "g_idx"].map(|part| format!("{base}.{part}"));
    let words = files.get(&qweight, &[Dtype::I32, Dtype::U32])?;
    let bits = words.shape.first().map_or(0, |rows| 32 * rows / inputs);
    if ![2, 4, 8].contains(&bits) {
        let reason = format!("{bits} bits a value, expected 2, 4 or 8 (shape {:?} for {inputs} inputs)", words.shape);
        return Err(Fault::Other { name: qweight, reason });
    }
    let pack = 32 / bits;
    whole_words(&qweight, inputs, pack)?;
    whole_words(&qzeros, out, pack)?;
    let words = files.shaped(&qweight, &[Dtype::I32, Dtype::U32], &[inputs / pack, out])?.words();
    let (scales, groups, storage) = group_scales(files, base, [out, inputs])?;
    let zeros = files.shaped(&qzeros, &[Dtype::I32, Dtype::U32], &[groups, out / pack])?.words();
    let mut used = vec![qweight, qzeros, format!("{base}.scales")];
    let group_of: Vec<usize> = match (files.0)(&g_idx) {
        Some(_) => {
            let indices = files.shaped(&g_idx, &[Dtype::I32], &[inputs])?.words();
            if let Some(wrong) = indices.iter().find(|index| **index as usize >= groups) {
                let reason = format!("it names the group {}, and there are {groups}", wrong.cast_signed());
                return Err(Fault::Other { name: g_idx, reason });
            }
            used.push(g_idx);
            indices.into_iter().map(|index| index as usize).collect()
        }
        None => (0..inputs).map(|input| input / (inputs / groups)).collect(),
    };
    let mask = (1u32 << bits) - 1;
    let part = |words: &[u32], at: usize, place: usize| words[at] >> (bits * (place % pack)) & mask;
    let value = |row: usize, input: usize| {
        let group = group_of[input];
        let zero = part(&zeros, group * (out / pack) + row / pack, row).wrapping_add(1) & mask;
        let code = part(&words, input / pack * out + row, input);
        scales[group * out + row] * (code as f32 - zero as f32)
    };
    let values = (0..out * inputs).map(|index| value(index / inputs, index % inputs)).collect();
    Ok(Unpacked { values, storage, used })
}

/// `w = s (q − z)` of 4 bits, eight columns to a word in an order of their own.
fn awq_values(files: &Files, base: &str, [out, inputs]: [usize; 2]) -> Result<Unpacked, Fault> {
    let used = ["qweight", "qzeros", "scales"].map(|part| format!("{base}.{part}"));
    whole_words(&used[0], out, 8)?;
    let (scales, groups, storage) = group_scales(files, base, [out, inputs])?;
    let dtypes = &[Dtype::I32, Dtype::U32];
    let words = files.shaped(&used[0], dtypes, &[inputs, out / 8])?.words();
    let zeros = files.shaped(&used[1], dtypes, &[groups, out / 8])?.words();
    let nibble_of: Vec<usize> =
        (0..8).map(|column| AWQ_COLUMNS.iter().position(|of| *of == column).expect("every column")).collect();
    let part =
        |words: &[u32], line: usize, row: usize| words[line * (out / 8) + row / 8] >> (4 * nibble_of[row % 8]) & 15;
    let value = |row: usize, input: usize| {
        let group = input / (inputs / groups);
        (part(&words, input, row) as f32 - part(&zeros, group, row) as f32) * scales[group * out + row]
    };
    let values = (0..out * inputs).map(|index| value(index / inputs, index % inputs)).collect();
    Ok(Unpacked { values, storage, used: used.into() })
}

/// E4M3 times the scale of its block.
fn fp8_values(files: &Files, base: &str, [out, inputs]: [usize; 2]) -> Result<Unpacked, Fault> {
    let used = ["weight", "weight_scale_inv"].map(|part| format!("{base}.{part}"));
    let codes = files.shaped(&used[0], &[Dtype::F8_E4M3], &[out, inputs])?;
    let columns = inputs.div_ceil(FP8_BLOCK);
    let scales = files.shaped(&used[1], FLOATS, &[out.div_ceil(FP8_BLOCK), columns])?.floats();
    let scale = |row: usize, input: usize| scales[row / FP8_BLOCK * columns + input / FP8_BLOCK];
    let value = |(index, code): (usize, &u8)| e4m3(*code) * scale(index / inputs, index % inputs);
    let values = codes.bytes.iter().enumerate().map(value).collect();
    Ok(Unpacked { values, storage: Storage::Bf16, used: used.into() })
}

/// The number of a code of E4M3 without infinities (OCP 8-bit floating point, 1.0).
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * f32::powi(2.0, exponent - 7),
    };
    if code & 128 == 0 { size } else { -size }
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
fn book_values(files: &Files, name: &str, state_name: &str, [out, inputs]: [usize; 2]) -> Result<Unpacked, Fault> {
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
    let blocks = count.div_ceil(state.blocksize);
    let mut used = vec![name.to_owned(), state_name.to_owned(), part("quant_map"), part("absmax")];
    let scales = match state.nested_blocksize {
        None => files.shaped(&part("absmax"), &[Dtype::F32], &[blocks])?.floats(),
        Some(nested) => {
            let nested = nested.max(1);
            let of_scales = files.shaped(&part("nested_absmax"), &[Dtype::F32], &[blocks.div_ceil(nested)])?.floats();
            let of_codes = files.shaped(&part("nested_quant_map"), &[Dtype::F32], &[256])?.floats();
            let codes = files.shaped(&part("absmax"), &[Dtype::U8], &[blocks])?.bytes;
            used.extend([part("nested_absmax"), part("nested_quant_map")]);
            let offset = state.nested_offset.unwrap_or(0.0);
            let scale = |(index, code): (usize, &u8)| of_codes[usize::from(*code)] * of_scales[index / nested] + offset;
            codes.iter().enumerate().map(scale).collect()
        }
    };
    let code = |index: usize| codes.bytes[index / 2] >> (4 * (1 - index % 2)) & 15;
    let values = (0..count).map(|index| book[usize::from(code(index))] * scales[index / state.blocksize]).collect();
    let storage = match state.dtype.as_str() {
        "bfloat16" => Storage::Bf16,
        "float32" => Storage::F32,
        _ => Storage::F16,
    };
    Ok(Unpacked { values, storage, used })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_has_the_values_of_its_standard() {
        for (code, value) in
            [(0x00, 0.0), (0x01, 1.0 / 512.0), (0x08, 1.0 / 64.0), (0x38, 1.0), (0x7e, 448.0), (0xc0, -2.0)]
        {
            assert_eq!(e4m3(code), value, "{code:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }
}
