//! Mixture of experts (Shazeer et al. 2017, arXiv 1701.06538): each token goes through the few feed-forward blocks that a
//! router picks for it, and no others: tokens are grouped by expert.

use super::source::WeightSource;
use super::{Linear, Mlp, MlpShape};
use crate::spec::{ExpertsSpec, MlpKind};
use crate::{ModelError, ModelSpec};
use burn::module::Module;
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{DType, Int, Tensor, TensorData};

/// Router and experts of one block.
#[derive(Module, Debug)]
pub struct Experts {
    /// A score for each expert, `[experts, hidden]`; never quantised.
    pub router: Linear,
    /// The experts.
    pub experts: Vec<Mlp>,
    /// An expert for all tokens.
    pub shared_expert: Option<Mlp>,
    /// How much of it a token gets, `[1, hidden]`.
    pub shared_expert_gate: Option<Linear>,
    #[module(skip)]
    active: usize,
    #[module(skip)]
    renormalised: bool,
}

/// Which experts each token of a batch goes through.
#[derive(Debug, Clone)]
pub struct Routing {
    /// The tokens of each expert, `[experts][…]`, ascending.
    pub tokens: Vec<Vec<usize>>,
    /// For each token its places in the list of all experts' tokens, `[tokens · active]`, the best expert's first.
    places: Vec<i32>,
    /// For each token its experts, as indices into `[tokens · experts]`, likewise.
    chosen: Vec<i32>,
}

impl Routing {
    /// That of scores `[tokens, experts]`: the `active` highest of each token; of equal ones the first.
    pub fn new(scores: &[f32], experts: usize, active: usize) -> Self {
        let mut tokens = vec![vec![]; experts];
        let (mut within, mut chosen) = (vec![], vec![]);
        for (token, scores) in scores.chunks_exact(experts).enumerate() {
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            for &expert in &order[..active] {
                within.push((expert, tokens[expert].len()));
                chosen.push((token * experts + expert) as i32);
                tokens[expert].push(token);
            }
        }
        let starts = tokens.iter().scan(0, |next, of_expert| {
            let start = *next;
            *next += of_expert.len();
            Some(start)
        });
        let starts: Vec<usize> = starts.collect();
        let places = within.into_iter().map(|(expert, at)| (starts[expert] + at) as i32).collect();
        Self { tokens, places, chosen }
    }

    /// The experts of a token, the best first.
    pub fn experts_of(&self, token: usize, spec: &ExpertsSpec) -> impl Iterator<Item = usize> {
        let chosen = self.chosen[token * spec.active..(token + 1) * spec.active].iter();
        let count = spec.count;
        chosen.map(move |at| *at as usize % count)
    }
}

