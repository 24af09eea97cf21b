//! The pairs of several users, and which of them stand for a user: drawn by a counter, so that there is nothing to store.

use crate::TrainError;
use crate::config::SteeringPlan;
use crate::policy::embeddings::Embeddings;
use burn::tensor::Device;
use spo_data::{Dataset, PairRef};
use spo_model::lora::mix;
use spo_model::steering::Contexts;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Pairs with the user of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserPairs {
    /// The users.
    pub names: Vec<String>,
    pub pairs: Vec<PairRef>,
    /// The user of each pair, by index.
    pub of: Vec<usize>,
}

impl UserPairs {
    /// Those of a set: of each user that is a dimension the pairs along it; or the pairs along `dimension` with the user
    /// that a field of their rows names.
    ///
    /// # Errors
    /// A row without that field, or none of two users.
    pub fn of(dataset: &Dataset, dimension: &str, plan: &SteeringPlan) -> Result<Self, TrainError> {
        let Some(column) = &plan.column else {
            let mut all = Self { names: plan.users.clone(), ..Self::default() };
            for (user, name) in plan.users.iter().enumerate() {
                let pairs = dataset.pairs(name);
                all.of.extend(vec![user; pairs.len()]);
                all.pairs.extend(pairs);
            }
            return Ok(all);
        };
        let pairs = dataset.pairs(dimension);
        let named = |pair: &PairRef| {
            let example = &dataset.examples[pair.example];
            example.tags.get(column).cloned().ok_or_else(|| {
                let fields: Vec<&str> = example.tags.keys().map(String::as_str).collect();
                TrainError::steering(format!(
                    "row {} has no text under `{column}`, which `steering.column` says names its user; found the fields [{}]",
                    example.id,
                    fields.join(", ")
                ))
            })
        };
        let users = pairs.iter().map(named).collect::<Result<Vec<String>, _>>()?;
        let names: Vec<String> = users.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        if let [only] = names.as_slice() {
            return Err(TrainError::steering(format!(
                "all rows are of one user ({only:?} under `{column}`): expected two or more, or there is nothing to tell apart"
            )));
        }
        let index: HashMap<&String, usize> = names.iter().enumerate().map(|(index, name)| (name, index)).collect();
        let of = users.iter().map(|user| index[user]).collect();
        Ok(Self { names, pairs, of })
    }
}

/// Which labels contexts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Labels {
    /// Their own.
    Own,
    /// A fair coin's: what contexts say beside their labels.
    Shuffled,
    /// All of them the other way round.
    Swapped,
}

impl Labels {
    fn swaps(self, key: u64, row: usize) -> bool {
        match self {
            Self::Own => false,
            Self::Swapped => true,
            Self::Shuffled => mix(key ^ mix(row as u64)) & 1 == 1,
        }
    }
}

/// The pairs that may stand for their users.
#[derive(Debug, Clone)]
pub(crate) struct ContextPool {
    dataset: Arc<Dataset>,
    pub users: UserPairs,
    /// Which of the distinct prompts each pair has.
    prompts: Vec<usize>,
    /// Pairs of each user.
    rows: Vec<Vec<usize>>,
    embeddings: Arc<Embeddings>,
    /// Numbers of a pair.
    inputs: usize,
}

impl ContextPool {
    /// Of these pairs; `width` is that of an embedding.
    ///
    /// # Errors
    /// An answer that was not embedded.
    pub fn new(
        dataset: &Arc<Dataset>,
        users: UserPairs,
        embeddings: &Arc<Embeddings>,
        width: usize,
    ) -> Result<Self, TrainError> {
        let mut rows = vec![vec![]; users.names.len()];
        users.of.iter().enumerate().for_each(|(row, user)| rows[*user].push(row));
        let mut known = HashMap::new();
        let mut prompts = vec![];
        for pair in &users.pairs {
            let example = &dataset.examples[pair.example];
            let next = known.len();
            prompts.push(*known.entry(example.prompt.as_slice()).or_insert(next));
            for answer in [pair.chosen, pair.rejected] {
                if embeddings.get(&example.prompt, &example.answers[answer]).is_none() {
                    return Err(TrainError::steering(format!("row {} was not embedded", example.id)));
                }
            }
        }
        let (dataset, embeddings, inputs) = (dataset.clone(), embeddings.clone(), 2 * width);
        Ok(Self { prompts, dataset, users, rows, embeddings, inputs })
    }

    /// The prompt of a pair, by its number.
    pub fn prompt(&self, row: usize) -> usize {
        self.prompts[row]
    }

    /// `count` distinct pairs of a user whose prompts are none of `excluded`, or as many as there are, as a function of
    /// `key`.
    pub fn draw(&self, user: usize, count: usize, excluded: &HashSet<usize>, key: u64) -> Vec<usize> {
        let rows = &self.rows[user];
        let (mut drawn, mut seen) = (vec![], HashSet::new());
        // Where few pairs are left, a walk through all of them from a drawn place ends it.
        let tries = 8 * count as u64 + 32;
        let at = |attempt: u64| (mix(key ^ mix(attempt)) % rows.len() as u64) as usize;
        let walk = |step: u64| (at(tries) + step as usize) % rows.len();
        let places = (0..if rows.is_empty() { 0 } else { tries }).map(at);
        for place in places.chain((0..rows.len() as u64).map(walk)) {
            if drawn.len() == count {
                break;
            }
            let row = rows[place];
            if !excluded.contains(&self.prompts[row]) && seen.insert(row) {
                drawn.push(row);
            }
        }
        drawn
    }

