//! What a policy says of many answers, or writes to many prompts, by the processes that share a run. Each does a part that
//! is computed as it would be in a single process, so that the numbers are those of one.

use crate::TrainError;
use crate::events::reporter::Reporter;
use serde::Serialize;
use serde::de::DeserializeOwned;
use spo_data::{Group, micro_batches};
use spo_model::generate::{Control, GenerateOptions, Generation, Generator};
use spo_team::{Team, TeamError};
use std::ops::Range;

/// Indices of the groups whose micro-batches are each process's, in the order in which it scores them. A process that
/// packs its own groups comes to the same micro-batches: how many groups one takes depends on its longest alone.
pub(crate) fn members(team: &Team, groups: &[Group], token_budget: usize) -> Vec<Vec<usize>> {
    let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
    let mut of_ranks = vec![vec![]; team.size()];
    for (index, members) in micro_batches(&lengths, token_budget).into_iter().enumerate() {
        of_ranks[index % team.size()].extend(members);
    }
    of_ranks
}

/// The groups with these indices.
pub(crate) fn select<'g>(groups: &[Group<'g>], members: &[usize]) -> Vec<Group<'g>> {
    members.iter().map(|&member| groups[member].clone()).collect()
}

/// What each process found for its [`members`], in the order of all groups.
///
/// # Errors
/// Another process has failed.
pub(crate) fn collect<T: Serialize + DeserializeOwned>(
    team: &Team,
    members: &[Vec<usize>],
    own: Vec<T>,
) -> Result<Vec<T>, TeamError> {
    let found = members.iter().zip(team.share(own)?);
    let mut all: Vec<(usize, T)> = found.flat_map(|(members, found)| members.iter().copied().zip(found)).collect();
    all.sort_by_key(|(member, _)| *member);
    Ok(all.into_iter().map(|(_, found)| found).collect())
}

/// What `score` says of each group, where it packs them into micro-batches of at most so many tokens.
///
/// # Errors
/// Another process has failed.
pub(crate) fn scored<T: Serialize + DeserializeOwned>(
    team: &Team,
    groups: &[Group],
    token_budget: usize,
    score: impl FnOnce(&[Group]) -> Vec<T>,
) -> Result<Vec<T>, TeamError> {
    if team.is_solo() {
        return Ok(score(groups));
    }
    let members = members(team, groups, token_budget);
    let own = score(&select(groups, &members[team.rank()]));
    collect(team, &members, own)
}

/// The prompts of a process, of so many in parts of `unit` neighbours that are not torn apart.
fn share(prompts: usize, unit: usize, team: &Team) -> Range<usize> {
    let units = prompts.div_ceil(unit);
    let first = |rank: usize| (rank * units / team.size() * unit).min(prompts);
    first(team.rank())..first(team.rank() + 1)
}

/// Continues prompts, of which `batch` run together. Each has the stream of random numbers of its place.
///
/// # Errors
/// Another process has failed.
pub(crate) fn continued(
    team: &Team,
    generator: &mut Generator,
    batch: usize,
    prompts: &[&[u32]],
    options: &GenerateOptions,
    watch: &mut dyn FnMut(usize, u32) -> Control,
) -> Result<Vec<Generation>, TeamError> {
    let own = share(prompts.len(), generator.independent(batch), team);
    let options = GenerateOptions { first_stream: options.first_stream + own.start as u64, ..options.clone() };
    let generated = generator.generate(&prompts[own], &options, watch);
    Ok(team.share(generated)?.concat())
}

/// As [`continued`], unless the user ends the run.
///
/// # Errors
/// Also the user's interruption.
pub(crate) fn written(
    reporter: &Reporter,
    generator: &mut Generator,
    batch: usize,
    prompts: &[&[u32]],
    options: &GenerateOptions,
) -> Result<Vec<Generation>, TrainError> {
    let mut interruption = Ok(());
    let written = continued(&reporter.team, generator, batch, prompts, options, &mut |_, _| {
        interruption = reporter.check_stop_within();
        if interruption.is_ok() { Control::Continue } else { Control::Stop }
    })?;
    interruption.map(|()| written)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn processes_pack_what_a_single_one_does(
            lengths in prop::collection::vec(1usize..40, 0..40), budget in 1usize..120, size in 1usize..5
        ) {
            let tokens: Vec<Vec<u32>> = lengths.iter().map(|length| vec![0; *length]).collect();
            let groups: Vec<Group> = tokens.iter().map(|prompt| Group { prompt, answers: vec![] }).collect();
            // A group is known by its address, and a score says which groups were packed with it.
            let score = |groups: &[Group]| {
                let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
                let address = |member: &usize| groups[*member].prompt.as_ptr() as usize;
                let mut scores = vec![vec![]; groups.len()];
                for members in micro_batches(&lengths, budget) {
                    let packed: Vec<usize> = members.iter().map(address).collect();
                    members.iter().for_each(|member| scores[*member].clone_from(&packed));
                }
                scores
            };
            let (expected, score, groups) = (score(&groups), &score, &groups);
            let found = std::thread::scope(|scope| {
                let threads: Vec<_> = Team::threads(size).into_iter().map(|rank| scope.spawn(move || {
                    let team = rank.team();
                    let shares: Vec<Range<usize>> = team.share(share(groups.len(), 3, &team)).unwrap();
                    (scored(&team, groups, budget, score).unwrap(), shares)
                })).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            for (scores, shares) in found {
                prop_assert_eq!(&scores, &expected);
                prop_assert_eq!(shares.clone().into_iter().flatten().collect::<Vec<_>>(), (0..groups.len()).collect::<Vec<_>>());
                prop_assert!(shares.iter().all(|share| share.start % 3 == 0 || share.is_empty()));
            }
        }
    }
}
