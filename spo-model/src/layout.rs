//! How a family's checkpoints name and store the parameters.

/// Names and layout of a family's checkpoint, against this crate's module paths.
#[derive(Debug, PartialEq)]
pub struct Layout {
    /// Before every name but the heads'. Checkpoints of the bare decoder lack it.
    pub prefix: &'static str,
    /// Modules that the checkpoint calls otherwise: inside a block (`mlp.up_proj`), `layers`
    /// itself, or outside the blocks (`embed_tokens`).
    pub names: &'static [(&'static str, &'static str)],
    /// Linear weights of the blocks are stored `[in, out]` (GPT-2's `Conv1D`).
    pub conv1d: bool,
    /// Ends of the names of buffers, which are derived from the configuration and not read.
    pub buffers: &'static [&'static str],
    /// Ends of the names of numbers that the checkpoint stores without a dimension, `[]`, and this crate as `[1]`.
    pub scalars: &'static [&'static str],
    /// How the experts of a mixture are stored.
    pub experts: ExpertLayout,
}

/// How a family's checkpoints name and store the experts of a mixture.
#[derive(Debug, PartialEq)]
pub enum ExpertLayout {
    /// A tensor for each expert; projections that the checkpoint calls otherwise (`gate_proj`).
    Each(&'static [(&'static str, &'static str)]),
    /// One tensor `[experts, …]` for all.
    Stacked {
        /// Parameters of an expert (`down_proj.weight`) and the tensor inside a block that holds those of all.
        names: &'static [(&'static str, &'static str)],
        /// Weights are stored `[experts, in, out]`.
        transposed: bool,
    },
}

/// Where the experts of a block stand among this crate's module paths.
const EXPERTS: &str = "moe.experts.";

impl Layout {
    /// The layout of Llama and most families since.
    pub const LLAMA: Self = Self {
        prefix: "model.",
        names: &[("pre_feedforward_layernorm", "post_attention_layernorm")],
        conv1d: false,
        buffers: &["rotary_emb.inv_freq"],
        scalars: &[],
        experts: ExpertLayout::Each(&[]),
    };

    /// As [`LLAMA`](Self::LLAMA), with norms named by their place.
    pub const NORMS_BY_PLACE: Self = Self { names: &[], ..Self::LLAMA };

    /// The checkpoint's name of the parameter at a module path such as `layers.0.mlp.up_proj.weight`.
    pub fn name(&self, path: &str) -> String {
        let rename = |module: &str| match (module.strip_prefix(EXPERTS), &self.experts) {
            (Some(of_expert), ExpertLayout::Each(names)) => {
                let (index, projection) = of_expert.split_once('.').unwrap_or((of_expert, ""));
                format!("{}{index}.{}", renamed(EXPERTS, self.names), renamed(projection, names))
            }
            _ => renamed(module, self.names),
        };
        if ["lm_head.", "score."].iter().any(|head| path.starts_with(head)) {
            return rename(path);
        }
        let in_block = path.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
        match in_block {
            Some((index, module)) => {
                format!("{}{}{}", self.prefix, rename(&format!("layers.{index}.")), rename(module))
            }
            None => format!("{}{}", self.prefix, rename(path)),
        }
    }

    /// The tensor that the parameter at a module path is a part of, and which part, where one tensor holds all experts.
    pub fn stacked(&self, path: &str) -> Option<(String, usize)> {
        let ExpertLayout::Stacked { names, .. } = &self.experts else { return None };
        let (block, of_expert) = path.split_once(EXPERTS)?;
        let (index, parameter) = of_expert.split_once('.')?;
        let (_, tensor) = names.iter().find(|(ours, _)| *ours == parameter)?;
        Some((format!("{}{block}{tensor}", self.prefix), index.parse().ok()?))
    }

    /// The checkpoint's name of a linear layer without its path, such as `c_attn`: what PEFT calls
    /// a target module.
    pub fn last_name(&self, path: &str) -> String {
        let name = self.name(&format!("{path}.weight"));
        name.rsplit('.').nth(1).unwrap_or_default().into()
    }

