//! Prompts as text: what scorers read, and what online rounds answer.

use crate::TrainError;
use crate::config::{OnlinePlan, RunPlan, RunSpec};
use crate::run::place::Place;
use spo_data::{Dataset, Example, Order, Prompt, TextSpec, Tokenizer, Tokens, prompts_of, read_prompts};
use spo_model::ModelSpec;
use std::collections::{HashMap, HashSet};

/// The prompts of a run's data as text, by their tokens; empty where nobody reads them.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    by_ids: HashMap<Vec<u32>, Prompt>,
}

impl Texts {
    /// Reads the rows once more where the plan has a scorer.
    pub fn of(spec: &RunSpec, plan: &RunPlan, tokenizer: &Tokenizer) -> Result<Self, TrainError> {
        let online = plan.rounds.iter().any(|round| round.online.is_some());
        if !online && plan.evaluation.scorer.is_none() {
            return Ok(Self::default());
        }
        let specs = spec.sources(None, plan.text.system.as_deref());
        let (records, _) = spec.registries().data.records(&specs)?;
        let prompts = prompts_of(records, &plan.text, tokenizer)?;
        Ok(Self { by_ids: prompts.into_iter().map(|prompt| (prompt.ids.clone(), prompt)).collect() })
    }

    /// The prompt of these tokens; one that was cut is what its tokens say.
    pub fn prompt(&self, id: &str, ids: &[u32], tokenizer: &Tokenizer) -> Result<Prompt, TrainError> {
        match self.by_ids.get(ids) {
            Some(prompt) => Ok(prompt.clone()),
            None => {
                let text = spo_data::PromptText::Text(tokenizer.decode(ids)?);
                Ok(Prompt { id: id.into(), text, ids: ids.to_vec() })
            }
        }
    }
}

/// What an online round answers.
#[derive(Debug)]
pub(crate) struct Prompts {
    /// In order.
    pub list: Vec<Prompt>,
    /// The data's own answers to each.
    data: HashMap<Vec<u32>, Vec<Tokens>>,
}

impl Prompts {
    /// Those of a round: of its file, or of the training data.
    ///
    /// # Errors
    /// A file that cannot be read, a prompt that leaves no room for an answer.
    pub fn of(
        place: &Place,
        plan: &OnlinePlan,
        (text, texts, tokenizer): (&TextSpec, &Texts, &Tokenizer),
        train: &Dataset,
        (model, seed): (&ModelSpec, u64),
    ) -> Result<Self, TrainError> {
        let all = match &plan.prompts {
            Some(path) => {
                let named = read_prompts(path)?.into_iter();
                named.map(|prompt| Ok(prompt.laid_out(text, tokenizer)?)).collect::<Result<Vec<_>, TrainError>>()?
            }
            None => {
                let mut seen = HashSet::new();
                let distinct = train.examples.iter().filter(|example| seen.insert(example.prompt.to_vec()));
                let prompt = |example: &Example| texts.prompt(&example.id, &example.prompt, tokenizer);
                distinct.map(prompt).collect::<Result<Vec<_>, TrainError>>()?
            }
        };
        for prompt in &all {
            // One token for the answer.
            model.check_row(&prompt.id, &prompt.ids, &[&[0]])?;
        }
        let list = match plan.prompts_at_once {
            0 => all,
            some => {
                // All parts of a round go through the prompts together.
                let round = place.round() - plan.part as u64;
                let order = Order { n: all.len(), batch: some.min(all.len()), seed, round, shuffle: true };
                order.batch(plan.part).into_iter().map(|index| all[index].clone()).collect()
            }
        };
        Ok(Self { data: if plan.include_data { data_answers(train, &list) } else { HashMap::new() }, list })
    }

    /// The data's distinct answers to a prompt.
    pub fn of_data(&self, prompt: &Prompt) -> impl Iterator<Item = &[u32]> {
        self.data.get(&prompt.ids).into_iter().flatten().map(|ids| &ids[..])
    }

    /// A pair for each prompt as it may turn out at most: for forecasts.
    pub fn expected(&self, dimension: &str, max_new_tokens: usize, model: &ModelSpec) -> Dataset {
        let example = |prompt: &Prompt| {
            let tokens = max_new_tokens.min(model.context - prompt.ids.len());
            // Not equal, so that a preference makes sense.
            let answers = vec![vec![0; tokens].into(), vec![1; tokens].into()];
            let labels = [(dimension.to_string(), spo_data::Preference::First)];
            Example {
                id: prompt.id.clone(),
                prompt: prompt.ids.clone().into(),
                answers,
                labels: std::sync::Arc::new(labels.into()),
                scores: [(dimension.to_string(), vec![1.0, 0.0])].into(),
                ..Example::default()
            }
        };
        Dataset { examples: self.list.iter().map(example).collect(), report: Default::default() }
    }
}

fn data_answers(train: &Dataset, list: &[Prompt]) -> HashMap<Vec<u32>, Vec<Tokens>> {
    let wanted: HashSet<&[u32]> = list.iter().map(|prompt| prompt.ids.as_slice()).collect();
    let mut found: HashMap<Vec<u32>, Vec<Tokens>> = HashMap::new();
    for example in train.examples.iter().filter(|example| wanted.contains(&example.prompt[..])) {
        let answers = found.entry(example.prompt.to_vec()).or_default();
        for answer in &example.answers {
            if !answers.contains(answer) {
                answers.push(answer.clone());
            }
        }
    }
    found
}
