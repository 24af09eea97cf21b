//! Checkpoints of GPTQ, AWQ, bitsandbytes and FP8 against numpy's own unpacking (tools/parity/packed.py), and what is refused.

use crate::common::{root, tensors};
use burn::tensor::Device;
use safetensors::Dtype;
use safetensors::tensor::{SafeTensors, TensorView, serialize_to_file};
use serde_json::{Value, json};
use spo_data::Group;
use spo_model::decoder::blocks::BlockBits;
use spo_model::export::{self, ModelFiles, SHARD_BYTES, save};
use spo_model::family::Registry;
use spo_model::load::{Kept, LoadOptions, Storage};
use spo_model::lora::{LoraSpec, projections};
use spo_model::{CausalLm, ModelSpec, device, parameters};
use std::collections::BTreeMap;
use std::path::Path;

/// The code book of bitsandbytes.
#[allow(clippy::excessive_precision)]
const NF4: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];
const KINDS: [&str; 4] = ["gptq", "awq", "nf4", "fp8"];

fn folder(kind: &str) -> std::path::PathBuf {
    root().join("fixtures/packed").join(kind)
}

/// Names and f32 values of a file.
fn expected(kind: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(folder(kind).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |view: TensorView| view.data().as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    file.tensors().into_iter().map(|(name, view)| (name, floats(view))).collect()
}

#[test]
fn weights_are_those_that_numpy_unpacks() {
    for kind in KINDS {
        let expected = expected(kind);
        for storage in [Some(Storage::F32), None] {
            let model = CausalLm::from_dir(&folder(kind), storage, &device::cpu()).unwrap();
            let mut seen = 0;
            parameters::for_each(&model, "", |parameter| {
                let Some(wanted) = expected.get(&format!("model.{}", parameter.path)) else { return };
                let found: Vec<f32> = parameter.value.clone().into_data().iter::<f32>().collect();
                seen += 1;
                assert_eq!(found.len(), wanted.len());
                for (found, wanted) in found.iter().zip(wanted) {
                    // One rounding apart where a product is added to; else bit for bit, or rounded to 16 bits.
                    let near = if storage.is_some() { 2e-7 } else { 8e-3 };
                    assert!((found - wanted).abs() <= near * wanted.abs().max(1e-3), "{kind}: {found} {wanted}");
                }
            });
            assert_eq!(seen, 7, "{kind}");
        }
    }
}

/// bitsandbytes without double quantisation: scales are numbers, and the state says nothing of others.
#[test]
fn scales_of_a_code_book_may_be_plain() {
    let dir = tempfile::tempdir().unwrap();
    edited("nf4", dir.path(), |all| {
        let names: Vec<String> =
            all.keys().filter_map(|name| name.strip_suffix(".weight.absmax")).map(String::from).collect();
        assert_eq!(names.len(), 7);
        for name in names {
            let mut take = |part: &str| all.remove(&format!("{name}.weight.{part}")).unwrap();
            let floats = |bytes: Vec<u8>| -> Vec<f32> {
                bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
            };
            let (of_scales, book) = (floats(take("nested_absmax").2), floats(take("nested_quant_map").2));
            let (codes, state) = (take("absmax").2, take("quant_state.bitsandbytes__nf4").2);
            let mut state: Value = serde_json::from_slice(&state).unwrap();
            let offset = state["nested_offset"].as_f64().unwrap() as f32;
            let scale = |(at, code): (usize, &u8)| book[usize::from(*code)] * of_scales[at / 256] + offset;
            let scales: Vec<f32> = codes.iter().enumerate().map(scale).collect();
            for key in ["nested_blocksize", "nested_dtype", "nested_offset"] {
                state.as_object_mut().unwrap().remove(key).unwrap();
            }
            let state = state.to_string().into_bytes();
            let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            all.insert(format!("{name}.weight.absmax"), (Dtype::F32, vec![scales.len()], bytes));
            let of_state = format!("{name}.weight.quant_state.bitsandbytes__nf4");
            all.insert(of_state, (Dtype::U8, vec![state.len()], state));
        }
    });
    let values = |dir: &Path| {
        let (mut all, model) = (vec![], CausalLm::from_dir(dir, Some(Storage::F32), &device::cpu()).unwrap());
        parameters::for_each(&model, "", |parameter| all.extend(parameter.value.into_data().iter::<f32>()));
        all
    };
    assert_eq!(values(dir.path()), values(&folder("nf4")));
}

/// `quantised-base = "4-bit"` has the code book of nf4 and blocks of 64 values of a row: where rows fill blocks, a checkpoint's
/// codes and scales come out as they were.
#[test]
fn nf4_stays_in_its_blocks_without_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    edited("nf4", dir.path(), |all| {
        all.retain(|name, _| !name.contains("_proj."));
        let wide = |name: &str| if name.contains("norm") { vec![64] } else { vec![40, 64] };
        for (name, (dtype, shape, data)) in all.iter_mut() {
            (*dtype, *shape) = (Dtype::F32, wide(name));
            *data = 1.0f32.to_le_bytes().repeat(shape.iter().product());
        }
        let attention = ["q", "k", "v", "o"].map(|name| (format!("self_attn.{name}_proj"), [64, 64]));
        let mlp = [("gate", [128, 64]), ("up", [128, 64]), ("down", [64, 128])];
        let mlp = mlp.map(|(name, shape)| (format!("mlp.{name}_proj"), shape));
        for (name, [out, inputs]) in attention.into_iter().chain(mlp) {
            let name = format!("model.layers.0.{name}.weight");
            let mut codes = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
            let mut bytes = vec![0u8; out * inputs / 2];
            codes.fill(&mut bytes);
            // Of each block the largest value is the scale itself, as quantising makes it.
            bytes
                .iter_mut()
                .step_by(32)
                .enumerate()
                .for_each(|(block, byte)| *byte = if block % 2 == 0 { 0xf3 } else { 0x0c });
            let scales = (0..out * inputs / 64).flat_map(|block| (0.01 + 0.001 * (block % 17) as f32).to_le_bytes());
            let book = NF4.iter().flat_map(|value| value.to_le_bytes()).collect();
            let state =
                json!({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [out, inputs]}).to_string();
            all.insert(format!("{name}.absmax"), (Dtype::F32, vec![out * inputs / 64], scales.collect()));
            all.insert(format!("{name}.quant_map"), (Dtype::F32, vec![16], book));
            let of_state = format!("{name}.quant_state.bitsandbytes__nf4");
            all.insert(of_state, (Dtype::U8, vec![state.len()], state.into_bytes()));
            all.insert(name, (Dtype::U8, vec![out * inputs / 2, 1], bytes));
        }
    });
    let config = std::fs::read_to_string(folder("nf4").join("config.json")).unwrap();
    let config = config.replace("\"hidden_size\": 32", "\"hidden_size\": 64").replace(": 160", ": 128");
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let dense = |blocks: Option<BlockBits>| {
        let options = LoadOptions { storage: Some(Storage::F32), blocks: blocks.map(Kept::from) };
        let mut model = CausalLm::open(dir.path(), options, &device::cpu()).unwrap();
        let numbers = |tensor: burn::tensor::Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
        let linears = projections(&mut model).into_iter();
        linears
            .map(|(path, linear)| {
                assert_eq!(linear.weight.is_none(), blocks.is_some(), "{path}");
                (path, numbers(linear.dense()))
            })
            .collect::<Vec<_>>()
    };
    let (plain, blocks) = (dense(None), dense(Some(BlockBits::Four)));
    assert_eq!((plain.len(), plain == blocks), (7, true));
}

