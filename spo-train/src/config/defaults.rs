//! Every built-in value of the run file, in one place.

use serde::Serialize;
use serde_json::{Map, Value};

use super::spec::{
    Best, CheckpointSpec, Dtype, EvaluationSpec, HoldOn, HoldSpec, LoraCondition, LoraRounds, LoraSet, LoraSpec,
    LoraTargets, OnlineSpec, OptimizerName, OptimizerState, ParallelSpec, QuantisedBase, Recompute, Schedule, Slopes,
    SteeringSpec, TrackSpec, TrainingSpec, Unfinished, WatchdogSpec,
};
use spo_score::pairing::Pairing;

/// Share of the prompts held out when no data has `split = "test"`.
pub(crate) const HOLDOUT: f64 = 0.1;
/// Share of the training prompts that drives λ, where a round has `hold`.
pub(crate) const HOLD_SHARE: f64 = 0.1;
/// Seed.
pub(crate) const SEED: u64 = 0;
/// Weights as the losses: f32.
pub(crate) const DTYPE: Dtype = Dtype::F32;
/// Device.
pub(crate) const DEVICE: &str = "auto";
/// How a card multiplies.
pub(crate) const MATMUL: &str = "auto";

/// `[training]`. AdamW as in the field (PyTorch's betas and eps, no weight decay), not as in burn (eps 1e-5, decay 1e-4).
pub(crate) fn training() -> TrainingSpec {
    TrainingSpec {
        steps: None,
        epochs: Some(1.0),
        pairs_per_step: Some(32),
        tokens_per_micro_batch: Some(0),
        optimizer: Some(OptimizerName::Adamw),
        // Only of zeroth-order optimisers: `zeroth_order`.
        zo_rank: None,
        zo_refresh: None,
        zo_eps: None,
        zo_estimates: None,
        zo_momentum: None,
        zo_slopes: None,
        // Depends on [lora] and [warmup]: `learning_rate`.
        learning_rate: None,
        schedule: Some(Schedule::Cosine),
        warmup_steps: None,
        warmup_ratio: Some(0.1),
        final_learning_rate_ratio: Some(0.1),
        weight_decay: Some(0.0),
        adam_betas: Some([0.9, 0.999]),
        adam_eps: Some(1e-8),
        max_grad_norm: Some(1.0),
        shuffle: Some(true),
        recompute: Some(Recompute::Auto),
        update_in_backward: Some(false),
        router_loss: Some(0.0),
        head_chunk_rows: Some(0),
        eval_every: Some(0),
        early_stopping: None,
        max_kl: Some(0.0),
    }
}

/// Peak learning rate: adapters take about ten times that of full training; supervised steps more than preference steps.
pub(crate) fn learning_rate(lora: bool, warmup: bool) -> f64 {
    match (warmup, lora) {
        (false, false) => 5e-6,
        (false, true) => 5e-5,
        (true, false) => 2e-5,
        (true, true) => 2e-4,
    }
}

/// What differs with a zeroth-order optimiser, of which MeZO's and SubZero's papers have the values: rates are from MeZO's
/// grids, rank and refresh from SubZero's runs. Nothing is clipped and nothing decays, as in both.
pub(crate) fn zeroth_order(optimizer: OptimizerName, lora: bool) -> TrainingSpec {
    let subzero = optimizer == OptimizerName::Subzero;
    TrainingSpec {
        optimizer: Some(optimizer),
        zo_rank: subzero.then_some(8),
        zo_refresh: subzero.then_some(1000),
        zo_eps: Some(if lora { 1e-2 } else { 1e-3 }),
        zo_estimates: Some(1),
        zo_momentum: Some(0.0),
        zo_slopes: Some(Slopes::Loss),
        learning_rate: Some(if lora { 1e-4 } else { 1e-6 }),
        schedule: Some(Schedule::Constant),
        warmup_ratio: Some(0.0),
        max_grad_norm: Some(0.0),
        ..training()
    }
}

/// `[lora]`.
pub(crate) fn lora() -> LoraSpec {
    LoraSpec {
        start: None,
        rank: Some(16),
        alpha: Some(32.0),
        targets: Some(LoraTargets::Set(LoraSet::AllLinear)),
        rslora: Some(false),
        dora: Some(false),
        dropout: Some(0.0),
        modules_to_save: Some(Vec::new()),
        condition: Some(LoraCondition::None),
        shared_rank: None,
        components: None,
        concentration: None,
        rounds: Some(LoraRounds::Continue),
        project: Some(0),
        quantised_base: Some(QuantisedBase::None),
    }
}

/// Keys of `[lora]` that only conditional adapters have.
pub(crate) const CONDITIONAL: [&str; 3] = ["shared-rank", "components", "concentration"];

/// `[steering]`. Contexts and their numbers as in the paper's evaluation (arXiv 2412.13998, which has a width of 256 and 8
/// heads beside a model of 1.5 billion parameters).
pub(crate) fn steering() -> SteeringSpec {
    SteeringSpec {
        users: None,
        column: None,
        contexts: Some(10),
        width: Some(64),
        heads: Some(4),
        films: Some(true),
        evaluate: Some(vec![0, 1, 3, 5, 10]),
    }
}

/// `[lora]` with a condition: PBLoRA's ranks and scale, and for weights the distribution of its code (arXiv 2505.06274).
pub(crate) fn conditional_lora(condition: LoraCondition) -> LoraSpec {
    let of_weights = condition == LoraCondition::Weights;
    LoraSpec {
        rank: Some(4),
        alpha: Some(8.0),
        condition: Some(condition),
        shared_rank: Some(4),
        components: (!of_weights).then_some(4),
        concentration: of_weights.then_some(0.5),
        ..lora()
    }
}

