//! Reward models as scorers.

use serde_json::{Value, json};
use spo_data::{AnswerText, Group, PromptText, Record, TextSpec, Tokenizer, encode_record};
use spo_model::export::{ModelFiles, SHARD_BYTES, save};
use spo_model::reward::{Critic, Pooling, RewardModel};
use spo_model::{CausalLm, device};
use spo_score::{Item, NoModels, Opening, Registry, ScoreError, Scorer};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn open(dir: &Path, options: &str) -> Result<Box<dyn Scorer>, ScoreError> {
    let spec = format!("{{ kind = \"reward-model\", path = {dir:?}, device = \"cpu\"{options} }}");
    Registry::builtin().open(&spec.parse()?, &Opening { models: &NoModels, log: None, directory: None })
}

fn text(prompt: &str, response: &str) -> Item {
    Item { id: "row".into(), prompt: PromptText::Text(prompt.into()), response: response.into(), ..Item::default() }
}

fn score(scorer: &mut dyn Scorer, items: &[Item]) -> Vec<Option<f64>> {
    let scores = scorer.score(items, &mut |_| true).unwrap();
    scores.into_iter().map(|scores| scores.and_then(|scores| scores.of(None))).collect()
}

#[test]
fn rows_of_token_ids_are_scored_as_they_are() {
    let dir = root().join("fixtures/reward/gemma2-3labels");
    let golden: Value = serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let mut scorer = open(&dir, ", label = 1").unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let ids: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let item = Item { prompt_ids: ids[..1].to_vec(), response_ids: ids[1..].to_vec(), ..Item::default() };
        let found = score(scorer.as_mut(), &[item])[0].unwrap();
        assert!((found - case["scores"][1].as_f64().unwrap()).abs() < 1e-4, "{found} {case}");
    }
    let error = scorer.score(&[text("Why?", "Because.")], &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("token ids only"), "{error}");
    assert!(open(&dir, "").err().unwrap().to_string().contains("3 labels"));
    assert!(open(&dir, ", labels = 1").err().unwrap().to_string().contains("labels"));
}

/// Text is laid out as the model was trained, critiques come first where they are asked for.
#[test]
fn text_is_laid_out_as_in_training() {
    let (base, out) = (root().join("spo-cli/assets/stories260K"), tempfile::tempdir().unwrap());
    let model = CausalLm::from_dir(&base, None, &device::cpu()).unwrap().with_score_head(1, Pooling::BeforePads(2));
    save(&model, &ModelFiles::from_dir(&base).unwrap(), out.path(), SHARD_BYTES).unwrap();
    let layout = TextSpec { prompt_format: Some("Q: {prompt}\nA:".into()), ..TextSpec::default() };
    let manifest = json!({"spo": "0.1.0", "format": "hf", "text": layout});
    std::fs::write(out.path().join("manifest.json"), manifest.to_string()).unwrap();

    let tokenizer = Tokenizer::from_path(out.path()).unwrap();
    let mut expected = RewardModel::open(out.path(), None, None, &device::cpu()).unwrap();
    let of = |model: &RewardModel, prompt: &str, answer: &str| {
        let (prompt, answers) = (PromptText::Text(prompt.into()), vec![AnswerText::Text(answer.into())]);
        let record = Record { prompt, answers, ..Record::default() };
        let example = encode_record(&tokenizer, &layout, record).unwrap().0.unwrap();
        model.score(&[Group { prompt: &example.prompt, answers: vec![&example.answers[0]] }], 512, &mut |_| ())[0][0]
    };
    let items = [text("Why?", "Because it is."), text("Why?", ""), text("When?", "Now."), text("When?", "Then.")];
    let found = score(open(out.path(), "").unwrap().as_mut(), &items);
    assert_eq!(found[1], None, "nothing was answered");
    for (found, item) in found.iter().zip(&items).filter(|(found, _)| found.is_some()) {
        let expected = of(&expected, &item.prompt_text(), &item.response);
        assert!((found.unwrap() - expected).abs() < 1e-5, "{found:?} {expected}");
    }

    let written = score(open(out.path(), ", critique = true, max-critique-tokens = 6").unwrap().as_mut(), &items);
    expected.set_critic(out.path(), Critic::new(&tokenizer, 6).unwrap()).unwrap();
    assert!((written[0].unwrap() - of(&expected, "Why?", "Because it is.")).abs() < 1e-5);
    assert_ne!(written[0], found[0]);
    let stopped = open(out.path(), "").unwrap().score(&items, &mut |_| false);
    assert!(matches!(stopped, Err(ScoreError::Interrupted)));
}