/// Codes and scales that stay have the numbers of loading, to the bit, and take what a plan counts.
#[test]
fn packed_weights_may_stay_in_their_blocks() {
    let prompt: Vec<u32> = (1..17).collect();
    let answer: Vec<u32> = (20..37).collect();
    let logps = |model: &CausalLm| {
        let group = Group { prompt: &prompt, answers: vec![&answer] };
        model.score(&[group], 512, &Default::default(), &mut |_| ())
    };
    for kind in KINDS {
        let load = |blocks| {
            let options = LoadOptions { storage: Some(Storage::F32), blocks };
            CausalLm::open(&folder(kind), options, &device::cpu()).unwrap()
        };
        let (mut decoded, mut kept) = (load(None), load(Some(Kept::AsStored)));
        let stored = Registry::builtin().stored_blocks(&folder(kind)).unwrap();
        let numbers = |tensor: burn::tensor::Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
        for ((path, in_blocks), (_, dense)) in projections(&mut kept).into_iter().zip(projections(&mut decoded)) {
            assert!(in_blocks.weight.is_none() && dense.kept.is_none(), "{kind} {path}");
            assert_eq!(numbers(in_blocks.dense()), numbers(dense.dense()), "{kind} {path}");
            let bytes = in_blocks.kept.as_ref().unwrap().bytes();
            // GPTQ's groups by input are the one thing that shapes do not tell.
            let order = if kind == "gptq" { 4 * in_blocks.dims()[1] } else { 0 };
            assert_eq!(bytes, stored[&path].bytes + order, "{kind} {path}");
            assert!(bytes < 4 * in_blocks.dims().iter().product::<usize>(), "{kind} {path}");
        }
        assert_eq!(stored.len(), 7, "{kind}");
        assert_eq!(logps(&kept), logps(&decoded), "{kind}");
        let adapted = |model: CausalLm| model.with_lora(&LoraSpec::new(2, 4.0), 1).unwrap();
        assert_eq!(logps(&adapted(kept.clone())), logps(&adapted(decoded)), "{kind}");
        let other = load(Some(Kept::AsStored));
        assert_eq!(parameters::hash(&kept, |_| true), parameters::hash(&other, |_| true), "{kind}");
        assert!(export::save(&kept, &ModelFiles::default(), &folder(kind).join("nowhere"), SHARD_BYTES).is_err());
    }
}

