//! What a phase is made of, once the policies before it are known: its task, and what it is evaluated on.

use crate::TrainError;
use crate::evaluate::held_out_loss::{HeldOutMargins, HeldOutTasks};
use crate::events::Event;
use crate::events::reporter::Reporter;
use crate::phase::gradients::Probes;
use crate::phase::hold::Hold;
use crate::policy::logps::PolicyLogps;
use crate::policy::sampling::Samples;
use crate::run::place::{PhaseData, Place, ReplayedData};
use crate::run::prepare::Prepared;
use crate::run::schedule::Training;
use crate::run::{gradients, hold};
use crate::task::build::{Embedded, Frozen, Lambdas};
use crate::task::data::TaskData;
use crate::task::{Judged, ReplayTask, ReplayedRows, Task};
use burn::tensor::Device;
use spo_eval::{DegreeScore, Distribution, length_accuracy};
use spo_model::CausalLm;

/// What earlier policies give to a phase.
pub(super) struct Given<'h> {
    /// Log-probs of the policies that it comes from, `π_0` first; none for a warm-up.
    pub history: Vec<&'h PolicyLogps>,
    /// Answers that its reference drew: for its rows, and for its held-out rows.
    pub samples: [Option<Samples>; 2],
    /// Its reference, where its loss looks at whole distributions.
    pub reference: Option<CausalLm>,
    /// What users are told apart by, in a run of several.
    pub contexts: Option<Embedded>,
    /// λ of earlier rounds that was found in training.
    pub lambdas: Lambdas,
    /// Who scores what its policy writes, where its loss is of that.
    pub judged: Option<Judged>,
    /// What makes rewards of what its policy writes, where its bounds are on that.
    pub rewarding: hold::Frozen,
}

/// A phase's task, and the tasks that it is evaluated on.
pub(super) struct Parts<'a> {
    pub task: Box<dyn Task + 'a>,
    pub held_out: Option<HeldOutTasks<'a>>,
    /// Bounds that its λ follows.
    pub hold: Option<Hold<'a>>,
    /// Rows whose gradients are compared on the way.
    pub probes: Option<Probes<'a>>,
    /// SPO's `c` on the pairs that it visits.
    margin_offset: Option<Vec<f64>>,
}

impl<'a> Parts<'a> {
    /// Those of a phase. Numbers of rows are computed on `device`.
    ///
    /// # Errors
    /// Log-probs that are not in the cache, an objective that refuses its inputs.
    pub fn new(
        prepared: &'a Prepared,
        training: &Training<'a>,
        given: Given,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let (place, data) = (&training.place, training.data);
        let Given { history, samples: [samples, held_out_samples], reference, contexts, lambdas, judged, rewarding } =
            given;
        let frozen = |samples| Frozen {
            names: &place.path,
            history: &history,
            samples,
            reference: reference.clone(),
            contexts: contexts.clone(),
            lambdas: lambdas.clone(),
            judged: judged.clone(),
        };
        let rows = data.rows();
        // Of the pairs that an online round made only the policies know that its loss looks at.
        let last = place.path.len() - 1;
        let since = if data.prompts().is_some() && !rows.looks_at_all_policies() { last } else { 0 };
        let own =
            Frozen { names: &place.path[since..], history: history.get(since..).unwrap_or(&[]), ..frozen(samples) };
        let (task, visited) = (rows.task(own, device.clone())?, rows.visited().collect::<Vec<_>>());
        let task = with_replayed(task, data, (&place.path, &history, &lambdas), device)?;
        let hold = hold::hold(prepared, place, (&history, rewarding), task.as_ref(), &visited)?;
        let margin_offset = task.margin_offset(&visited)?;
        let held_out = match &data.held_out {
            None => None,
            Some(rows) => Some(HeldOutTasks {
                own: rows.task(frozen(held_out_samples), device.clone())?,
                dimension: place.arm.map(|arm| arm.round.dimension.clone()),
                dimensions: margins(prepared, place, &history)?,
            }),
        };
        let probes = gradients::probes(&prepared.plan, place, &prepared.phases, (&history, &lambdas), device)?;
        Ok(Self { task, held_out, hold, probes, margin_offset })
    }

