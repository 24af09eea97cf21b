#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{Facts, RunSpec, resolve};
use crate::run::online::prompts::Texts;
use spo_data::{Example, Preference, Tokenizer};
use std::sync::Arc;

/// Pairs of a one-token prompt with answers of two and three tokens, labelled along some dimensions.
fn pairs(prompts: std::ops::Range<u32>, labels: impl Fn(u32) -> Vec<&'static str>) -> Vec<Example> {
    let label = |name: &str| (name.to_string(), Preference::First);
    let example = |prompt| Example {
        id: format!("row {prompt}"),
        prompt: [prompt].into(),
        answers: vec![[prompt, 1].into(), [prompt, 2, 3].into()],
        labels: Arc::new(labels(prompt).into_iter().map(label).collect()),
        ..Example::default()
    };
    prompts.map(example).collect()
}

/// Lists of three scored answers of one token.
fn lists(prompts: std::ops::Range<u32>) -> Vec<Example> {
    let example = |prompt| Example {
        id: format!("list {prompt}"),
        prompt: [prompt].into(),
        answers: vec![[1].into(), [2].into(), [3].into()],
        scores: [("rank".to_string(), vec![0.0, 1.0, 2.0])].into(),
        ..Example::default()
    };
    prompts.map(example).collect()
}

/// The stages of a run of one step on two rows a phase. Eight pairs are about honesty, the last six of them about tone.
fn stages(more: &str) -> Vec<StageSummary> {
    stages_of(more, [pairs(50..53, |_| vec!["honesty", "tone"]), lists(60..61)].concat())
}

fn stages_of(more: &str, held_out: Vec<Example>) -> Vec<StageSummary> {
    let evaluation = if more.contains("[evaluation]") { "" } else { "[evaluation]\nkl-samples = 2\n" };
    let text = format!(
        "schema = 1\n[model]\npath = \"model\"\n[[data]]\npath = \"data.jsonl\"\n{evaluation}[training]\nsteps = 1\npairs-per-step = 2\nshuffle = false\n{more}"
    );
    let dimensions = |prompt: u32| if prompt < 2 { vec!["honesty"] } else { vec!["honesty", "tone"] };
    let train = [pairs(0..8, dimensions), lists(20..24)].concat();
    let [train, held_out] = [train, held_out].map(|examples| Arc::new(Dataset { examples, ..Dataset::default() }));
    let mut spec = RunSpec::from_str("run.toml", &text).unwrap();
    for change in ["evaluation.kl-max-new-tokens=5", "evaluation.samples=1"] {
        spec.apply_set(change).unwrap();
    }
    let plan = resolve(&spec, &Facts::of(&train)).unwrap();
    let model = spo_model::ModelSpec::from_json(
        r#"{"model_type": "llama", "vocab_size": 64, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5}"#,
    );
    let json = br#"{"version": "1.0", "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0}},
        "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}"#;
    let texts = (&Texts::default(), &Tokenizer::from_bytes(json, b"{}", None).unwrap());
    let data = PhaseData::all(&plan, &train, &held_out, &model.unwrap(), texts).unwrap();
    schedule(&plan, &data, [&train, &held_out, &Dataset::default()]).iter().map(Stage::summary).collect()
}

/// A stage's rows, and the tokens that are trained on, scored and sampled.
fn numbers(stages: &[StageSummary], name: &str) -> (usize, [u64; 3]) {
    let stage = stages.iter().find(|stage| stage.stage == name).unwrap_or_else(|| panic!("no {name} in {stages:?}"));
    (stage.rows, [stage.trained_tokens, stage.scored_tokens, stage.sampled_tokens])
}

fn has(stages: &[StageSummary], name: &str) -> bool {
    stages.iter().any(|stage| stage.stage == name)
}

#[test]
fn an_online_round_makes_its_pairs_before_it_trains() {
    let online = "[rounds.online]\nscorer = \"rules:ends=1\"\nmax-new-tokens = 7\nrefresh = 2\n";
    let stages = stages(&format!("[[rounds]]\ndimension = \"style\"\nsteps = 3\n{online}"));
    let made: Vec<&str> =
        stages.iter().map(|stage| stage.stage.as_str()).filter(|name| name.contains("style")).collect();
    assert_eq!(made[..2], ["pair for round-1-style-1", "train round-1-style-1"]);
    assert!(made.contains(&"pair for round-1-style-2"), "{made:?}");
    // Four answers to each of eleven prompts, and pairs of two of the longest ones.
    assert_eq!(numbers(&stages, "pair for round-1-style-1"), (48, [0, 12 * 15, 48 * 7]));
    assert_eq!(numbers(&stages, "train round-1-style-1").1[0], 2 * 2 * 15);
    assert_eq!(numbers(&stages, "train round-1-style-2").1[0], 2 * 15);
}