/// The same on the device that `SPO_TEST_DEVICE` names, where a card keeps codes.
#[test]
fn packed_weights_stay_in_their_blocks_on_the_device() {
    let name = std::env::var("SPO_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let here = device::open(&name).unwrap();
    let (prompt, answer): (Vec<u32>, Vec<u32>) = ((1..17).collect(), (20..37).collect());
    for kind in KINDS {
        let stored = Registry::builtin().stored_blocks(&folder(kind)).unwrap();
        let load = |blocks, device: &Device| {
            let options = LoadOptions { storage: Some(Storage::F32), blocks };
            let model = CausalLm::open(&folder(kind), options, device).unwrap();
            model.with_lora(&LoraSpec::new(2, 4.0), 1).unwrap()
        };
        let (decoded, mut kept) = (load(None, &device::cpu()), load(Some(Kept::AsStored), &here));
        for (path, linear) in projections(&mut kept) {
            let bytes = linear.blocks.as_ref().map(|blocks| blocks.bytes());
            let expected = if device::on_cpu(&here) { None } else { stored[&path].on_card };
            assert_eq!((bytes, linear.weight.is_none()), (expected, true), "{kind} {path}");
        }
        let logps = |model: &CausalLm| -> Vec<f32> {
            let group = Group { prompt: &prompt, answers: vec![&answer] };
            let scored = model.score(&[group], 512, &Default::default(), &mut |_| ());
            scored.into_iter().flatten().flatten().collect()
        };
        let (found, expected) = (logps(&kept), logps(&decoded));
        let error = found.iter().zip(&expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(found.len() == answer.len() && error < 1e-4, "{kind}: {error}");
    }
}

#[test]
fn floats_of_16_bits_may_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (prompt, answer): (Vec<u32>, Vec<u32>) = ((1..17).collect(), (20..37).collect());
    for (storage, kind) in [(Storage::Bf16, "BF16"), (Storage::F16, "F16")] {
        let folder = folder("nf4");
        let model = CausalLm::from_dir(&folder, Some(storage), &device::cpu()).unwrap();
        let files = vec![("config.json".into(), std::fs::read(folder.join("config.json")).unwrap())];
        let out = dir.path().join(kind);
        export::save(&model, &ModelFiles { files }, &out, SHARD_BYTES).unwrap();
        let load = |blocks| {
            let options = LoadOptions { storage: Some(Storage::F32), blocks };
            CausalLm::open(&out, options, &device::cpu()).unwrap()
        };
        let (decoded, mut kept) = (load(None), load(Some(Kept::AsStored)));
        let stored = Registry::builtin().stored_blocks(&out).unwrap();
        let linears = projections(&mut kept);
        assert_eq!((stored.len(), linears.len()), (7, 7));
        for (path, linear) in linears {
            let bytes = 2 * linear.dims().iter().product::<usize>();
            assert_eq!(linear.kept.as_ref().map(|kept| kept.bytes()), Some(bytes), "{kind} {path}");
            assert_eq!((stored[&path].bytes, stored[&path].kind), (bytes, kind), "{path}");
        }
        let logps = |model: &CausalLm| {
            let group = Group { prompt: &prompt, answers: vec![&answer] };
            model.score(&[group], 512, &Default::default(), &mut |_| ())
        };
        assert_eq!(logps(&kept), logps(&decoded), "{kind}");
    }
}

#[test]
fn an_exported_model_is_a_plain_one() {
    let dir = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let model = CausalLm::from_dir(&folder(kind), Some(Storage::F32), &device::cpu()).unwrap();
        let out = dir.path().join(kind);
        let files = ModelFiles {
            files: vec![("config.json".into(), std::fs::read(folder(kind).join("config.json")).unwrap())],
        };
        save(&model, &files, &out, SHARD_BYTES).unwrap();
        let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config.get("quantization_config"), None);
        assert!(tensors(&out).keys().all(|name| name.ends_with(".weight")));
        CausalLm::from_dir(&out, None, &device::cpu()).unwrap();
    }
}

