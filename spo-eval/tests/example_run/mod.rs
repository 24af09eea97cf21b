//! A made-up run with the shape of the real demonstration: two dimensions, a held round and its control.

#![allow(clippy::unwrap_used)]

use spo_eval::{
    Artefact, Bootstrap, ConflictCount, CurvePoint, DataSummary, DimensionScore, Distribution, Evaluation, GateCheck,
    GateOutcome, GateSummary, ModelSummary, PairScore, Phase, ProcessCost, RoundSummary, RunSummary, Sample, ScoreKind,
    Setting, Subset, estimate_kl, paired_difference, score_dimension,
};

pub const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 500, seed: 7 };

/// Spreads the integers over 0..1 without a pattern.
fn spread(index: usize) -> f64 {
    (index as f64 * 0.618_033_988_749_894_9 + 0.37).fract()
}

/// Pairs of which the given shares are right: agreeing and single pairs, then conflicting ones.
pub fn pairs(count: usize, agreeing: f64, conflicting: f64, scale: f64) -> Vec<PairScore> {
    let pair = |example: usize| {
        let conflicts = !example.is_multiple_of(3);
        let right = if conflicts { conflicting } else { agreeing };
        PairScore {
            example,
            margin: scale * (right - spread(example)),
            agreeing: if example.is_multiple_of(6) { None } else { Some(!conflicts) },
            boilerplate: example % 7 == 1,
            prompt: Some(example as u64 / 5),
        }
    };
    (0..count).map(pair).collect()
}

/// Share of right pairs where the labels agree, and where they conflict.
type Shares = (f64, f64);

/// Policy, shares for honesty and helpfulness, scale of the margins.
const POLICIES: [(&str, [Shares; 2], f64); 4] = [
    ("start", [(0.5, 0.5), (0.5, 0.5)], 0.0),
    ("round 1 honesty", [(0.7, 0.87), (0.5, 0.13)], 50.0),
    ("round 2 helpfulness", [(0.8, 0.57), (0.8, 0.43)], 60.0),
    ("control", [(0.8, 0.33), (0.9, 0.67)], 60.0),
];

fn round(policy: &str, reference: &str, dimension: &str, lambda: &[(&str, f64)], control: bool) -> RoundSummary {
    let setting = |key: &str, value: &str, origin: &str| Setting {
        key: key.to_owned(),
        value: value.to_owned(),
        origin: origin.to_owned(),
    };
    let point = |step: u64| CurvePoint {
        step,
        loss: 0.35 + 0.34 / (1.0 + step as f64 / 10.0),
        accuracy: Some(0.9 - 0.4 / (1.0 + step as f64 / 20.0)),
        margin: None,
        score: None,
        replayed: vec![],
    };
    let look = |index: u64| Evaluation {
        step: 25 * index + 24,
        loss: 0.6,
        score: None,
        dimensions: vec![("honesty".to_owned(), 0.6 + 0.02 * index as f64, 1.0), ("helpfulness".to_owned(), 0.5, -1.0)],
        kl: Some((1.5 * index as f64, 0.2)),
    };
    let carried: Vec<f64> = (0..300).map(|index| 4.0 * (spread(index) - 0.6)).collect();
    RoundSummary {
        held: vec![],
        policy: policy.to_owned(),
        reference: reference.to_owned(),
        dimension: dimension.to_owned(),
        objective: if lambda.is_empty() { "dpo" } else { "spo" }.to_owned(),
        control,
        lambda: lambda.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        settings: vec![
            setting("alpha", "0.1", "default"),
            setting("learning-rate", "0.0005", "file"),
            setting("steps", "100", "flag"),
        ],
        curve: (0..100).map(point).collect(),
        evaluations: (0..4).map(look).collect(),
        ended: control
            .then(|| "ended after 100 of 200 steps with the policy of step 75: its loss did not get better".to_owned()),
        margin_offset: (!lambda.is_empty()).then(|| Distribution::of("c", &carried).unwrap()),
    }
}

