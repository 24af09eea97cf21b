//! Floating-point operations of a model's matrix products: what its speed is measured against.

use crate::ModelSpec;
use crate::spec::MlpKind;
use spo_data::PackedBatch;

impl ModelSpec {
    /// Operations that one forward pass over a batch cannot do without: two for each weight of a block and token, the
    /// attention's two products for each visible position, and the head at the rows that predict an answer token; the last
    /// block's weights beyond its attention at these rows only. Prompts count once for all answers; of a mixture of
    /// experts those that a token goes through. The backward pass of a whole model takes twice as many, that of adapters on
    /// frozen weights once as many.
    pub fn forward_flops(&self, batch: &PackedBatch) -> f64 {
        let (tokens, rows) = (batch.tokens() as f64, batch.targets.len() as f64);
        // Tokens beyond the last block's attention: those that are scored.
        let beyond = match self.layers.len().checked_sub(1) {
            Some(last) => {
                let others = self.heads * self.head_dim + 2 * self.layer_inputs.unwrap_or(0);
                self.hidden_size * others + self.feed_forward_products(last)
            }
            None => 0,
        };
        let blocks = 2.0
            * ((self.active_parameters() - self.table_parameters()) as f64 * tokens - beyond as f64 * (tokens - rows));
        let head = 2.0 * (self.vocab_size * self.hidden_size) as f64 * rows;
        let seen: f64 = self.layers.iter().map(|layer| seen_positions(batch, layer.attention.window)).sum();
        blocks + head + 4.0 * (self.heads * self.head_dim) as f64 * seen
    }

    /// Weights of a block's feed-forward products that one token meets.
    fn feed_forward_products(&self, layer: usize) -> usize {
        let matrices = |kind: MlpKind| if kind == MlpKind::Plain { 2 } else { 3 };
        let inner = match self.experts.as_ref().filter(|_| self.layers[layer].experts) {
            None => matrices(self.mlp) * self.intermediate_size,
            Some(experts) => {
                let shared = experts.shared.map_or(0, |inner| 3 * inner + 1);
                experts.count + shared + experts.active * matrices(experts.mlp) * experts.intermediate_size
            }
        };
        self.hidden_size * inner
    }
}

/// Positions that all tokens of a batch see together in one block.
fn seen_positions(batch: &PackedBatch, window: Option<usize>) -> f64 {
    let most = window.unwrap_or(usize::MAX);
    batch.positions.iter().map(|&position| most.min(position as usize + 1) as f64).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use spo_data::Group;

    #[test]
    fn every_product_is_counted() {
        let config = r#"{"model_type": "llama", "vocab_size": 10, "hidden_size": 4, "intermediate_size": 6,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5}"#;
        let spec = ModelSpec::from_json(config).unwrap();
        let batch = PackedBatch::new(&[Group { prompt: &[1, 2, 3], answers: vec![&[4, 5], &[6]] }]);
        // Per block: q and o 4 × 4, k and v 4 × 2, three of 4 × 6, two norms of 4; and the last norm.
        let weights = 2 * (2 * 16 + 2 * 8 + 3 * 24 + 2 * 4) + 4;
        // Prompt 1 + 2 + 3 positions, answers 4 + 5 and 4.
        let seen = 2 * (6 + 9 + 4);
        // Of the last block's output projection and the three after it, three tokens are not needed.
        let expected = 2 * (weights * 6 - (16 + 3 * 24) * 3) + 2 * 40 * 3 + 4 * 4 * seen;
        assert_eq!(spec.forward_flops(&batch), expected as f64);
    }
}
