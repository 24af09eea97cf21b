//! Feed-forward block: gated (SwiGLU and GeGLU, Shazeer 2020, arXiv 2002.05202) or plain.

use super::source::WeightSource;
use super::{Linear, Xielu};
use crate::spec::{Activation, MlpKind};
use crate::{ModelError, ModelSpec};
use burn::module::Module;
use burn::tensor::Tensor;

/// `down(act(gate(x)) · up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[intermediate, hidden]`
    pub gate_proj: Option<Linear>,
    /// `[intermediate, hidden]`
    pub up_proj: Option<Linear>,
    /// Gate and up in one weight, `[2 · intermediate, hidden]`, instead of the two.
    pub gate_up_proj: Option<Linear>,
    /// `[hidden, intermediate]`
    pub down_proj: Linear,
    /// The activation, where it is learned.
    pub xielu: Option<Xielu>,
    #[module(skip)]
    shape: MlpShape,
}

/// What a feed-forward block looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpShape {
    /// Its form.
    pub kind: MlpKind,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside.
    pub intermediate_size: usize,
    /// The projections have a bias.
    pub bias: bool,
    /// Its activation.
    pub activation: Activation,
}

impl MlpShape {
    /// That of a model's dense blocks.
    pub fn of(spec: &ModelSpec) -> Self {
        let (hidden_size, intermediate_size) = (spec.hidden_size, spec.intermediate_size);
        Self { kind: spec.mlp, hidden_size, intermediate_size, bias: spec.mlp_bias, activation: spec.activation }
    }
}

impl MlpKind {
    /// The names of its linear layers, in their order.
    pub fn projections(self) -> &'static [&'static str] {
        match self {
            Self::Gated => &["gate_proj", "up_proj", "down_proj"],
            Self::GatedFused | Self::GatedInterleaved => &["gate_up_proj", "down_proj"],
            Self::Plain => &["up_proj", "down_proj"],
        }
    }
}

impl Mlp {
    /// Takes the projections below `path` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(source: &mut impl WeightSource, path: &str, shape: MlpShape) -> Result<Self, ModelError> {
        let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
        let mut linear = |name: &str, dims: [usize; 2]| match shape.kind.projections().contains(&name) {
            true => Linear::load(source, &format!("{path}.{name}"), dims, shape.bias).map(Some),
            false => Ok(None),
        };
        let (gate_proj, up_proj) = (linear("gate_proj", [inner, hidden])?, linear("up_proj", [inner, hidden])?);
        let gate_up_proj = linear("gate_up_proj", [2 * inner, hidden])?;
        let down_proj = linear("down_proj", [hidden, inner])?.expect("every form has one");
        let xielu = match shape.activation {
            Activation::Xielu => Some(Xielu::load(source, &format!("{path}.xielu"))?),
            _ => None,
        };
        Ok(Self { gate_proj, up_proj, gate_up_proj, down_proj, xielu, shape })
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let up = |x| self.up_proj.as_ref().expect("there is one where nothing is fused").forward(x);
        let activation = self.shape.activation;
        let inner = match (&self.gate_up_proj, &self.gate_proj, &self.xielu) {
            (Some(both), ..) => {
                let [gate, up] = self.halves(both.forward(x));
                activation.gated(gate, up)
            }
            (None, Some(gate), _) => activation.gated(gate.forward(x.clone()), up(x)),
            (None, None, Some(xielu)) => xielu.forward(up(x)),
            (None, None, None) => activation.forward(up(x)),
        };
        self.down_proj.forward(inner)
    }

    /// Gate and up of `[tokens, 2 · intermediate]`.
    fn halves(&self, both: Tensor<2>) -> [Tensor<2>; 2] {
        let [tokens, width] = both.dims();
        let inner = width / 2;
        if self.shape.kind == MlpKind::GatedInterleaved {
            let pairs = both.reshape([tokens, inner, 2]);
            return [0, 1].map(|half| pairs.clone().narrow(2, half, 1).reshape([tokens, inner]));
        }
        [0, inner].map(|start| both.clone().narrow(1, start, inner))
    }

    /// Its linear layers with their names.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Linear)> {
        [
            ("gate_proj", self.gate_proj.as_mut()),
            ("up_proj", self.up_proj.as_mut()),
            ("gate_up_proj", self.gate_up_proj.as_mut()),
            ("down_proj", Some(&mut self.down_proj)),
        ]
        .into_iter()
        .filter_map(|(name, linear)| Some((name, linear?)))
    }
}
