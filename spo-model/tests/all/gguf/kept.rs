//! Projections that stay in the blocks of a GGUF file: their numbers, bytes and products.

use super::reader::Reader;
use super::{family, random};
use spo_data::Group;
use spo_data::gguf::Gguf;
use spo_model::export::{GgufType, save_gguf};
use spo_model::family::Registry;
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Path as Way, Sampling, WeightFormat};
use spo_model::load::{Kept, LoadOptions, Storage};
use spo_model::lora::{LoraSpec, projections};
use spo_model::quant::{FORMATS, Format};
use spo_model::{CausalLm, device, parameters};
use std::path::Path;

/// A Llama of these widths whose projections are stored in blocks of this format: `file` again, other tensors as they are.
fn rewrite(file: &Path, to: &Path, format: &Format) {
    let kinds = Gguf::open(&crate::common::root().join("fixtures/gguf/kinds.gguf")).unwrap();
    let blocks = kinds.bytes(&format!("{}.weights", format.name), format.size(512).unwrap()).unwrap().bytes;
    let (metadata, read) = (Reader::metadata(file), Reader::file(file));
    let (mut infos, mut data) = (vec![], vec![]);
    for (index, (name, (shape, kind, bytes))) in read.tensors.iter().enumerate() {
        let packed = ["attn_q.", "attn_k.", "attn_v.", "attn_output.", "ffn_"].iter().any(|part| name.contains(part));
        let (kind, bytes) = match packed && shape.len() == 2 {
            // Each row starts with another block.
            true => {
                let length = format.size(shape[0] * shape[1]).unwrap() / format.bytes;
                let block =
                    |at: usize| &blocks[(at * 7 + at / 5 + index) * format.bytes % blocks.len()..][..format.bytes];
                (format.code, (0..length).flat_map(block).copied().collect())
            }
            false => (*kind, bytes[..4 * shape.iter().product::<usize>()].to_vec()),
        };
        infos.extend((name.len() as u64).to_le_bytes());
        infos.extend(name.as_bytes());
        infos.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| infos.extend((*size as u64).to_le_bytes()));
        infos.extend(kind.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0u8);
    }
    let mut whole = [metadata, infos].concat();
    whole.resize(whole.len().next_multiple_of(32), 0);
    std::fs::write(to, [whole, data].concat()).unwrap();
}

fn weights(model: &mut CausalLm) -> Vec<(String, bool, Vec<u32>)> {
    let bits = |tensor: burn::tensor::Tensor<2>| tensor.into_data().iter::<f32>().map(f32::to_bits).collect();
    let linears = projections(model).into_iter();
    linears.map(|(path, linear)| (path, linear.weight.is_none(), bits(linear.dense()))).collect()
}

fn logps(model: &CausalLm) -> Vec<Vec<Vec<f32>>> {
    let prompt: Vec<u32> = (3..40).collect();
    let (short, long): (Vec<u32>, Vec<u32>) = ((5..9).collect(), (200..260).collect());
    let group = Group { prompt: &prompt, answers: vec![&short, &long] };
    let scored = model.score(&[group], 512, &Default::default(), &mut |_| ());
    scored.into_iter().map(|of| of.into_iter().map(|logp| vec![logp.into_iter().sum(), 0.0]).collect()).collect()
}

#[test]
fn blocks_that_stay_have_the_numbers_of_loading_to_the_bit() {
    let (mut config, files) = family("llama", false);
    for (key, value) in [("hidden_size", 256), ("intermediate_size", 512), ("num_attention_heads", 8)] {
        config[key] = value.into();
    }
    config["num_key_value_heads"] = 4.into();
    config.as_object_mut().unwrap().remove("head_dim");
    let dir = tempfile::tempdir().unwrap();
    let (plain, packed) = (dir.path().join("plain.gguf"), dir.path().join("packed.gguf"));
    save_gguf(&random(&config), &files, "a model", GgufType::F32, &plain).unwrap();
    assert!(Registry::builtin().stored_blocks(&plain).unwrap().is_empty());
    let mut hashes = vec![];
    for format in FORMATS.iter().filter(|format| format.name != "F32") {
        rewrite(&plain, &packed, format);
        let load = |blocks| {
            let options = LoadOptions { storage: Some(Storage::F32), blocks };
            CausalLm::open(&packed, options, &device::cpu()).unwrap()
        };
        let (mut decoded, mut kept) = (load(None), load(Some(Kept::AsStored)));
        let (expected, found) = (weights(&mut decoded), weights(&mut kept));
        for ((path, dense, expected), (_, in_blocks, found)) in expected.iter().zip(&found) {
            assert!(!dense && *in_blocks, "{} {path}", format.name);
            assert!(expected == found, "{} {path}", format.name);
        }
        // Queries and keys are in neighbouring pairs in the file, in halves here.
        assert!(expected.len() > 13 && kept.is_quantised() && !decoded.is_quantised());
        assert_eq!(logps(&kept), logps(&decoded), "{}", format.name);
        let adapted = |model: CausalLm| model.with_lora(&LoraSpec::new(4, 8.0), 1).unwrap();
        assert_eq!(logps(&adapted(kept.clone())), logps(&adapted(decoded.clone())), "{}", format.name);
        let mut merged = [&kept, &decoded].map(|model| adapted(model.clone()).merged());
        let [of_kept, of_decoded] = merged.each_mut().map(weights);
        assert!(of_kept == of_decoded, "{}", format.name);
        for weights in [WeightFormat::F32, WeightFormat::Q8] {
            let tokens = |model: &CausalLm| continued(adapted(model.clone()), weights);
            assert_eq!(tokens(&kept), tokens(&decoded), "{} {weights:?}", format.name);
        }
        // What a plan counts is what is there.
        let stored = Registry::builtin().stored_blocks(&packed).unwrap();
        for (path, linear) in projections(&mut kept) {
            let of_plan = stored[&path];
            assert_eq!((of_plan.bytes, of_plan.kind), (linear.kept.as_ref().unwrap().bytes(), format.name), "{path}");
        }
        let hash = parameters::hash(&kept, |_| true);
        assert_eq!(hash, parameters::hash(&load(Some(Kept::AsStored)), |_| true));
        assert!(!hashes.contains(&hash), "{}", format.name);
        hashes.push(hash);
    }
    assert_eq!(hashes.len(), 12);
}