pub fn summary() -> RunSummary {
    let mut matrix: Vec<DimensionScore> = Vec::new();
    let mut scores = Vec::new();
    let mut held_out = Vec::new();
    for (policy, shares, scale) in POLICIES {
        for (dimension, count, (agreeing, conflicting)) in
            [("honesty", 706, shares[0]), ("helpfulness", 702, shares[1])]
        {
            let pairs = pairs(count, agreeing, conflicting, scale);
            matrix.push(score_dimension(policy, dimension, &pairs, &BOOTSTRAP).unwrap());
            let scaled: Vec<PairScore> =
                pairs.iter().map(|pair| PairScore { margin: 0.1 * pair.margin, ..pair.clone() }).collect();
            let total = score_dimension(policy, dimension, &scaled, &BOOTSTRAP).unwrap();
            scores.push(total.of_kind(ScoreKind::TotalReward));
            held_out.push((policy, dimension, pairs));
        }
    }
    let find = |policy, dimension| {
        let found = held_out.iter().find(|(p, d, _)| *p == policy && *d == dimension).unwrap();
        (policy, found.2.as_slice())
    };
    let difference = |dimension, subset| {
        let (a, b) = (find("round 2 helpfulness", dimension), find("control", dimension));
        paired_difference(dimension, a, b, subset, &BOOTSTRAP).unwrap().unwrap()
    };
    let differences = ["honesty", "helpfulness"]
        .into_iter()
        .flat_map(|dimension| [Subset::All, Subset::Conflicting].map(|subset| difference(dimension, subset)))
        .collect();
    let kl = |policy: &str, reference: &str, mean: f64| {
        let ratios: Vec<f64> = (0..200).map(|index| mean + 30.0 * (spread(index) - 0.5)).collect();
        let tokens: Vec<usize> = (0..200).map(|index| 20 + index % 30).collect();
        estimate_kl(policy, reference, &ratios, &ratios, &tokens).unwrap()
    };
    let text = |items: &[(&str, &str)]| items.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let data = |dimension: &str, split: &str, pairs: usize| DataSummary {
        dimension: dimension.to_owned(),
        split: split.to_owned(),
        pairs,
        prompts: pairs / 5,
        boilerplate: pairs / 7,
        dropped: vec![("empty answer".to_owned(), 2)],
        unused: vec![],
    };
    let margins: Vec<f64> = find("round 2 helpfulness", "honesty").1.iter().map(|pair| pair.margin).collect();
    let process = |waited: f64| ProcessCost {
        tokens: 300_000,
        seconds: 55.0 - waited,
        waited,
        exchanged: 3.5,
        bytes: 90_000_000,
        peak_bytes: 170 << 20,
    };
    let processes = vec![process(18.0), process(0.5)];
    RunSummary {
        name: "quickstart".to_owned(),
        seed: 17,
        versions: text(&[("spo", "0.1.0"), ("burn", "0.22.1")]),
        model: ModelSummary {
            name: "stories260K".to_owned(),
            family: "llama".to_owned(),
            parameters: 260_032,
            trainable: 260_032,
            method: "full".to_owned(),
            precision: "f32".to_owned(),
            device: "cpu".to_owned(),
        },
        data: vec![data("honesty", "train", 6600), data("honesty", "held-out", 706)],
        conflict: vec![ConflictCount {
            split: "held-out".to_owned(),
            first: "honesty".to_owned(),
            second: "helpfulness".to_owned(),
            agreeing: 101,
            conflicting: 346,
            conflicting_boilerplate: 140,
        }],
        start: "start".to_owned(),
        rounds: vec![
            round("round 1 honesty", "start", "honesty", &[], false),
            round("round 2 helpfulness", "round 1 honesty", "helpfulness", &[("honesty", 1.0)], false),
            round("control", "round 1 honesty", "helpfulness", &[("honesty", 0.0)], true),
        ],
        matrix,
        scores,
        differences,
        kl: vec![
            kl("round 1 honesty", "start", 12.9),
            kl("round 2 helpfulness", "start", 28.8),
            kl("control", "start", 30.8),
            kl("round 2 helpfulness", "round 1 honesty", 21.0),
        ],
        margins: vec![Distribution::of("honesty under round 2", &margins).unwrap()],
        samples: vec![Sample {
            prompt: "Question: Is <b>a | b</b> `code`?\nAnswer:".to_owned(),
            by_policy: text(&[
                ("start", " <script>alert(1)</script>"),
                ("round 2 helpfulness", " Yes.\nIt *is*, \u{1b}[31mreally\u{202e}."),
            ]),
        }],
        timing: vec![
            Phase {
                name: "warm-up".to_owned(),
                seconds: 20.5,
                tokens: Some(410_000),
                peak_bytes: Some(190 << 20),
                processes: vec![],
            },
            Phase { name: "round 1 honesty".to_owned(), seconds: 61.0, processes, ..Phase::default() },
        ],
        gates: vec![GateSummary {
            policy: "round 2 helpfulness".to_owned(),
            checks: vec![GateCheck {
                what: "honesty accuracy".to_owned(),
                found: 0.664,
                wanted: ">= 0.6".to_owned(),
                passed: true,
            }],
            outcome: GateOutcome::RolledBack,
        }],
        warnings: vec!["the chosen answers' log-probability fell by 12 nats".to_owned()],
        lineage: vec![Artefact { name: "data honesty".to_owned(), hash: "blake3:0123456789abcdef".to_owned() }],
        ..RunSummary::default()
    }
}
