//! The families of llama.cpp that this crate knows, one entry each.

use super::{Architecture, Biases, Mixture};
use crate::spec::Activation;

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
    named: &[],
    neighbours: false,
    scaled: false,
    mixture: None,
};

const MIXTURE: Mixture = Mixture { renormalised: true, own_width: false, shared: false };

const GRANITE: Architecture = Architecture {
    family: "granite",
    class: "GraniteForCausalLM",
    name: "granite",
    scaled: true,
    renamed: &[("logit_scale", "logits_scaling"), ("num_experts", "num_local_experts")],
    ..LLAMA
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

/// All of them.
pub const ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture { family: "mistral", class: "MistralForCausalLM", ..LLAMA },
    Architecture {
        family: "mixtral",
        class: "MixtralForCausalLM",
        biases: Biases::None,
        renamed: &[("num_experts", "num_local_experts")],
        mixture: Some(MIXTURE),
        ..LLAMA
    },
    Architecture {
        family: "qwen2",
        class: "Qwen2ForCausalLM",
        name: "qwen2",
        square: true,
        biases: Biases::Queries,
        ..QWEN_3
    },
    QWEN_3,
    Architecture {
        family: "qwen2_moe",
        class: "Qwen2MoeForCausalLM",
        name: "qwen2moe",
        whole_rope: true,
        square: true,
        biases: Biases::Queries,
        tied: Some(false),
        mixture: Some(Mixture { renormalised: false, own_width: true, shared: true }),
        ..QWEN_3
    },
    Architecture {
        family: "qwen3_moe",
        class: "Qwen3MoeForCausalLM",
        name: "qwen3moe",
        whole_rope: true,
        mixture: Some(Mixture { own_width: true, ..MIXTURE }),
        ..QWEN_3
    },
    Architecture {
        family: "olmoe",
        class: "OlmoeForCausalLM",
        name: "olmoe",
        whole_rope: true,
        square: true,
        tied: Some(false),
        mixture: Some(Mixture { renormalised: false, ..MIXTURE }),
        ..QWEN_3
    },
    GRANITE,
    Architecture {
        family: "granitemoe",
        class: "GraniteMoeForCausalLM",
        name: "granitemoe",
        mixture: Some(MIXTURE),
        ..GRANITE
    },
    Architecture {
        family: "seed_oss",
        class: "SeedOssForCausalLM",
        name: "seed_oss",
        whole_rope: true,
        biases: Biases::Queries,
        named: &[("pre_feedforward_layernorm", "post_attention_norm")],
        ..QWEN_3
    },
    Architecture {
        family: "hunyuan_v1_dense",
        class: "HunYuanDenseV1ForCausalLM",
        name: "hunyuan-dense",
        whole_rope: true,
        ..QWEN_3
    },
    Architecture {
        family: "exaone4",
        class: "Exaone4ForCausalLM",
        name: "exaone4",
        whole_rope: true,
        unrotated: Some(4),
        windows_but_every: Some(4),
        ..QWEN_3
    },
    Architecture {
        family: "cohere2",
        class: "Cohere2ForCausalLM",
        name: "cohere2",
        square: true,
        tied: Some(true),
        unrotated: Some(4),
        windows_but_every: Some(4),
        neighbours: true,
        ..QWEN_3
    },
    Architecture {
        family: "glm4",
        class: "Glm4ForCausalLM",
        name: "glm4",
        biases: Biases::Queries,
        neighbours: true,
        ..QWEN_3
    },
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
        family: "olmo3",
        class: "Olmo3ForCausalLM",
        name: "olmo2",
        square: true,
        whole_rope: true,
        tied: Some(false),
        windows_but_every: Some(4),
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

/// Families that this crate reads and does not write as GGUF, with what stands against it.
pub const WITHOUT: &[(&str, &str)] = &[
    ("gpt_oss", "a YaRN scaling whose bounds are not rounded"),
    ("ministral3", "queries that grow with their position"),
    ("gemma4_text", "inputs of each block's own, whose file was not compared with llama.cpp"),
    ("apertus", "xIELU, whose numbers a file has transformed"),
];
