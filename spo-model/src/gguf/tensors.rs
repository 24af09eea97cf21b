//! What llama.cpp calls the tensors of a model, and the order in which it stores them.

use super::architecture::Architecture;
use super::order::Order;
use crate::ModelSpec;
use crate::quant::packed::{StoredBlocks, bytes_on_cards};
use crate::quant::{Codes, Coding, Format};
use crate::spec::{NormKind, QkvLayout, Rope, RopeScaling};
use spo_data::gguf::Gguf;

/// The tensors of a block.
const OF_BLOCK: [(&str, &str); 15] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// The tensors of a mixture of experts that are there once in a block.
const OF_MIXTURE: [(&str, &str); 5] = [
    ("moe.router", "ffn_gate_inp"),
    ("moe.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("moe.shared_expert.up_proj", "ffn_up_shexp"),
    ("moe.shared_expert.down_proj", "ffn_down_shexp"),
    ("moe.shared_expert_gate", SHARED_GATE),
];

/// The tensors that hold a projection of all experts; of a stacked one its parts.
const OF_EXPERTS: [(&str, &[&str]); 4] = [
    ("gate_proj", &["ffn_gate_exps"]),
    ("up_proj", &["ffn_up_exps"]),
    ("gate_up_proj", &["ffn_gate_exps", "ffn_up_exps"]),
    ("down_proj", &["ffn_down_exps"]),
];

/// How much a token gets of the expert that all go through: a vector in a file, a matrix of one row here.
const SHARED_GATE: &str = "ffn_gate_inp_shexp";

/// The tensors outside the blocks.
const OUTSIDE: [(&str, &str); 4] = [
    ("embed_tokens", "token_embd"),
    ("embed_positions", "position_embd"),
    ("norm", "output_norm"),
    ("lm_head", "output"),
];

/// The embedding of tokens.
pub const EMBEDDING: &str = "token_embd.weight";
/// The head, where it is not the embedding.
pub const HEAD: &str = "output.weight";

/// Where the parameter at a module path stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The tensor or, where a file has the parts of a stacked projection apart, those in the order of its rows.
    pub names: Vec<String>,
    /// The entry of a dimension more, where a tensor holds all experts.
    pub expert: Option<usize>,
}

impl Place {
    /// A tensor of this name.
    pub fn one(name: String) -> Self {
        Self { names: vec![name], expert: None }
    }

    /// The shape of each of its tensors, of a parameter of this shape in a model of so many experts.
    pub fn shape(&self, shape: &[usize], experts: usize) -> Vec<usize> {
        if self.names[0].contains(SHARED_GATE) {
            return shape[1..].to_vec();
        }
        let mut stored = shape.to_vec();
        stored[0] /= self.names.len();
        self.expert.into_iter().for_each(|_| stored.insert(0, experts));
        stored
    }
}

/// The place of the parameter at a module path.
pub fn place(path: &str, architecture: &Architecture) -> Option<Place> {
    let (module, kind) = path.rsplit_once('.')?;
    let find = |table: &[(&str, &'static str)], module: &str| {
        table.iter().find(|(ours, _)| *ours == module).map(|(_, theirs)| *theirs)
    };
    if let Some(name) = find(&OUTSIDE, module) {
        return Some(Place::one(format!("{name}.{kind}")));
    }
    let (layer, module) = module.strip_prefix("layers.")?.split_once('.')?;
    let of_block = |name: &str| format!("blk.{layer}.{name}.{kind}");
    if let Some((expert, projection)) = module.strip_prefix("moe.experts.").and_then(|of| of.split_once('.')) {
        let (_, names) = OF_EXPERTS.iter().find(|(ours, _)| *ours == projection)?;
        let names = names.iter().map(|name| of_block(name)).collect();
        return Some(Place { names, expert: Some(expert.parse().ok()?) });
    }
    let name = find(architecture.named, module).or(find(&OF_BLOCK, module)).or(find(&OF_MIXTURE, module))?;
    Some(Place::one(of_block(name)))
}

/// The matrix `[out, in]` at a module path in the blocks or 16-bit floats that a file has it in; `None` where the file has it in f32 or, of a stacked projection, in several formats.
pub fn in_blocks(path: &str, dims: [usize; 2], architecture: &Architecture, file: &Gguf) -> Option<StoredBlocks> {
    let place = place(path, architecture)?;
    let mut formats = place.names.iter().map(|name| Format::of_code(file.tensor(name)?.kind));
    let format = formats.next()??;
    let same = formats.all(|other| other.is_some_and(|other| other.code == format.code));
    let values = dims[0].saturating_mul(dims[1]);
    let bytes = format.size(values).filter(|_| same && format.bytes < 4 * format.values)?;
    let on_card = match &format.coding {
        Coding::Codes(Codes { bits, group, adds, .. }) => Some(bytes_on_cards(dims, *bits, *group, *adds)),
        Coding::Number(_) => None,
    };
    Some(StoredBlocks { bytes, on_card, kind: format.name })
}

/// How the tensor at a module path is ordered.
pub fn order(path: &str, architecture: &Architecture, spec: &ModelSpec) -> Order {
    let module = path.rsplit_once('.').map_or(path, |(module, _)| module);
    if module.ends_with("norm") && spec.norm == NormKind::RmsFromOne {
        return Order::FromOne;
    }
    match module.rsplit('.').next() {
        Some("q_proj") if architecture.pairs => Order::Pairs { heads: spec.heads },
        Some("k_proj") if architecture.pairs => Order::Pairs { heads: spec.kv_heads },
        Some("qkv_proj") if spec.qkv == QkvLayout::PerHead => Order::Stacked { heads: spec.heads },
        _ => Order::AsIs,
    }
}

/// Tensors of numbers that rotary frequencies are divided by.
pub const FREQUENCY_FACTORS: [&str; 3] = ["rope_freqs.weight", LONG_FACTORS, SHORT_FACTORS];
/// Those of LongRoPE.
pub const LONG_FACTORS: &str = "rope_factors_long.weight";
/// Those of LongRoPE within the original context.
pub const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// What rotary frequencies are divided by, `[dim / 2]` each, where a number does not say it.
pub fn frequency_factors(spec: &ModelSpec) -> Vec<(&'static str, Vec<f32>)> {
    let narrow = |factors: &[f64]| factors.iter().map(|factor| *factor as f32).collect();
    match spec.ropes.first() {
        Some(rope) if matches!(rope.scaling, RopeScaling::Llama3 { .. }) => {
            vec![(FREQUENCY_FACTORS[0], scaled_by(rope))]
        }
        Some(Rope { scaling: RopeScaling::LongRope { factors, long_factors, .. }, .. }) => {
            vec![(LONG_FACTORS, narrow(long_factors)), (SHORT_FACTORS, narrow(factors))]
        }
        _ => vec![],
    }
}

/// What the scaling of a rotary embedding divides each of its frequencies by.
pub fn scaled_by(rope: &Rope) -> Vec<f32> {
    let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() };
    let pairs = plain.inverse_frequencies().into_iter().zip(rope.inverse_frequencies());
    pairs.map(|(plain, scaled)| plain / scaled).collect()
}
