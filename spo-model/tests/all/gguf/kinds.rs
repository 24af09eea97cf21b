//! Every type of tensor against ggml's own dequantiser; `fixtures/gguf/make.py` made the files.

use crate::common::root;
use spo_data::gguf::Gguf;
use spo_model::quant::{FORMATS, Format};

#[test]
fn every_type_decodes_to_the_bits_of_ggml() {
    let dir = root().join("fixtures/gguf");
    let (file, golden) = (Gguf::open(&dir.join("kinds.gguf")).unwrap(), std::fs::read(dir.join("kinds.f32")).unwrap());
    let mut golden = golden.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let names = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K";
    assert_eq!(names.split(' ').collect::<Vec<_>>(), FORMATS.iter().map(|format| format.name).collect::<Vec<_>>());
    for format in FORMATS {
        for what in ["weights", "blocks"] {
            let name = format!("{}.{what}", format.name);
            let info = file.tensor(&name).unwrap();
            assert_eq!((info.kind, info.shape.as_slice()), (format.code, &[2, 256][..]), "{name}");
            let bytes = file.bytes(&name, format.size(512).unwrap()).unwrap().bytes;
            let mut values = [0.0; 512];
            format.decode(bytes, &mut values);
            let (found, expected): (Vec<u32>, Vec<u32>) =
                (values.iter().map(|value| value.to_bits()).collect(), golden.by_ref().take(512).collect());
            assert_eq!(found, expected, "{name}");
            assert!(values.iter().any(|value| *value != values[0]), "{name}");
        }
    }
    assert_eq!(golden.next(), None);
}

#[test]
fn sizes_are_counted_in_whole_blocks() {
    let q4_k = Format::of_code(12).unwrap();
    assert_eq!((q4_k.size(512), q4_k.size(511), q4_k.size(0)), (Some(288), None, Some(0)));
    assert_eq!(Format::of_code(0).unwrap().size(usize::MAX), None);
    assert_eq!((Format::describe(23), Format::describe(99)), ("IQ4_XS".into(), "type 99".into()));
    assert!(Format::of_code(23).is_none());
}
