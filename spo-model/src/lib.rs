//! Causal language models on burn: loading, packed forward, adapters, generation, export
