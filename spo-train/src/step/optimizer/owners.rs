//! Which process keeps an optimiser's state of which parameter (stage 1 of ZeRO, Rajbhandari et al. 2020, arXiv
//! 1910.02054): it alone changes the parameter, and gives the others what has become of it.

use burn::tensor::{DType, Tensor, TensorData};
use spo_model::CausalLm;
use spo_model::parameters::{for_each, replace};
use spo_team::{Team, TeamError};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of other processes' parameters that are kept before the model gets them.
const AT_ONCE: usize = 64 << 20;

/// The owner of each parameter, as one of the processes sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    rank: usize,
    /// Owner and number of values of each parameter.
    of: Arc<BTreeMap<String, (usize, usize)>>,
}

impl Owners {
    /// Deals parameters, each with its number of values, to so many processes, of which `rank` is this one: the largest
    /// first, each to the process that has fewest values.
    pub fn new(parameters: impl IntoIterator<Item = (String, usize)>, rank: usize, ranks: usize) -> Self {
        let mut parameters: Vec<(String, usize)> = parameters.into_iter().collect();
        parameters.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        let (mut values, mut of) = (vec![0; ranks.max(1)], BTreeMap::new());
        for (path, length) in parameters {
            let owner = (0..values.len()).min_by_key(|owner| values[*owner]).unwrap_or(0);
            values[owner] += length;
            of.insert(path, (owner, length));
        }
        Self { rank, of: Arc::new(of) }
    }

    /// Those of a model's trained parameters.
    pub fn of_model(model: &CausalLm, trains: impl Fn(&str) -> bool, team: &Team) -> Self {
        let mut parameters = vec![];
        for_each(model, "", |parameter| {
            if trains(&parameter.path) {
                parameters.push((parameter.path, parameter.value.dims()[0]));
            }
        });
        Self::new(parameters, team.rank(), team.size())
    }

    /// Whether this process owns a parameter.
    pub fn is_own(&self, path: &str) -> bool {
        self.owner(path) == self.rank
    }

    /// Rank 0 owns what was not dealt.
    fn owner(&self, path: &str) -> usize {
        self.of.get(path).map_or(0, |(owner, _)| *owner)
    }

    /// Gives each process the parameters that others own and have changed; `changed` is the same on all of them. One of
    /// each owner at a time.
    ///
    /// # Errors
    /// Another process has failed.
    pub fn spread(&self, model: CausalLm, changed: &BTreeSet<String>, team: &Team) -> Result<CausalLm, TeamError> {
        let mut lists: Vec<Vec<&String>> = vec![vec![]; team.size()];
        changed.iter().for_each(|path| lists[self.owner(path)].push(path));
        // Those of about the same size are exchanged together.
        lists
            .iter_mut()
            .for_each(|list| list.sort_by_key(|path| (Reverse(self.of.get(*path).map(|(_, n)| *n)), *path)));
        let rounds = lists.iter().map(Vec::len).max().unwrap_or(0);
        let mut own = values_of(&model, &lists[team.rank()]);
        let (mut model, mut news, mut held) = (model, BTreeMap::new(), 0);
        for round in 0..rounds {
            let value = lists[team.rank()].get(round).and_then(|path| own.remove(path.as_str()));
            let bytes = value.map_or_else(Vec::new, |value| value.into_data().as_bytes().to_vec());
            for (rank, bytes) in team.gather(&bytes)?.into_iter().enumerate().filter(|(rank, _)| *rank != team.rank()) {
                held += bytes.len();
                news.extend(lists[rank].get(round).map(|path| (path.as_str(), bytes)));
            }
            if held >= AT_ONCE || round + 1 == rounds {
                model = with_values(model, std::mem::take(&mut news))?;
                held = 0;
            }
        }
        Ok(model)
    }
}

fn values_of(model: &CausalLm, paths: &[&String]) -> BTreeMap<String, Tensor<1>> {
    let wanted: BTreeSet<&str> = paths.iter().map(|path| path.as_str()).collect();
    let mut values = BTreeMap::new();
    for_each(model, "", |parameter| {
        if wanted.contains(parameter.path.as_str()) {
            values.insert(parameter.path, parameter.value);
        }
    });
    values
}

/// A model whose parameters of these names have other values.
fn with_values(model: CausalLm, mut news: BTreeMap<&str, Vec<u8>>) -> Result<CausalLm, TeamError> {
    let mut misfit = None;
    let model = replace(model, "", |parameter| match news.remove(parameter.path.as_str()) {
        None => parameter.value,
        Some(bytes) => {
            let (dtype, [length]) = (parameter.value.dtype(), parameter.value.dims());
            if bytes.len() != length * dtype.size() {
                misfit = Some(parameter.path);
                return parameter.value;
            }
            Tensor::from_data(data(bytes, length, dtype), (&parameter.value.device(), dtype))
        }
    });
    match misfit.as_deref().or_else(|| news.keys().next().copied()) {
        None => Ok(model),
        Some(path) => {
            Err(TeamError::Library { call: "a parameter of another process", text: format!("{path} has another size") })
        }
    }
}

fn data(bytes: Vec<u8>, length: usize, dtype: DType) -> TensorData {
    TensorData::from_bytes_vec(bytes, [length], dtype)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn owners_have_about_the_same() {
        let sizes = [("a", 7), ("b", 4), ("c", 4), ("d", 3), ("e", 1)];
        let parameters = || sizes.map(|(path, length)| (path.to_owned(), length));
        for ranks in 1..4 {
            let all: Vec<Owners> = (0..ranks).map(|rank| Owners::new(parameters(), rank, ranks)).collect();
            let own = |owners: &Owners| sizes.iter().filter(|(path, _)| owners.is_own(path)).map(|(_, n)| *n).sum();
            let values: Vec<usize> = all.iter().map(own).collect();
            assert_eq!(values.iter().sum::<usize>(), 19, "each has one owner");
            assert!(values.iter().all(|values| *values <= 19usize.div_ceil(ranks) + 3), "{ranks}: {values:?}");
        }
        assert!(Owners::new(parameters(), 0, 2).is_own("unheard of"));
    }
}
