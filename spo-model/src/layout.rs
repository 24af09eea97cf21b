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
}

impl Layout {
    /// The layout of Llama and most families since.
    pub const LLAMA: Self = Self {
        prefix: "model.",
        names: &[("pre_feedforward_layernorm", "post_attention_layernorm")],
        conv1d: false,
        buffers: &["rotary_emb.inv_freq"],
    };

    /// As [`LLAMA`](Self::LLAMA), with norms named by their place.
    pub const NORMS_BY_PLACE: Self = Self { names: &[], ..Self::LLAMA };

    /// The checkpoint's name of the parameter at a module path such as `layers.0.mlp.up_proj.weight`.
    pub fn name(&self, path: &str) -> String {
        let rename = |module: &str| {
            let found = self.names.iter().find_map(|(ours, theirs)| {
                let rest = module.strip_prefix(ours)?;
                rest.starts_with('.').then(|| format!("{theirs}{rest}"))
            });
            found.unwrap_or_else(|| module.into())
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

    /// The checkpoint's name of a linear layer without its path, such as `c_attn`: what PEFT calls
    /// a target module.
    pub fn last_name(&self, path: &str) -> String {
        let name = self.name(&format!("{path}.weight"));
        name.rsplit('.').nth(1).unwrap_or_default().into()
    }

    /// Whether the weight at a module path is stored `[in, out]`.
    pub fn transposed(&self, path: &str) -> bool {
        self.conv1d && path.starts_with("layers.") && path.ends_with("_proj.weight")
    }

    /// Whether a tensor of the checkpoint is a buffer.
    pub fn is_buffer(&self, name: &str) -> bool {
        self.buffers.iter().any(|end| name.ends_with(end))
    }
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
        };
        assert_eq!(layout.name("layers.11.mlp.up_proj.weight"), "transformer.h.11.mlp.c_fc.weight");
        assert_eq!(layout.name("layers.1.mlp.up_proj.lora.a"), "transformer.h.1.mlp.c_fc.lora.a");
        assert_eq!(layout.name("embed_tokens.weight"), "transformer.wte.weight");
        assert_eq!(layout.name("norm.weight"), "transformer.norm.weight");
        assert_eq!(layout.name("lm_head.weight"), "embed_out.weight");
        assert_eq!(layout.last_name("layers.1.mlp.up_proj"), "c_fc");
        assert!(layout.transposed("layers.1.mlp.up_proj.weight") && !layout.transposed("layers.1.mlp.up_proj.bias"));
        let name = Layout::LLAMA.name("layers.0.pre_feedforward_layernorm.weight");
        assert_eq!(name, "model.layers.0.post_attention_layernorm.weight");
    }
}