    /// Whether the weight at a module path is stored `[in, out]`.
    pub fn transposed(&self, path: &str) -> bool {
        let stored = match &self.experts {
            ExpertLayout::Stacked { transposed, .. } if path.contains(EXPERTS) => *transposed,
            _ => self.conv1d,
        };
        stored && path.starts_with("layers.") && path.ends_with("_proj.weight")
    }

    /// Whether the checkpoint stores a number without a dimension.
    pub fn is_scalar(&self, name: &str) -> bool {
        self.scalars.iter().any(|end| name.ends_with(end))
    }

    /// Whether a tensor of the checkpoint is a buffer.
    pub fn is_buffer(&self, name: &str) -> bool {
        self.buffers.iter().any(|end| name.ends_with(end))
    }
}

/// A module path with the first of `names` that begins it replaced.
fn renamed(module: &str, names: &[(&str, &str)]) -> String {
    let found = names.iter().find_map(|(ours, theirs)| {
        let rest = module.strip_prefix(ours)?;
        rest.starts_with('.').then(|| format!("{theirs}{rest}"))
    });
    found.unwrap_or_else(|| module.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_tables() {
        let layout = Layout {
            prefix: "transformer.",
            names: &[("layers", "h"), ("embed_tokens", "wte"), ("mlp.up_proj", "mlp.c_fc"), ("lm_head", "embed_out")],
            conv1d: true,
            buffers: &[".attn.bias"],
            ..Layout::LLAMA
        };
        assert_eq!(layout.name("layers.11.mlp.up_proj.weight"), "transformer.h.11.mlp.c_fc.weight");
        assert_eq!(layout.name("layers.1.mlp.up_proj.lora.a"), "transformer.h.1.mlp.c_fc.lora.a");
        assert_eq!(layout.name("embed_tokens.weight"), "transformer.wte.weight");
        assert_eq!(layout.name("norm.weight"), "transformer.norm.weight");
        assert_eq!(layout.name("lm_head.weight"), "embed_out.weight");
        assert_eq!(layout.last_name("layers.1.mlp.up_proj"), "c_fc");
        assert!(layout.transposed("layers.1.mlp.up_proj.weight") && !layout.transposed("layers.1.mlp.up_proj.bias"));
        assert_eq!(layout.stacked("layers.1.mlp.up_proj.weight"), None);
        let name = Layout::LLAMA.name("layers.0.pre_feedforward_layernorm.weight");
        assert_eq!(name, "model.layers.0.post_attention_layernorm.weight");
    }
    #[test]
    fn experts_are_tensors_of_their_own_or_parts_of_one() {
        let each = Layout {
            names: &[("moe.router", "ffn.gate"), ("moe", "ffn")],
            experts: ExpertLayout::Each(&[("up_proj", "w3")]),
            ..Layout::LLAMA
        };
        assert_eq!(each.name("layers.2.moe.experts.11.up_proj.weight"), "model.layers.2.ffn.experts.11.w3.weight");
        assert_eq!(
            each.name("layers.2.moe.experts.1.down_proj.lora.a"),
            "model.layers.2.ffn.experts.1.down_proj.lora.a"
        );
        assert_eq!(each.name("layers.2.moe.router.weight"), "model.layers.2.ffn.gate.weight");
        assert_eq!(each.stacked("layers.2.moe.experts.11.up_proj.weight"), None);
        let experts = ExpertLayout::Stacked { names: &[("up_proj.bias", "ffn.up_bias")], transposed: true };
        let stacked = Layout { experts, ..each };
        assert_eq!(
            stacked.stacked("layers.2.moe.experts.11.up_proj.bias"),
            Some(("model.layers.2.ffn.up_bias".into(), 11))
        );
        assert_eq!(stacked.stacked("layers.2.moe.experts.11.up_proj.lora.a"), None);
        assert!(stacked.transposed("layers.2.moe.experts.11.up_proj.weight"));
        assert!(!stacked.transposed("layers.2.self_attn.q_proj.weight"));
    }
}