    /// Sets of pairs with these labels, as an encoder takes them.
    pub fn contexts(&self, sets: &[Vec<usize>], labels: Labels, key: u64, device: &Device) -> Contexts {
        let pair = |row: &usize, key: u64| {
            let pair = &self.users.pairs[*row];
            let example = &self.dataset.examples[pair.example];
            let embedding = |answer: usize| {
                self.embeddings.get(&example.prompt, &example.answers[answer]).expect("all pairs were embedded")
            };
            let [chosen, rejected] = [pair.chosen, pair.rejected].map(embedding);
            if labels.swaps(key, *row) { [rejected, chosen] } else { [chosen, rejected] }
        };
        // A coin for each set: the same pair says something else elsewhere.
        let set = |rows: &Vec<usize>| {
            let key = rows.iter().fold(key, |key, row| mix(key ^ *row as u64));
            rows.iter().map(|row| pair(row, key)).collect()
        };
        let sets: Vec<Vec<_>> = sets.iter().map(set).collect();
        Contexts::new(&sets, self.inputs, device)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use spo_data::{Example, Preference};
    use std::collections::BTreeMap;

    /// 30 rows on 10 prompts, along two opposite dimensions, with a user each.
    fn dataset() -> Arc<Dataset> {
        let labels = [("a", Preference::First), ("b", Preference::Second)];
        let labels: BTreeMap<String, Preference> = labels.map(|(name, label)| (name.to_owned(), label)).into();
        let example = |row: u32| Example {
            id: format!("row-{row}"),
            prompt: [row % 10].into(),
            answers: vec![[100 + row].into(), [200 + row].into()],
            labels: Arc::new(labels.clone()),
            tags: Arc::new([("user".to_owned(), format!("u{}", row % 3))].into()),
            ..Example::default()
        };
        Arc::new(Dataset { examples: (0..30).map(example).collect(), report: Default::default() })
    }

    fn plan(users: &[&str], column: Option<&str>) -> SteeringPlan {
        let users = users.iter().map(|user| user.to_string()).collect();
        SteeringPlan {
            users,
            column: column.map(String::from),
            contexts: 10,
            width: 8,
            heads: 2,
            films: true,
            evaluate: vec![0],
        }
    }

    fn pool() -> ContextPool {
        let dataset = dataset();
        let users = UserPairs::of(&dataset, "a", &plan(&["a", "b"], None)).unwrap();
        let embeddings = Embeddings::of(dataset.examples.iter().flat_map(|example| {
            example.answers.iter().map(|answer| ((&example.prompt[..], &answer[..]), vec![answer[0] as f32]))
        }));
        ContextPool::new(&dataset, users, &Arc::new(embeddings), 1).unwrap()
    }

    #[test]
    fn contexts_are_of_their_user_distinct_and_never_of_an_excluded_prompt() {
        let pool = pool();
        let excluded: HashSet<usize> = [0, 3, 4].into();
        for (user, key) in [(0, 1), (0, 2), (1, 3), (1, 4)] {
            let drawn = pool.draw(user, 10, &excluded, key);
            assert_eq!(drawn, pool.draw(user, 10, &excluded, key));
            assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 10);
            assert!(drawn.iter().all(|row| pool.users.of[*row] == user && !excluded.contains(&pool.prompt(*row))));
        }
        assert_ne!(pool.draw(0, 10, &excluded, 1), pool.draw(0, 10, &excluded, 2));
        assert_eq!(pool.draw(0, 50, &excluded, 1).len(), 21, "as many as there are");
        assert!(pool.draw(0, 3, &(0..10).collect(), 1).is_empty());
    }

    #[test]
    fn labels_decide_which_embedding_comes_first() {
        let pool = pool();
        let rows = vec![vec![2, 5], vec![32]];
        let pairs = |labels| pool.contexts(&rows, labels, 7, &Device::default());
        let numbers = |labels| pairs(labels).pairs.into_data().iter::<f32>().collect::<Vec<_>>();
        assert_eq!(pairs(Labels::Own).sets, [2, 1]);
        // Around their middle, chosen first: 102 against 202, 105 against 205, and 202 against 102.
        let is = |found: Vec<f32>, signs: [f32; 6]| found.iter().zip(signs).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(is(numbers(Labels::Own), [-1.0, 1.0, -1.0, 1.0, 1.0, -1.0]));
        assert!(is(numbers(Labels::Swapped), [1.0, -1.0, 1.0, -1.0, -1.0, 1.0]));
        let swapped = (0..1000).filter(|row| Labels::Shuffled.swaps(9, *row)).count();
        assert!((450..550).contains(&swapped), "{swapped}");
    }

    #[test]
    fn a_field_names_users_and_its_absence_is_refused() {
        let dataset = dataset();
        let users = UserPairs::of(&dataset, "a", &plan(&[], Some("user"))).unwrap();
        assert_eq!((users.names.as_slice(), users.of[4]), (["u0", "u1", "u2"].map(String::from).as_slice(), 1));
        let error = UserPairs::of(&dataset, "a", &plan(&[], Some("person"))).unwrap_err().to_string();
        assert!(error.contains("row-0") && error.contains("person") && error.contains("[user]"), "{error}");
        let mut one = (*dataset).clone();
        one.examples.retain(|example| example.tags["user"] == "u1");
        let error = UserPairs::of(&one, "a", &plan(&[], Some("user"))).unwrap_err().to_string();
        assert!(error.contains("one user"), "{error}");
    }
}
