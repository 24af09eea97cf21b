//! What llama.cpp calls a family, and what its code there takes for granted.

use super::unsupported;
use crate::spec::{Activation, Rope, RopeScaling};
use crate::{ModelError, ModelSpec};

/// A family in llama.cpp's terms.
#[derive(Debug)]
pub struct Architecture {
    /// What `config.json` calls the family; files of it are read as this one where several share a name.
    pub family: &'static str,
    /// The class that transformers loads.
    pub class: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Queries and keys are rotated in neighbouring pairs, not in halves.
    pub pairs: bool,
    /// Every channel of a head is rotated.
    whole_rope: bool,
    /// The heads together are as wide as the residual stream.
    square: bool,
    /// Those that are computed alike there; files are read as the first.
    pub activations: &'static [Activation],
    biases: Biases,
    /// The head shares the embedding's weight, or does not; either where nothing is said.
    pub tied: Option<bool>,
    /// Blocks whose number this divides rotate nothing.
    unrotated: Option<usize>,
    /// All blocks but those whose number this divides have a window. Without it nothing has: the context ends
    /// where a window would begin to matter.
    pub windows_but_every: Option<usize>,
    /// A number of blocks at which the scores are scaled by the heads' share of the residual stream, not by their own width.
    wide_scale_at: usize,
    /// Keys of `config.json` that the family calls otherwise than Llama.
    renamed: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Biases {
    None,
    /// Of queries, keys and values.
    Queries,
    All,
}

const LLAMA: Architecture = Architecture {
    family: "llama",
    class: "LlamaForCausalLM",
    name: "llama",
    pairs: true,
    whole_rope: true,
    square: false,
    activations: &[Activation::Silu],
    biases: Biases::All,
    tied: None,
    unrotated: None,
    windows_but_every: None,
    wide_scale_at: 0,
    renamed: &[],
};

const QWEN_3: Architecture = Architecture {
    family: "qwen3",
    class: "Qwen3ForCausalLM",
    name: "qwen3",
    pairs: false,
    whole_rope: false,
    square: false,
    biases: Biases::None,
    ..LLAMA
};

const GEMMA: Architecture = Architecture {
    family: "gemma",
    class: "GemmaForCausalLM",
    name: "gemma",
    activations: &[Activation::GeluTanh],
    tied: Some(true),
    renamed: &[("hidden_act", "hidden_activation")],
    ..QWEN_3
};

const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture { family: "mistral", class: "MistralForCausalLM", ..LLAMA },
    Architecture {
        family: "qwen2",
        class: "Qwen2ForCausalLM",
        name: "qwen2",
        square: true,
        biases: Biases::Queries,
        ..QWEN_3
    },
    QWEN_3,
    GEMMA,
    Architecture {
        family: "gemma2",
        class: "Gemma2ForCausalLM",
        name: "gemma2",
        windows_but_every: Some(2),
        wide_scale_at: 46,
        ..GEMMA
    },
    Architecture {
        family: "gemma3_text",
        class: "Gemma3ForCausalLM",
        name: "gemma3",
        windows_but_every: Some(6),
        wide_scale_at: 62,
        ..GEMMA
    },
    Architecture { family: "phi3", class: "Phi3ForCausalLM", name: "phi3", square: true, ..QWEN_3 },
    Architecture {
        family: "olmo2",
        class: "Olmo2ForCausalLM",
        name: "olmo2",
        square: true,
        whole_rope: true,
        tied: Some(false),
        ..QWEN_3
    },
    Architecture {
        family: "smollm3",
        class: "SmolLM3ForCausalLM",
        name: "smollm3",
        biases: Biases::None,
        unrotated: Some(4),
        ..LLAMA
    },
    Architecture {
        family: "gpt2",
        class: "GPT2LMHeadModel",
        name: "gpt2",
        square: true,
        activations: &[Activation::GeluTanh],
        biases: Biases::All,
        unrotated: Some(1),
        renamed: &[
            ("num_hidden_layers", "n_layer"),
            ("max_position_embeddings", "n_positions"),
            ("hidden_size", "n_embd"),
            ("intermediate_size", "n_inner"),
            ("num_attention_heads", "n_head"),
            ("layer_norm_eps", "layer_norm_epsilon"),
            ("hidden_act", "activation_function"),
        ],
        ..QWEN_3
    },
    Architecture {
        family: "gpt_neox",
        class: "GPTNeoXForCausalLM",
        name: "gptneox",
        square: true,
        // Both are computed there by the form with a tanh.
        activations: &[Activation::Gelu, Activation::GeluTanh],
        biases: Biases::All,
        tied: Some(false),
        renamed: &[("partial_rotary_factor", "rotary_pct"), ("rope_theta", "rotary_emb_base")],
        ..QWEN_3
    },
];

