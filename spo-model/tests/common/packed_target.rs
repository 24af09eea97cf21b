//! What is fuzzed: quantised weights of any bytes must end in numbers or an error. `fuzz/` and the smoke test both run this,
//! and include the parts of the crate that it needs beside it.

use crate::quant::FORMATS;
use crate::quant::packed::{BlockRows, Packed};
use crate::{header, packed};

/// The first byte chooses between a checkpoint and blocks of GGUF.
pub fn packed(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, rest)) => checkpoint(rest),
        Some((_, rest)) => blocks(rest),
        None => {}
    }
}

/// Two 16-bit numbers are the shape `[out, in]` that a model has, the rest is a safetensors file: every name in it is tried.
fn checkpoint(bytes: &[u8]) {
    let Some((shape, file)) = bytes.split_first_chunk::<4>() else { return };
    let side = |low: u8, high: u8| usize::from(u16::from_le_bytes([low, high])) % 513;
    let shape = [side(shape[0], shape[1]), side(shape[2], shape[3])];
    let Ok((start, metadata)) = header::read(file) else { return };
    let raw = |name: &str| {
        let info = metadata.info(name)?;
        let bytes = &file[start + info.data_offsets.0..start + info.data_offsets.1];
        Some(packed::Raw { dtype: info.dtype, shape: &info.shape, bytes })
    };
    let files = packed::Files(&raw);
    for name in metadata.offset_keys().iter().take(32) {
        let base = name.rsplit_once(['.', '_']).map_or(name.as_str(), |(base, _)| base);
        for base in [base, base.trim_end_matches(".weight")] {
            let whole = packed::read(&files, &format!("{base}.weight"), shape);
            let parts = (0..2).map(|part| packed::read_mxfp4(&files, base, part, shape));
            for read in std::iter::once(whole).chain(parts) {
                match read {
                    Ok(Some(found)) => whole_and_in_parts(&found.matrix, shape),
                    Ok(None) => {}
                    Err(packed::Fault::Shape { name, .. } | packed::Fault::Other { name, .. }) => {
                        assert!(!name.is_empty())
                    }
                }
            }
            let _ = packed::size(&files, &format!("{base}.weight"), shape);
            let _ = packed::mxfp4_size(&files, base, shape);
        }
    }
}

/// The first byte chooses a format, the second how many blocks a row has, the rest is rows.
fn blocks(bytes: &[u8]) {
    let Some(([format, width], rest)) = bytes.split_first_chunk::<2>() else { return };
    let format = &FORMATS[usize::from(*format) % FORMATS.len()];
    let in_row = 1 + usize::from(*width) % 9;
    let rows = rest.len() / (in_row * format.bytes);
    let dims = [rows, in_row * format.values];
    let bytes = rest[..rows * in_row * format.bytes].to_vec();
    whole_and_in_parts(&Packed::Rows(BlockRows { format, dims, bytes }), dims);
}

/// All numbers, and those of parts of rows: the same bits.
fn whole_and_in_parts(matrix: &Packed, shape: [usize; 2]) {
    assert_eq!(matrix.dims(), shape);
    let ([rows, width], unit, values) = (shape, matrix.unit(), matrix.values());
    assert_eq!(values.len(), rows * width);
    assert!(matrix.bytes() <= 8 * (rows * width) + 8 * (rows + width) + 4096, "{}", matrix.form());
    let _ = matrix.not_finite();
    let start = width / 2 / unit * unit;
    for (row, values) in values.chunks_exact(width.max(1)).enumerate() {
        let mut part = vec![0.0; width - start];
        matrix.decode(row, start..width, &mut part);
        assert!(part.iter().zip(&values[start..]).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", matrix.form());
    }
}
