//! Each watchdog barks at what it is for, once, and not at an ordinary run.

use spo_eval::Distribution;
use spo_train::config::WatchdogPlan;
use spo_train::events::watchdog::{Silence, Watchdogs};
use spo_train::events::{Event, HeldOut, StepFigures};
use std::time::Duration;

fn limits() -> WatchdogPlan {
    WatchdogPlan {
        gradient_norm_factor: 10.0,
        chosen_drop: 1.0,
        saturated_share: 0.25,
        length_factor: 1.5,
        overfitting: 3,
        slow_step_factor: 20.0,
    }
}

fn off() -> WatchdogPlan {
    WatchdogPlan {
        gradient_norm_factor: 0.0,
        chosen_drop: 0.0,
        saturated_share: 0.0,
        length_factor: 0.0,
        overfitting: 0,
        slow_step_factor: 0.0,
    }
}

fn figures(step: u64) -> StepFigures {
    StepFigures {
        phase: "round-1".into(),
        step,
        steps: 100,
        epoch: 0.01 * step as f64,
        loss: 0.6,
        grad_norm: 1.0 + 0.1 * (step % 3) as f64,
        learning_rate: 1e-4,
        accuracy: Some(0.7),
        margin: Some(0.2),
        chosen_log_ratio: Some(-0.5),
        rejected_log_ratio: Some(-1.5),
        chosen_tokens: Some(10.0),
        margin_offset: None,
        kl: None,
        degree_accuracy: None,
        degree_loss: None,
        signal_to_noise: None,
        score: None,
        answer_tokens: None,
        replayed: vec![],
        tokens: 500,
        seconds: 0.5,
        memory_bytes: 0,
    }
}

/// Forty steps, the ones from 20 on changed.
fn steps(change: impl Fn(&mut StepFigures)) -> Vec<Event> {
    let changed = |step| {
        let mut figures = figures(step);
        if step >= 20 {
            change(&mut figures);
        }
        Event::Step(figures)
    };
    (1..=40).map(changed).collect()
}

fn bark(limits: WatchdogPlan, events: &[Event]) -> Vec<String> {
    let mut watchdogs = Watchdogs::new(limits);
    events.iter().flat_map(|event| watchdogs.look(event)).collect()
}

/// The only warning, which must not come when the watchdogs are off.
#[track_caller]
fn only(events: &[Event]) -> String {
    assert!(bark(off(), events).is_empty());
    let [warning] = &bark(limits(), events)[..] else { panic!("{:?}", bark(limits(), events)) };
    warning.clone()
}

#[test]
fn an_ordinary_run_is_quiet() {
    assert!(bark(limits(), &steps(|_| ())).is_empty());
}

#[test]
fn an_exploding_gradient_norm() {
    let events = steps(|figures| figures.grad_norm = if figures.step == 20 { 55.0 } else { figures.grad_norm });
    insta::assert_snapshot!(only(&events), @"round-1 step 20: the gradient norm is 55.000, 50 times that of the steps before it (1.100). One batch may be odd; if it stays, the run diverges: lower learning-rate, or set max-grad-norm.");
}

#[test]
fn chosen_answers_that_collapse() {
    let events = steps(|figures| figures.chosen_log_ratio = Some(-2.0 * (figures.step - 18) as f64));
    let warning = only(&events);
    assert!(warning.contains("the chosen answers became less likely") && warning.contains("nll-weight"), "{warning}");
    // A warm-up has no reference.
    assert!(bark(limits(), &steps(|figures| figures.chosen_log_ratio = None)).is_empty());
}

#[test]
fn a_loader_that_hung() {
    let events = steps(|figures| figures.seconds = if figures.step == 31 { 90.0 } else { 0.5 });
    insta::assert_snapshot!(only(&events), @"round-1 step 31 took 90 s where a step takes 0.5 s: the loader, the disk or the device hung, or the machine slept or swapped.");
}

#[test]
fn a_loader_that_hangs() {
    let mut silence = Silence::default();
    for event in steps(|_| ()) {
        silence.add(&event);
    }
    assert_eq!(silence.check(Duration::from_secs(59)), None);
    let words = silence.check(Duration::from_secs(61)).unwrap();
    assert!(words.contains("61 s after round-1 step 40") && words.contains("loader"), "{words}");
    // Long steps may be silent for longer; so may whatever is between phases.
    let mut silence = Silence::default();
    steps(|figures| figures.seconds = 30.0).iter().for_each(|event| silence.add(event));
    assert_eq!(silence.check(Duration::from_secs(500)), None);
    assert!(silence.check(Duration::from_secs(601)).is_some());
    silence.add(&Event::Step(StepFigures { step: 100, ..figures(100) }));
    assert_eq!(silence.check(Duration::from_secs(601)), None);
    assert!(silence.check(Duration::from_secs(1801)).is_some());
}

fn started(margin_offset: &[f64]) -> Vec<Event> {
    vec![Event::PhaseStarted {
        phase: "round-2".into(),
        dimension: "b".into(),
        objective: "spo".into(),
        control: false,
        start: "round-1".into(),
        pairs: margin_offset.len(),
        steps: 10,
        margin_offset: Some(Distribution::of("c", margin_offset).unwrap()),
    }]
}

#[test]
fn saturated_margins() {
    assert!(bark(limits(), &started(&[0.1, -1.0, 4.0, -6.0])).is_empty(), "a quarter is not above a quarter");
    let warning = only(&started(&[0.1, -8.0, 4.0, -6.0]));
    assert!(warning.contains("|c| is above 5 on 50 % of the pairs") && warning.contains("Lower lambda"), "{warning}");
}

#[test]
fn responses_that_grow() {
    let drawn = |policy: &str, mean_tokens| Event::ResponsesSampled {
        policy: policy.into(),
        step: 10,
        responses: 32,
        mean_tokens,
        cut: 0.25,
    };
    assert!(bark(limits(), &[drawn("warmup", 20.0), drawn("round-1", 28.0)]).is_empty());
    let warning = only(&[drawn("warmup", 20.0), drawn("round-1", 50.0), drawn("round-1", 51.0)]);
    assert!(warning.contains("50.0 tokens (25 % of them cut at the limit), 2.5 times longer"), "{warning}");
    assert!(only(&[drawn("warmup", 20.0), drawn("round-1", 8.0)]).contains("2.5 times shorter"));
}

fn evaluations(losses: &[f64]) -> Vec<Event> {
    let look = |(index, loss): (usize, &f64)| {
        Event::HeldOut(HeldOut {
            phase: "round-1".into(),
            step: 10 * (index as u64 + 1),
            steps: 100,
            loss: *loss,
            degree_accuracy: None,
            score: None,
            dimensions: vec![],
            tokens: 100,
            seconds: 0.1,
        })
    };
    losses.iter().enumerate().map(look).collect()
}

#[test]
fn overfitting() {
    assert!(bark(limits(), &evaluations(&[0.6, 0.5, 0.55, 0.56, 0.54, 0.6, 0.61])).is_empty(), "never three in a row");
    let warning = only(&evaluations(&[0.6, 0.5, 0.55, 0.56, 0.58, 0.6]));
    assert!(warning.contains("step 50: the held-out loss rose 3 evaluations in a row"), "{warning}");
    assert!(warning.contains("0.5000 → 0.5500 → 0.5600 → 0.5800"), "{warning}");
}