#[test]
fn a_round_of_scores_samples_in_its_steps() {
    let online = "[rounds.online]\nscorer = \"rules:ends=1\"\nmax-new-tokens = 7\nsamples = 3\n";
    let settings = "objective = \"score\"\noptimizer = \"mezo\"\nsteps = 5\nzo-estimates = 2\neval-every = 5\n";
    let stages = stages(&format!("[[rounds]]\ndimension = \"style\"\n{settings}{online}"));
    assert!(!stages.iter().any(|stage| stage.stage.starts_with("pair for")), "{stages:?}");
    // Three answers to two prompts at four probes in five steps, once more for the noise, and two held-out prompts once.
    let (rows, [_, _, sampled]) = numbers(&stages, "train round-1-style");
    assert_eq!((rows, sampled), (10, (2 * 3 * (4 * 5 + 1) + 2 * 3) * 7));
}

/// Three held-out pairs of six tokens and a list of four.
const HELD_OUT: (usize, u64) = (9, 22);

const TWO_ROUNDS: &str = "[[rounds]]\ndimension = \"honesty\"\n[[rounds]]\ndimension = \"tone\"\n";

#[test]
fn stages_come_in_order() {
    let stages = stages(&format!(
        "[warmup]\nsteps = 1\n{TWO_ROUNDS}gate = {{ honesty = {{ accuracy = \">= 0.5\" }} }}\n\
         [[rounds.controls]]\nname = \"free\"\nlambda = 0.0\n"
    ));
    let names: Vec<&str> = stages.iter().map(|stage| stage.stage.as_str()).collect();
    let expected = [
        "start",
        "train warmup",
        "score warmup",
        "show warmup",
        "draw warmup",
        "train round-1-honesty",
        "score round-1-honesty",
        "evaluate round-1-honesty",
        "show round-1-honesty",
        "draw round-1-honesty",
        "compare round-1-honesty",
        "train round-2-tone",
        "score round-2-tone",
        "evaluate round-2-tone",
        "show round-2-tone",
        "draw round-2-tone",
        "gate round-2-tone",
        "train round-2-tone.free",
        "score round-2-tone.free",
        "evaluate round-2-tone.free",
        "show round-2-tone.free",
        "draw round-2-tone.free",
        "compare round-2-tone",
        "KL to warmup",
        "KL to round-1-honesty",
        "export",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_policy_scores_what_later_rounds_visit() {
    let stages =
        stages(&format!("[warmup]\nsteps = 1\n{TWO_ROUNDS}[[rounds.controls]]\nname = \"dpo\"\nobjective = \"dpo\"\n"));
    let (answers, tokens) = HELD_OUT;
    // Preferred answers of two tokens behind a prompt of one; then pairs of six tokens.
    assert_eq!(numbers(&stages, "train warmup"), (2, [6, 0, 0]));
    assert_eq!(numbers(&stages, "train round-1-honesty"), (2, [12, 0, 0]));
    // Two pairs of round 1 and two other pairs of round 2; after round 1 the latter.
    assert_eq!(numbers(&stages, "score warmup"), (answers + 8, [0, tokens + 24, 0]));
    assert_eq!(numbers(&stages, "score round-1-honesty"), (answers + 4, [0, tokens + 12, 0]));
    assert_eq!(numbers(&stages, "score round-2-tone"), (answers, [0, tokens, 0]));
    assert_eq!(numbers(&stages, "score round-2-tone.dpo"), (answers, [0, tokens, 0]));
    // One displayed prompt and two for the KL, of at most five tokens.
    assert_eq!(numbers(&stages, "show warmup"), (1, [0, 0, 5]));
    assert_eq!(numbers(&stages, "draw round-2-tone.dpo"), (2, [0, 0, 10]));
}

#[test]
fn several_epochs_count_every_visit() {
    let stages = stages("[[rounds]]\ndimension = \"honesty\"\nsteps = 9\n");
    assert_eq!(numbers(&stages, "train round-1-honesty"), (8, [9 * 12, 0, 0]));
    let stage = stages.iter().find(|stage| stage.stage == "train round-1-honesty").unwrap();
    assert_eq!(stage.steps, 9);
}

#[test]
fn evaluations_on_the_way_score_and_sample() {
    let stages = stages("[[rounds]]\ndimension = \"honesty\"\nsteps = 3\neval-every = 2\nmax-kl = 1.0\n");
    let (_, tokens) = HELD_OUT;
    // After step 2 and after the last one.
    assert_eq!(numbers(&stages, "train round-1-honesty"), (6, [36, 2 * tokens, 2 * 10]));
}

#[test]
fn shortened_answers_are_scored_by_every_earlier_policy() {
    let stages = stages(&format!("{TWO_ROUNDS}objective = \"dpo\"\nld-alpha = 0.5\n"));
    let (answers, tokens) = HELD_OUT;
    // Each pair's longer answer, cut to two tokens, behind its prompt.
    assert_eq!(numbers(&stages, "score start"), (answers + 8 + 2, [0, tokens + 24 + 6, 0]));
    assert_eq!(numbers(&stages, "score round-1-honesty"), (answers + 4 + 2, [0, tokens + 12 + 6, 0]));
}

#[test]
fn mismatched_answers_are_scored_by_the_reference() {
    let stages = stages(&format!("{TWO_ROUNDS}objective = \"kto\"\n"));
    let (answers, tokens) = HELD_OUT;
    // The two answers of one pair; the first borrows the last row's answer of three tokens, the second the first's of two.
    assert_eq!(numbers(&stages, "train round-2-tone"), (2, [3 + 4, 0, 0]));
    assert_eq!(numbers(&stages, "score start"), (answers + 4 + 2, [0, tokens + 12 + 6, 0]));
    assert_eq!(numbers(&stages, "score round-1-honesty"), (answers + 2 + 2, [0, tokens + 6 + 4 + 3, 0]));
}

#[test]
fn a_reference_answers_what_the_next_round_asks() {
    let stages = stages(&format!("{TWO_ROUNDS}objective = \"selm\"\nmax-new-tokens = 4\neval-every = 1\n"));
    let (answers, tokens) = HELD_OUT;
    // Prompts of two visited pairs and of three held-out ones.
    assert_eq!(numbers(&stages, "sample round-1-honesty"), (5, [0, 0, 20]));
    assert_eq!(numbers(&stages, "score round-1-honesty"), (answers + 4 + 5, [0, tokens + 12 + 5 * (1 + 4), 0]));
    assert!(!has(&stages, "sample start") && !has(&stages, "sample round-2-tone"), "{stages:?}");
}

#[test]
fn lists_are_scored_whole() {
    let stages = stages("[[rounds]]\ndimension = \"rank\"\nobjective = \"opo\"\n");
    let (answers, tokens) = HELD_OUT;
    assert_eq!(numbers(&stages, "train round-1-rank"), (2, [8, 0, 0]));
    assert_eq!(numbers(&stages, "score start"), (answers + 6, [0, tokens + 8, 0]));
}

#[test]
fn without_held_out_rows_nothing_is_sampled_of_them() {
    let text = format!("{TWO_ROUNDS}[evaluation]\nkl-samples = 2\n");
    let stages = stages_of(&text, vec![]);
    assert!(
        !stages.iter().any(|stage| stage.stage.starts_with("draw ") || stage.stage.starts_with("KL ")),
        "{stages:?}"
    );
    assert_eq!(numbers(&stages, "score round-1-honesty"), (4, [0, 12, 0]));
}

#[test]
fn without_samples_there_are_no_distances() {
    let with = stages(TWO_ROUNDS);
    assert!(has(&with, "draw start") && has(&with, "KL to start"), "{with:?}");
    let without = stages(&format!("{TWO_ROUNDS}[evaluation]\nkl-samples = 0\n"));
    assert!(
        !without.iter().any(|stage| stage.stage.starts_with("draw ") || stage.stage.starts_with("KL ")),
        "{without:?}"
    );
}

#[test]
fn bounds_on_samples_write_answers_that_frozen_policies_score() {
    let hold = "hold = { honesty = { reward = \"-1\" }, on = \"samples\", sample-prompts = 3, samples = 2, max-new-tokens = 7 }";
    let stages = stages(&format!("[[rounds]]\ndimension = \"honesty\"\n[[rounds]]\ndimension = \"tone\"\n{hold}\n"));
    // Two answers of two policies to three prompts of one token; the policy after round 1 and the start score them.
    assert_eq!(numbers(&stages, "evaluate round-2-tone"), (12, [0, 2 * 12 * 8, 12 * 7]));
    assert_eq!(numbers(&stages, "evaluate round-1-honesty"), (0, [0, 0, 0]));
    // Here no prompts drive λ.
    let (_, [_, scored, sampled]) = numbers(&stages, "train round-2-tone");
    assert_eq!((scored, sampled), (0, 0));
}