/// Greedy tokens.
fn continued(model: CausalLm, weights: WeightFormat) -> Vec<u32> {
    let mut generator = Generator::new(model, &DecodeOptions { weights, ..DecodeOptions::default() });
    assert!(matches!(generator.path(), Way::Kernels { .. }));
    let options =
        GenerateOptions { max_new_tokens: 16, sampling: Sampling::GREEDY, seed: 0, first_stream: 0, stop: vec![] };
    generator.generate(&[&[1, 5, 9]], &options, &mut |_, _| Control::Continue).remove(0).ids
}

#[test]
fn a_block_that_is_not_finite_is_named_where_it_stands() {
    let (mut config, files) = family("llama", false);
    config["hidden_size"] = 64.into();
    config["intermediate_size"] = 96.into();
    config["num_attention_heads"] = 4.into();
    config["num_key_value_heads"] = 4.into();
    config.as_object_mut().unwrap().remove("head_dim");
    let dir = tempfile::tempdir().unwrap();
    let (plain, packed) = (dir.path().join("plain.gguf"), dir.path().join("packed.gguf"));
    save_gguf(&random(&config), &files, "a model", GgufType::F32, &plain).unwrap();
    rewrite(&plain, &packed, Format::of_code(8).unwrap());
    let mut bytes = std::fs::read(&packed).unwrap();
    // The scale of the second block of row 3, which is another row of the model: a NaN of 16 bits.
    let start = Gguf::open(&packed).unwrap().bytes("blk.1.attn_q.weight", 64 * 2 * 34).unwrap().start;
    let at = start + 34 * 7;
    bytes[at..at + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    std::fs::write(&packed, bytes).unwrap();
    let error = |blocks| {
        let options = LoadOptions { storage: Some(Storage::F32), blocks };
        CausalLm::open(&packed, options, &device::cpu()).map(|_| ()).unwrap_err().to_string()
    };
    let said = error(Some(Kept::AsStored));
    assert!(said.contains("`blk.1.attn_q.weight`: the value at [3, 32] is NaN"), "{said}");
    assert_eq!(said, error(None));
}

#[test]
fn experts_stay_in_their_blocks_one_by_one() {
    for name in ["qwen2-moe", "granitemoe"] {
        let (mut config, files) = family(name, false);
        for (key, value) in [
            ("hidden_size", 64),
            ("intermediate_size", 96),
            ("moe_intermediate_size", 32),
            ("shared_expert_intermediate_size", 32),
            ("num_attention_heads", 4),
        ] {
            config[key] = value.into();
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        save_gguf(&random(&config), &files, "a model", GgufType::Q8, &path).unwrap();
        let load = |blocks| {
            let options = LoadOptions { storage: Some(Storage::F32), blocks };
            CausalLm::open(&path, options, &device::cpu()).unwrap()
        };
        let (mut decoded, mut kept) = (load(None), load(Some(Kept::AsStored)));
        let (expected, found) = (weights(&mut decoded), weights(&mut kept));
        for ((path, _, expected), (_, in_blocks, found)) in expected.iter().zip(&found) {
            assert!(*in_blocks && expected == found, "{name} {path}");
        }
        let stored = Registry::builtin().stored_blocks(&path).unwrap();
        assert_eq!(stored.len(), expected.len(), "{name}");
        for (path, linear) in projections(&mut kept) {
            assert_eq!(stored[&path].bytes, linear.kept.as_ref().unwrap().bytes(), "{name} {path}");
        }
        assert_eq!(logps(&kept), logps(&decoded), "{name}");
    }
}
