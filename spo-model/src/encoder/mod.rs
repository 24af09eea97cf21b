//! What makes z of a user's labelled pairs, beside the decoder that it steers.

mod attention;

pub(crate) use attention::linear;
pub use attention::{Contexts, Encoder, EncoderShape};

use crate::ModelSpec;
use burn::module::Module;
use serde::{Deserialize, Serialize};

/// Shape of a model's steering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SteeringSpec {
    /// Numbers of z.
    pub width: usize,
    /// Heads of the attention over contexts; they divide the width.
    pub heads: usize,
    /// Most contexts that it was trained with.
    pub contexts: usize,
    /// Whether z scales and shifts every block's output; without, it acts through the cores of conditional adapters alone.
    #[serde(default = "films")]
    pub films: bool,
}

/// What files say that are older than the key.
fn films() -> bool {
    true
}

impl SteeringSpec {
    /// Shape of the encoder of embeddings that are so wide.
    pub(crate) fn encoder(&self, hidden: usize) -> EncoderShape {
        EncoderShape { inputs: 2 * hidden, width: self.width, heads: self.heads, deep: false }
    }

    /// Numbers of the encoder and the films that a model of this spec has; those of adapters are counted with them.
    pub fn elements(&self, spec: &ModelSpec) -> usize {
        let layer = |outputs: usize, inputs: usize| outputs * (inputs + 1);
        let (width, hidden) = (self.width, spec.hidden_size);
        // A pair's layer, four of the attention, two behind it.
        let encoder = layer(width, 2 * hidden) + 6 * layer(width, width);
        encoder + if self.films { spec.layers.len() * 2 * layer(hidden, width) } else { 0 }
    }
}

/// What makes z, beside the decoder.
#[derive(Module, Debug)]
pub struct Steering {
    /// From contexts to z.
    pub encoder: Encoder,
    #[module(skip)]
    pub(crate) spec: SteeringSpec,
    /// What z was computed from: where its gradient goes on to.
    #[module(skip)]
    pub(crate) contexts: Option<Contexts>,
}

impl Steering {
    /// Its shape.
    pub fn spec(&self) -> SteeringSpec {
        self.spec
    }

    /// What z was computed from, where it was computed here.
    pub fn contexts(&self) -> Option<&Contexts> {
        self.contexts.as_ref()
    }
}