type Parts = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Writes the checkpoint of a kind with other tensors.
fn edited(kind: &str, dir: &Path, edit: impl Fn(&mut Parts)) {
    let bytes = std::fs::read(folder(kind).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let part = |view: TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    let mut all: Parts = file.tensors().into_iter().map(|(name, view)| (name, part(view))).collect();
    edit(&mut all);
    let views = all
        .iter()
        .map(|(name, (dtype, shape, data))| (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
    std::fs::copy(folder(kind).join("config.json"), dir.join("config.json")).unwrap();
}

/// What loading says of such a checkpoint.
fn with(kind: &str, edit: impl Fn(&mut Parts)) -> String {
    let dir = tempfile::tempdir().unwrap();
    edited(kind, dir.path(), edit);
    load(dir.path())
}

fn load(dir: &Path) -> String {
    CausalLm::from_dir(dir, None, &device::cpu()).map_or_else(|error| error.to_string(), |_| "it loads".into())
}

#[test]
fn damaged_parts_are_named() {
    const Q: &str = "model.layers.0.self_attn.q_proj";
    let name = |part: &str| format!("{Q}.{part}");
    for (kind, part, said) in [
        ("gptq", "qzeros", "missing beside the packed weight"),
        ("gptq", "scales", "missing beside the packed weight"),
        ("awq", "qzeros", "missing beside the packed weight"),
        ("nf4", "weight.quant_map", "missing beside the packed weight"),
        ("nf4", "weight.nested_absmax", "missing beside the packed weight"),
        ("fp8", "weight", "missing beside the packed weight"),
    ] {
        let error = with(kind, |all| drop(all.remove(&name(part)).unwrap()));
        assert!(error.contains(said) && error.contains(&name(part)), "{kind} {part}: {error}");
    }
    let error = with("gptq", |all| all.get_mut(&name("g_idx")).unwrap().2[..4].copy_from_slice(&(-1i32).to_le_bytes()));
    assert!(error.contains("group -1, and there are 2"), "{error}");
    let error = with("gptq", |all| {
        let (_, shape, data) = all.get_mut(&name("qweight")).unwrap();
        shape[0] = 3;
        data.truncate(3 * 32 * 4);
    });
    assert!(error.contains("3 bits a value"), "{error}");
    for (kind, part) in [("awq", "scales"), ("fp8", "weight_scale_inv"), ("nf4", "weight.absmax"), ("gptq", "qzeros")] {
        let error = with(kind, |all| {
            let (_, shape, data) = all.get_mut(&name(part)).unwrap();
            data.extend(data.clone());
            shape[0] *= 2;
        });
        assert!(error.contains(&name(part)) || error.contains(Q), "{kind}: {error}");
        assert!(error.contains("expected"), "{kind}: {error}");
    }
    let error = with("nf4", |all| {
        let state = name("weight.quant_state.bitsandbytes__nf4");
        let (_, shape, data) = all.get_mut(&state).unwrap();
        *data = b"{\"blocksize\": 0}".to_vec();
        *shape = vec![data.len()];
    });
    assert!(error.contains("quant_state"), "{error}");
    // A model whose sides do not fill the words of its file.
    for kind in ["gptq", "awq"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(folder(kind).join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
        let config = std::fs::read_to_string(folder(kind).join("config.json")).unwrap();
        for (inner, hidden) in [(161, 32), (4, 32), (160, 36)] {
            let config = config.replace("\"intermediate_size\": 160", &format!("\"intermediate_size\": {inner}"));
            let config = config.replace("\"hidden_size\": 32", &format!("\"hidden_size\": {hidden}"));
            std::fs::write(dir.path().join("config.json"), config).unwrap();
            assert!(load(dir.path()).contains("expected") || load(dir.path()).contains("do not fill words"));
        }
    }
    let error = with("fp8", |all| all.get_mut(&name("weight")).unwrap().2[5] = 0x7f);
    assert!(error.contains("NaN"), "{error}");
}

#[test]
fn variants_that_are_not_read_are_refused_by_name() {
    let config: Value = serde_json::from_slice(&std::fs::read(folder("gptq").join("config.json")).unwrap()).unwrap();
    for (quantisation, said) in [
        (json!({"quant_method": "gptq", "bits": 3}), "stored by gptq, 3 bits"),
        (json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"}), "gptq_v2"),
        (json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}), "marlin"),
        (json!({"quant_method": "awq", "bits": 4, "version": "gemv"}), "gemv"),
        (json!({"quant_method": "bitsandbytes", "load_in_8bit": true}), "in 8 bits"),
        (json!({"quant_method": "fp8", "weight_block_size": null}), "blocks of null"),
        (json!({"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "static"}), "static"),
        (json!({"quant_method": "compressed-tensors"}), "stored by compressed-tensors"),
        (json!({"quant_method": "hqq"}), "stored by hqq"),
        (json!({}), "an unnamed method"),
    ] {
        let mut config = config.clone();
        config["quantization_config"] = quantisation.clone();
        let error = ModelSpec::from_json(&config.to_string()).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("quantization_config"), "{quantisation}: {error}");
    }
    for kind in KINDS {
        ModelSpec::from_json(&std::fs::read_to_string(folder(kind).join("config.json")).unwrap()).unwrap();
    }
}
