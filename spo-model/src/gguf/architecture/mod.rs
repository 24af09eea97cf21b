//! What llama.cpp calls a family, and what its code there takes for granted.

mod table;

use super::unsupported;
use crate::spec::{Activation, Rope, RopeScaling};
use crate::{ModelError, ModelSpec};
use table::{ARCHITECTURES, WITHOUT};

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
    /// Keys of `config.json` that the family calls otherwise than Llama or Qwen.
    renamed: &'static [(&'static str, &'static str)],
    /// Modules of a block whose tensors it calls otherwise.
    pub named: &'static [(&'static str, &'static str)],
    /// The checkpoint itself has neighbouring channels together.
    neighbours: bool,
    /// Factors on scores, embeddings, logits and what each part of a block adds are numbers of the file.
    pub scaled: bool,
    /// Every block is a mixture of experts.
    pub mixture: Option<Mixture>,
}

/// What llama.cpp takes for granted of a mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixture {
    /// The weights of a token's experts sum to 1.
    pub renormalised: bool,
    /// The width inside an expert is a number of its own.
    pub own_width: bool,
    /// There is one expert that every token goes through.
    shared: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Biases {
    None,
    /// Of queries, keys and values.
    Queries,
    All,
}

/// llama.cpp knows EXAONE 4's windows by the number of blocks.
const EXAONE_WINDOWED: usize = 64;

impl Architecture {
    /// That of a model.
    pub fn of(spec: &ModelSpec) -> Result<&'static Self, ModelError> {
        let found = ARCHITECTURES.iter().find(|architecture| architecture.family == spec.family);
        let found = found.ok_or_else(|| match WITHOUT.iter().find(|(family, _)| *family == spec.family) {
            Some((family, reason)) => unsupported(&format!("{reason}, of the family {family}")),
            None => unsupported(&format!("the family {}", spec.family)),
        })?;
        match found.difference(spec) {
            Some(what) => Err(unsupported(&format!("{what} for {}", spec.family))),
            None => Ok(found),
        }
    }

    /// That which files of this name are read as.
    pub fn named(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.name == name)
    }

    /// That of another family which bears the same name: a file has experts, or windows.
    pub fn namesake(&self, family: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| (architecture.name, architecture.family) == (self.name, family))
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
        let scale = if self.scaled { spec.layers[0].attention.scale } else { scale };
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
        if self.name == "exaone4" && window.is_some() != (spec.layers.len() == EXAONE_WINDOWED) {
            let windows = if window.is_some() { "windows" } else { "no windows" };
            return Some(format!("{windows} in a model of {} blocks", spec.layers.len()));
        }
        let windowed = |index: usize| self.windows_but_every.is_some_and(|every| !(index + 1).is_multiple_of(every));
        let fits = |(index, window_here)| window_here == window.filter(|_| windowed(index));
        if self.windows_but_every.is_some() && !attention().map(|attention| attention.window).enumerate().all(fits) {
            return Some("windows in other blocks than usual".into());
        }
        self.odd_experts(spec).or_else(|| self.odd_rotation(spec))
    }

    /// What of a mixture of experts llama.cpp would compute otherwise.
    fn odd_experts(&self, spec: &ModelSpec) -> Option<String> {
        let (of, experts) = self.mixture.zip(spec.experts.as_ref())?;
        if !spec.layers.iter().all(|layer| layer.experts) {
            return Some("blocks without experts beside such with experts".into());
        }
        if experts.renormalised != of.renormalised {
            let sum = if experts.renormalised { "that sum to 1" } else { "that do not sum to 1" };
            return Some(format!("weights of a token's experts {sum}"));
        }
        if experts.shared.is_some() != of.shared {
            return Some("an expert for all tokens, or none".into());
        }
        let whole = self.name == "olmoe" && spec.kv_heads != spec.heads;
        whole.then(|| format!("{} heads of keys beside {} of queries", spec.kv_heads, spec.heads))
    }

    /// What llama.cpp would rotate otherwise.
    fn odd_rotation(&self, spec: &ModelSpec) -> Option<String> {
        let (main, local) = self.ropes(spec);
        // EXAONE 4 without windows rotates every block.
        let unrotated = self.unrotated.filter(|_| self.name != "exaone4" || window(spec).is_some());
        let rotated = |index: usize| unrotated.is_none_or(|every| !(index + 1).is_multiple_of(every));
        if spec.ropes.iter().any(|rope| rope.pairs != self.neighbours || rope.growth.is_some()) {
            return Some("such a rotary embedding".into());
        }
        let expected = |index: usize, windowed: bool| if windowed { local } else { main }.filter(|_| rotated(index));
        let mut layers = spec.layers.iter().enumerate();
        if !layers.all(|(index, layer)| rope_of(spec, index) == expected(index, layer.attention.window.is_some())) {
            return Some("a rotary embedding in other blocks than usual".into());
        }
        let main = main?;
        let local = local.unwrap_or(main);
        let fits = match self.name {
            "gemma3" => local.scaling == RopeScaling::Default && !matches!(main.scaling, RopeScaling::Yarn { .. }),
            "olmo2" if self.windows_but_every.is_some() => {
                local.scaling == RopeScaling::Default && (local.theta, local.dim) == (main.theta, main.dim)
            }
            _ => local == main,
        };
        if !fits {
            return Some("such a rotary embedding of the blocks with a window".into());
        }
        if self.whole_rope && main.dim != spec.head_dim {
            return Some(format!("a rotary embedding of {} of {} channels", main.dim, spec.head_dim));
        }
        match main.scaling {
            RopeScaling::Llama3 { .. } if !["llama", "granite", "granitemoe", "exaone4"].contains(&self.name) => {
                Some("Llama 3's rotary scaling".into())
            }
            RopeScaling::Proportional { .. } => Some("the rotary scaling proportional".into()),
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