impl Architecture {
    /// That of a model.
    pub fn of(spec: &ModelSpec) -> Result<&'static Self, ModelError> {
        let found = ARCHITECTURES.iter().find(|architecture| architecture.family == spec.family);
        let found = found.ok_or_else(|| unsupported(&format!("the family {}", spec.family)))?;
        match found.difference(spec) {
            Some(what) => Err(unsupported(&format!("{what} for {}", spec.family))),
            None => Ok(found),
        }
    }

    /// That which files of this name are read as.
    pub fn named(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.name == name)
    }

    /// Mistral's, which bears Llama's name.
    pub fn mistral() -> &'static Self {
        ARCHITECTURES.iter().find(|architecture| architecture.family == "mistral").expect("it is in the table")
    }

    /// The names of all, comma-separated.
    pub fn names() -> String {
        let mut names: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
        names.dedup();
        names.join(", ")
    }

    /// What the family's `config.json` calls a key of Llama's.
    pub fn config_key(&self, llama: &'static str) -> &'static str {
        self.renamed.iter().find(|(key, _)| *key == llama).map_or(llama, |(_, own)| own)
    }

    /// The width that scores are scaled by: each is divided by its root.
    pub fn scale_width(&self, layers: usize, hidden_size: usize, heads: usize, head_dim: usize) -> usize {
        if layers == self.wide_scale_at { hidden_size / heads } else { head_dim }
    }

    /// What of a model llama.cpp would compute otherwise.
    fn difference(&self, spec: &ModelSpec) -> Option<String> {
        let heads = spec.heads * spec.head_dim;
        let biases = match (spec.qkv_bias, spec.output_bias || spec.mlp_bias) {
            (false, false) => Biases::None,
            (true, false) => Biases::Queries,
            (_, true) => Biases::All,
        };
        let width = self.scale_width(spec.layers.len(), spec.hidden_size, spec.heads, spec.head_dim);
        let scale = (width as f64).powf(-0.5);
        let capped = self.name == "gemma2";
        let attention = || spec.layers.iter().map(|layer| layer.attention);
        if !self.activations.contains(&spec.activation) {
            return Some(format!("the activation {:?}", spec.activation));
        }
        if self.square && heads != spec.hidden_size {
            return Some(format!("{heads} channels of all heads in a model of {}", spec.hidden_size));
        }
        if biases != Biases::None && self.biases != Biases::All && self.biases != biases {
            return Some("biases of the projections".into());
        }
        if self.tied.is_some_and(|tied| tied != spec.tied) {
            return Some(if spec.tied { "a tied head" } else { "a head of its own" }.into());
        }
        if let Some(odd) = attention().find(|attention| (attention.scale / scale - 1.0).abs() > 1e-6) {
            return Some(format!("scores scaled by {} in place of {scale}", odd.scale));
        }
        let caps = |cap: Option<f64>| cap.is_some() == capped && cap == spec.layers[0].attention.softcap;
        if !attention().all(|attention| caps(attention.softcap)) || spec.logit_softcap.is_some() != capped {
            return Some(
                if capped { "scores or logits without a bound" } else { "a bound of scores or logits" }.into(),
            );
        }
        let window = window(spec);
        let windowed = |index: usize| self.windows_but_every.is_some_and(|every| !(index + 1).is_multiple_of(every));
        let fits = |(index, window_here)| window_here == window.filter(|_| windowed(index));
        if self.windows_but_every.is_some() && !attention().map(|attention| attention.window).enumerate().all(fits) {
            return Some("windows in other blocks than usual".into());
        }
        self.odd_rotation(spec)
    }

    /// What llama.cpp would rotate otherwise.
    fn odd_rotation(&self, spec: &ModelSpec) -> Option<String> {
        let (main, local) = self.ropes(spec);
        let rotated = |index: usize| self.unrotated.is_none_or(|every| !(index + 1).is_multiple_of(every));
        let expected = |index: usize, windowed: bool| if windowed { local } else { main }.filter(|_| rotated(index));
        let mut layers = spec.layers.iter().enumerate();
        if !layers.all(|(index, layer)| rope_of(spec, index) == expected(index, layer.attention.window.is_some())) {
            return Some("a rotary embedding in other blocks than usual".into());
        }
        let main = main?;
        let local = local.unwrap_or(main);
        let fits = match self.name {
            "gemma3" => local.scaling == RopeScaling::Default && !matches!(main.scaling, RopeScaling::Yarn { .. }),
            _ => local == main,
        };
        if !fits {
            return Some("such a rotary embedding of the blocks with a window".into());
        }
        if self.whole_rope && main.dim != spec.head_dim {
            return Some(format!("a rotary embedding of {} of {} channels", main.dim, spec.head_dim));
        }
        match main.scaling {
            RopeScaling::Llama3 { .. } if self.name != "llama" => Some("Llama 3's rotary scaling".into()),
            RopeScaling::LongRope { .. } if self.name != "phi3" => Some("the rotary scaling longrope".into()),
            // The file has no place for these: readers take the paper's values.
            RopeScaling::Yarn { factor, fast, slow, truncate, attention_factor, .. }
                if (fast, slow, truncate) != (32.0, 1.0, true)
                    || (attention_factor - 0.1 * factor.ln() - 1.0).abs() > 1e-6 =>
            {
                Some("a YaRN scaling with other values than the paper's".into())
            }
            _ => None,
        }
    }

    /// The rotary embedding of blocks without a window, and that of blocks with one; one stands for the other that
    /// no block has.
    pub fn ropes<'a>(&self, spec: &'a ModelSpec) -> (Option<&'a Rope>, Option<&'a Rope>) {
        let of = |windowed: bool| {
            let mut layers = spec.layers.iter().enumerate();
            layers.find_map(|(index, layer)| {
                rope_of(spec, index).filter(|_| layer.attention.window.is_some() == windowed)
            })
        };
        (of(false).or(of(true)), of(true).or(of(false)))
    }
}

fn rope_of(spec: &ModelSpec, layer: usize) -> Option<&Rope> {
    spec.layers[layer].rope.map(|index| &spec.ropes[index])
}

/// The smallest window of the blocks.
pub fn window(spec: &ModelSpec) -> Option<usize> {
    spec.layers.iter().filter_map(|layer| layer.attention.window).min()
}
