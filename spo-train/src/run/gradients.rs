//! Which rows the gradients of a phase's dimensions are looked at on.

use crate::TrainError;
use crate::config::RunPlan;
use crate::phase::gradients::{Probe, Probes};
use crate::policy::logps::PolicyLogps;
use crate::run::place::{PhaseData, Place, places};
use crate::task::build::{Frozen, Lambdas};
use crate::task::data::TaskData;
use burn::tensor::Device;

/// The rows of one dimension.
#[derive(Debug)]
pub(crate) struct Probed<'a> {
    /// The dimension.
    pub dimension: &'a str,
    /// The phase's rows; of an earlier dimension those of its round, with the round's index.
    pub data: (&'a TaskData, Option<usize>),
    /// Some of them.
    pub rows: Vec<usize>,
    /// Its place among the dimensions that the phase weighs, and their number.
    alone: Option<(usize, usize)>,
}

/// What a phase looks at: the dimensions that it weighs, or its own and those of the rounds before, whose losses are on
/// single pairs; nothing where that is only one. `phases` are the rows of all phases, in the order of [`places`].
pub(crate) fn probed<'a>(plan: &RunPlan, place: &Place, phases: &'a [PhaseData]) -> Vec<Probed<'a>> {
    let pairs = plan.evaluation.gradient_pairs;
    let (Some(arm), true) = (place.arm, pairs > 0 && !place.training.optimizer.is_zeroth_order()) else {
        return vec![];
    };
    let of = |round: usize, number: usize| {
        let is = |place: &Place| place.arm.is_some_and(|arm| (arm.index, arm.number) == (round, number));
        let found = places(plan).iter().position(is);
        &phases[found.expect("every arm has a place")]
    };
    let own = of(arm.index, arm.number);
    let fits = |data: &PhaseData| data.prompts().is_none() && data.train.is_of_single_pairs();
    if !fits(own) {
        return vec![];
    }
    let train = &own.train;
    if let Some(front) = train.front() {
        let of_dimension = |(index, dimension): (usize, &'a String)| Probed {
            dimension,
            data: (train, None),
            rows: train.first(pairs, |row| front.of_row[row] == index),
            alone: Some((index, front.dimensions.len())),
        };
        return front.dimensions.iter().enumerate().map(of_dimension).collect();
    }
    let probed = |data: &'a TaskData, round| Probed {
        dimension: &data.dimension,
        data: (data, round),
        rows: data.first(pairs, |_| true),
        alone: None,
    };
    let mut all = vec![probed(train, None)];
    for round in (0..arm.index).rev() {
        let data = of(round, 0);
        if fits(data) && all.iter().all(|known| known.dimension != data.train.dimension) {
            all.push(probed(&data.train, Some(round)));
        }
    }
    if all.len() > 1 { all } else { vec![] }
}

/// Tokens of one look.
pub(crate) fn tokens(probed: &[Probed]) -> u64 {
    let of = |probed: &Probed| probed.rows.iter().map(|&row| probed.data.0.group(row).tokens() as u64).sum::<u64>();
    probed.iter().map(of).sum()
}

/// The same with their losses: `history` are the log-probs of the policies that the phase comes from.
pub(super) fn probes<'a>(
    plan: &RunPlan,
    place: &Place,
    phases: &'a [PhaseData],
    (history, lambdas): (&[&PolicyLogps], &Lambdas),
    device: &Device,
) -> Result<Option<Probes<'a>>, TrainError> {
    let probed = probed(plan, place, phases);
    if probed.is_empty() {
        return Ok(None);
    }
    let probe = |Probed { dimension, data: (data, round), rows, alone }: Probed<'a>| {
        let task = round.map(|round| data.task(Frozen::before(round, &place.path, history, lambdas), device.clone()));
        Ok::<_, TrainError>(Probe { dimension: dimension.into(), task: task.transpose()?, rows, alone })
    };
    let dimensions = probed.into_iter().map(probe).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Probes { every: plan.evaluation.gradient_every, dimensions }))
}
