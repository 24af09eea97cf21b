//! Optimiser steps of DPO against the model itself.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use spo_kernels::memory::taken;
use spo_model::lora::is_adapter;
use spo_model::{device, parameters};
use spo_train::events::reporter::Reporter;
use spo_train::phase::stopping::Stopping;
use spo_train::phase::{Phase, PhaseState};
use spo_train::policy::Policies;
use spo_train::policy::adapters::policy_options;
use spo_train::policy::logps::LogpCache;
use spo_train::step::memory::peak_resident_bytes;
use spo_train::task::{PairInputs, PreferenceTask};
use spo_train::{Event, Sink, TrainError};

use super::STARTED;
use super::figures::{Details, Figures};
use super::setting::{Setting, Times};
use crate::allocator;
use crate::error::CliError;
use crate::view;

/// Looks at the clock after each step and hands every event on to where `spo train` shows it.
struct Clock {
    device: Device,
    steps_per_epoch: usize,
    first: Option<f64>,
    epoch_ends: Vec<Instant>,
    losses: Vec<f64>,
    shown: Box<dyn Sink>,
}

impl Sink for Clock {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        allocator::hear(event);
        self.shown.event(seconds, event)?;
        if let Event::Step(figures) = event {
            Setting::sync(&self.device);
            self.first.get_or_insert_with(|| STARTED.elapsed().as_secs_f64());
            self.losses.push(figures.loss);
            if self.losses.len().is_multiple_of(self.steps_per_epoch) {
                self.epoch_ends.push(Instant::now());
            }
        }
        Ok(())
    }
}

pub(super) fn measure(setting: &Setting) -> Result<Figures, CliError> {
    if setting.arguments.as_stored && setting.arguments.lora.is_none() {
        return Err(CliError::argument(
            "--as-stored",
            "all weights trained",
            "--lora RANK: such weights stay as they are",
        ));
    }
    let plan = setting.plan()?;
    let arm = plan.rounds[0].main();
    let options = policy_options(&plan, &setting.spec, &setting.device)?;
    let mut policies = Policies::new(options, setting.place.path(), &setting.data)?;
    let (model, trainable) = (policies.start("start")?, policies.trainable());
    let adapters = parameters::count(&model, is_adapter);
    let pairs = setting.data.pairs(&setting.dimension);
    let mut clock = Clock {
        device: setting.device.clone(),
        steps_per_epoch: pairs.len().div_ceil(arm.training.pairs_per_step),
        first: None,
        epoch_ends: vec![],
        losses: vec![],
        shown: view::progress(),
    };
    let stop = AtomicBool::new(false);
    let mut reporter = Reporter::new(setting.place.path().into(), &mut clock, &stop);
    let cache = LogpCache::open(setting.place.path())?;
    let reference = cache.fill(
        "start",
        policies.hash("start"),
        0,
        &model,
        &[&setting.data],
        setting.budget(&plan),
        &mut reporter,
    )?;
    let reference = reference.sides(&setting.data, &pairs, |_| true)?;
    let objective = spo_core::objective::build(&arm.objective, &arm.options)?;
    let inputs = PairInputs::new(&setting.data, &pairs, vec![reference]);
    let task = PreferenceTask::new(&setting.data, pairs, objective, inputs, device::cpu())?;
    let phase = Phase {
        name: "bench",
        round: 1,
        training: &arm.training,
        trainable,
        seed: plan.seed,
        hold: None,
        probes: None,
        shards: 1,
    };
    phase.run(
        PhaseState::new(model, arm.training.optimizer(trainable, plan.seed, 1)),
        &task,
        None,
        Stopping::never(),
        None,
        &mut reporter,
    )?;

    let (peak_bytes, card_bytes) = (peak_resident_bytes(), taken(&setting.device));
    let epochs = clock.epoch_ends.windows(2).map(|ends| (ends[1] - ends[0]).as_secs_f64()).collect();
    let mut work = setting.work();
    if let Some(settings) = &arm.training.zeroth_order {
        // A token counts once, whichever models it runs through.
        work.flops *= 2.0 * settings.zo_estimates as f64;
    }
    // Back through frozen weights there is one product for each of the forward pass, through trained ones there are two.
    work.flops = match plan.lora {
        _ if arm.training.zeroth_order.is_some() => work.flops,
        Some(_) => 2.0 * work.flops + 6.0 * adapters as f64 * work.tokens as f64,
        None => 3.0 * work.flops,
    };
    let times = Times { first: clock.first.unwrap_or_default(), epochs, peak_bytes, card_bytes };
    let mut figures = setting.figures("train", times, work);
    figures.details = Details {
        pairs_per_step: Some(arm.training.pairs_per_step),
        tokens_per_micro_batch: Some(arm.training.micro_batch_tokens(&setting.device)),
        lora: plan.lora.map(|lora| lora.rank),
        losses: Some(clock.losses),
        ..Details::default()
    };
    Ok(figures)
}