    /// How well the phase's head tells preference degrees apart on held-out rows, in the end; nothing where there is no head.
    ///
    /// # Errors
    /// A value that is not finite, or the user's interruption.
    pub fn degrees(
        &self,
        training: &Training,
        model: &CausalLm,
        reporter: &Reporter,
    ) -> Result<Option<Event>, TrainError> {
        let (place, data) = (&training.place, training.data);
        let (Some((degrees, lengths)), Some(held_out)) = (data.rows().classified(), &self.held_out) else {
            return Ok(None);
        };
        let policy = place.policy.clone();
        if model.score.is_none() {
            let text =
                format!("{policy} is an earlier policy of its round: how well it tells degrees apart is not known");
            return Ok(Some(Event::Warning { text }));
        }
        let of_held_out = data.held_out.as_ref().and_then(TaskData::classified).map(|(_, lengths)| lengths);
        let by_length = length_accuracy(&lengths, &of_held_out.unwrap_or_default(), degrees);
        let found = held_out.degrees(model, place.training, reporter)?;
        let (Some(length_accuracy), Some(found)) = (by_length, found) else {
            let text = format!("{policy}: no held-out answer has preference degrees");
            return Ok(Some(Event::Warning { text }));
        };
        let left_out = data.rows().without_degrees().unwrap_or_default();
        let (pairs, answers) = (data.rows().len() - left_out, found.answers as usize);
        let (accuracy, loss) = (found.accuracy(), found.mean_loss());
        let score = DegreeScore { policy, degrees, pairs, left_out, answers, accuracy, loss, length_accuracy };
        Ok(Some(Event::DegreesClassified(score)))
    }

    /// That the phase begins.
    ///
    /// # Errors
    /// Margin offsets that are not finite.
    pub fn started(&self, training: &Training) -> Result<Event, TrainError> {
        let (place, rows) = (&training.place, training.data.rows());
        let offset = self.margin_offset.as_ref();
        Ok(Event::PhaseStarted {
            phase: place.policy.clone(),
            dimension: rows.dimension.clone(),
            objective: rows.objective.clone(),
            control: place.arm.is_some_and(|arm| arm.is_control()),
            start: place.parent().into(),
            pairs: rows.len(),
            steps: place.training.steps,
            margin_offset: offset.map(|offset| Distribution::of("c", offset)).transpose()?,
        })
    }
}

/// A task with the rows that its phase replays: the policies before their round, and λ as it was there, give their losses.
fn with_replayed<'a>(
    own: Box<dyn Task + 'a>,
    data: &'a PhaseData,
    (names, history, lambdas): (&[String], &[&PolicyLogps], &Lambdas),
    device: &Device,
) -> Result<Box<dyn Task + 'a>, TrainError> {
    if data.replayed.is_empty() {
        return Ok(own);
    }
    let task = |ReplayedData { round, data }: &'a ReplayedData| {
        let task = data.task(Frozen::before(*round, names, history, lambdas), device.clone())?;
        Ok::<_, TrainError>(ReplayedRows { dimension: data.dimension.clone(), task })
    };
    let replayed = data.replayed.iter().map(task).collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(ReplayTask::new(own, replayed)))
}

/// What every dimension's labels say of the running policy or reward model; of a warm-up, which has no `π_0` yet, nothing.
fn margins<'a>(
    prepared: &'a Prepared,
    place: &Place,
    history: &[&PolicyLogps],
) -> Result<Vec<HeldOutMargins<'a>>, TrainError> {
    let set = &prepared.held_out;
    let of_dimension = |dimension: &String| {
        let rows = set.judged(dimension);
        let start = history.first().map(|start| set.logps(start, &rows)).transpose()?;
        Ok(HeldOutMargins { dimension: dimension.clone(), dataset: &set.dataset, rows, start })
    };
    match place.arm {
        Some(_) => set.dimensions.iter().map(of_dimension).collect(),
        None => Ok(vec![]),
    }
}