impl Experts {
    /// Takes router and experts below `path` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(
        source: &mut impl WeightSource,
        path: &str,
        model: &ModelSpec,
        spec: &ExpertsSpec,
    ) -> Result<Self, ModelError> {
        let (hidden, dense) = (model.hidden_size, MlpShape::of(model));
        let weight = source.tensor(&format!("{path}.router.weight"), [spec.count, hidden])?;
        let bias = match spec.bias {
            true => Some(source.tensor(&format!("{path}.router.bias"), [spec.count])?),
            false => None,
        };
        let shape = MlpShape { kind: spec.mlp, intermediate_size: spec.intermediate_size, bias: spec.bias, ..dense };
        let expert = |index| Mlp::load(source, &format!("{path}.experts.{index}"), shape);
        let experts = (0..spec.count).map(expert).collect::<Result<_, _>>()?;
        let (shared_expert, shared_expert_gate) = match spec.shared {
            Some(intermediate_size) => {
                let shape = MlpShape { kind: MlpKind::Gated, intermediate_size, bias: false, ..dense };
                let shared = Mlp::load(source, &format!("{path}.shared_expert"), shape)?;
                let gate = source.tensor(&format!("{path}.shared_expert_gate.weight"), [1, hidden])?;
                (Some(shared), Some(Linear::new(gate, None)))
            }
            None => (None, None),
        };
        Ok(Self {
            router: Linear::new(weight, bias),
            experts,
            shared_expert,
            shared_expert_gate,
            active: spec.active,
            renormalised: spec.renormalised,
        })
    }

    /// The router's scores of `[tokens, hidden]`, in f32 or wider: `[tokens, experts]`.
    pub fn scores(&self, x: &Tensor<2>) -> Tensor<2> {
        let scores = self.router.forward(x.clone());
        let wide = if scores.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        scores.cast(wide)
    }

    /// Which experts tokens of these scores go through.
    pub fn route(&self, scores: &Tensor<2>) -> Routing {
        let values: Vec<f32> = scores.clone().inner().into_data().iter::<f32>().collect();
        Routing::new(&values, self.experts.len(), self.active)
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`, by the router's scores `[tokens, experts]`.
    pub fn forward_routed(&self, x: Tensor<2>, scores: Tensor<2>) -> Tensor<2> {
        let ([tokens, hidden], dtype) = (x.dims(), x.dtype());
        if tokens == 0 {
            return x;
        }
        let routing = self.route(&scores);
        let device = x.device().inner();
        let ints = |values: Vec<i32>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), &device)
        };
        let parts = self.experts.iter().zip(&routing.tokens).filter(|(_, tokens)| !tokens.is_empty());
        let parts = parts.map(|(expert, tokens)| {
            let rows = x.clone().select(0, ints(tokens.iter().map(|token| *token as i32).collect()));
            expert.on_rows(tokens).forward(rows)
        });
        let outputs = Tensor::cat(parts.collect(), 0).select(0, ints(routing.places));
        let weights = self.weights(scores, ints(routing.chosen)).cast(dtype);
        let outputs = outputs.reshape([tokens, self.active, hidden]) * weights.unsqueeze_dim(2);
        let y = outputs.sum_dim(1).reshape([tokens, hidden]);
        match (&self.shared_expert, &self.shared_expert_gate) {
            (Some(shared), Some(gate)) => y + shared.forward(x.clone()) * sigmoid(gate.forward(x)),
            _ => y,
        }
    }

    /// The weights of each token's experts, `[tokens, active]`.
    fn weights(&self, scores: Tensor<2>, chosen: Tensor<1, Int>) -> Tensor<2> {
        let [tokens, experts] = scores.dims();
        let pick = |x: Tensor<2>| x.reshape([tokens * experts]).select(0, chosen).reshape([tokens, self.active]);
        // Shares of all that are divided by their sum are the softmax of the chosen.
        if self.renormalised { softmax(pick(scores), 1) } else { pick(softmax(scores, 1)) }
    }

    /// The linear layers that may have adapters, with their paths in here: router and gate are not among them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        let experts = self.experts.iter_mut().enumerate();
        let experts = experts.map(|(index, expert)| (format!("experts.{index}"), expert));
        let shared = self.shared_expert.iter_mut().map(|shared| ("shared_expert".to_owned(), shared));
        experts.chain(shared).flat_map(|(module, block)| {
            block.linears_mut().map(move |(name, linear)| (format!("{module}.{name}"), linear))
        })
    }
}

impl Mlp {
    /// The block for these rows of a batch: what dropout drops is told by token.
    fn on_rows(&self, rows: &[usize]) -> Self {
        let mut block = self.clone();
        for (_, linear) in block.linears_mut() {
            if let Some(lora) = &mut linear.lora {
                lora.on_rows(rows);
            }
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_to_their_best_experts() {
        let routing = Routing::new(&[0.1, 0.9, 0.5, 2.0, -1.0, 2.0], 3, 2);
        assert_eq!(routing.tokens, [vec![1], vec![0], vec![0, 1]]);
        // Token 0: experts 1 and 2; token 1: experts 0 and 2, the first of equal scores first.
        assert_eq!(routing.chosen, [1, 2, 3, 5]);
        assert_eq!(routing.places, [1, 2, 0, 3]);
    }
}