/// Steps from one look at gradients to the next.
pub(crate) fn gradient_every() -> u64 {
    50
}

/// `[evaluation]`.
pub(crate) fn evaluation() -> EvaluationSpec {
    EvaluationSpec {
        bootstrap_resamples: Some(1000),
        kl_samples: Some(32),
        kl_max_new_tokens: Some(64),
        kl_temperature: Some(1.0),
        kl_path: Some(false),
        by_prompt: Some(false),
        gradient_pairs: Some(0),
        gradient_every: Some(gradient_every()),
        samples: Some(4),
        sample_prompts: Some(Vec::new()),
        scorer: None,
        command: None,
        command_timeout: Some(7200.0),
        boilerplate: Some(Vec::new()),
    }
}

/// `[rounds.online]`. Four samples at temperature 1, as iterated preference optimisation has them (Xiong et al. 2024).
pub(crate) fn online() -> OnlineSpec {
    OnlineSpec {
        scorer: None,
        prompts: None,
        prompts_at_once: Some(0),
        samples: Some(4),
        include_data: Some(false),
        temperature: Some(1.0),
        top_p: Some(1.0),
        max_new_tokens: Some(128),
        // Dropped, endless answers cost nothing: a policy of recipes/selm forgot in two parts of a round to end its answers.
        unfinished: Some(Unfinished::Keep),
        pair: Some(Pairing::BestWorst),
        min_gap: Some(0.0),
        refresh: Some(0),
    }
}

/// `[rounds.online]` with the objective `score`: other prompts say more of a direction than other answers to the same.
pub(crate) fn scored() -> OnlineSpec {
    OnlineSpec { samples: Some(1), ..online() }
}

/// `hold`. Choices: no paper has them, and no run of a language model has tuned them yet.
pub(crate) fn hold() -> HoldSpec {
    HoldSpec {
        every: Some(10),
        spend: Some(0.5),
        rate: Some(1.0),
        gain: Some(5.0),
        max_lambda: Some(10.0),
        on: Some(HoldOn::Pairs),
        sample_prompts: Some(32),
        samples: Some(2),
        max_new_tokens: Some(64),
        temperature: Some(1.0),
        dimensions: Default::default(),
    }
}

/// `c` of CAGrad, as in its paper's runs (arXiv 2110.14048).
pub(crate) const CAGRAD_C: f64 = 0.4;

/// Evaluations without a new best before a round is ended.
pub(crate) const PATIENCE: usize = 3;

/// `[watchdog]`.
pub(crate) fn watchdog() -> WatchdogSpec {
    WatchdogSpec {
        gradient_norm_factor: Some(10.0),
        chosen_drop: Some(1.0),
        saturated_share: Some(0.25),
        length_factor: Some(1.5),
        overfitting: Some(3),
        slow_step_factor: Some(20.0),
    }
}

/// `[checkpoints]`.
pub(crate) fn checkpoints() -> CheckpointSpec {
    CheckpointSpec {
        every_steps: Some(100),
        every_minutes: Some(10.0),
        keep_last: Some(2),
        keep_best: Some(Best::None),
    }
}

/// Gbit/s between machines: what network cards have at least.
pub(crate) const BANDWIDTH: f64 = 10.0;

/// `[parallel]`.
pub(crate) fn parallel() -> ParallelSpec {
    ParallelSpec {
        shards: Some(1),
        timeout: Some(1800.0),
        optimizer_state: Some(OptimizerState::Replicated),
        bandwidth: Some(BANDWIDTH),
    }
}

/// `[track]`.
pub(crate) fn track() -> TrackSpec {
    TrackSpec { mlflow: None, experiment: Some("spo".into()) }
}

/// The fixed defaults by section, as they stand in the schema and the reference.
pub(crate) fn sections() -> Vec<(&'static str, Map<String, Value>)> {
    let top = serde_json::json!({ "seed": SEED, "holdout": HOLDOUT, "hold-share": HOLD_SHARE });
    let model = serde_json::json!({ "dtype": DTYPE, "device": DEVICE, "matmul": MATMUL });
    let mut training = table(&training());
    // `zo-eps` depends on [lora].
    let zeroth_order = table(&zeroth_order(OptimizerName::Subzero, false)).into_iter();
    training.extend(zeroth_order.filter(|(key, _)| key.starts_with("zo-") && key != "zo-eps"));
    let mut of_lora = table(&lora());
    let conditions = [LoraCondition::Weights, LoraCondition::Contexts].map(conditional_lora);
    let conditional = conditions.iter().flat_map(table);
    of_lora.extend(conditional.filter(|(key, _)| CONDITIONAL.contains(&key.as_str())));
    vec![
        ("", table(&top)),
        ("model", table(&model)),
        ("lora", of_lora),
        ("steering", table(&steering())),
        ("training", training),
        ("evaluation", table(&evaluation())),
        ("watchdog", table(&watchdog())),
        ("checkpoints", table(&checkpoints())),
        ("parallel", table(&parallel())),
        ("track", table(&track())),
    ]
}

/// The set keys of a section.
pub(crate) fn table<T: Serialize>(section: &T) -> Map<String, Value> {
    let Ok(Value::Object(mut table)) = serde_json::to_value(section) else {
        unreachable!("a section is a table of plain values")
    };
    table.retain(|_, value| !value.is_null());
    table
}
