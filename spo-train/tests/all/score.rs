//! Rounds whose loss is what a scorer says of the policy's own answers.

use crate::built_in::{TEXT, tables, written};
use crate::left::{assert_same, left};
use spo_train::config::RunSpec;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, HeldOut, Sink, StepFigures};
use spo_train::forecast::Forecast;
use spo_train::{Manifest, TrainError, prepare, resume, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const ROUND: &str = r#"[[rounds]]
dimension = "style"
objective = "score"
online = { scorer = "rules:length=3", max-new-tokens = 12 }
"#;

fn training(more: &str) -> String {
    format!(
        "[lora]\nrank = 4\n[training]\noptimizer = \"subzero\"\nsteps = 4\npairs-per-step = 6\nlearning-rate = 1e-4\n\
         eval-every = 2\n{more}\n"
    )
}

fn spec(dir: &Path, more: &str) -> RunSpec {
    let evaluation = "[evaluation]\nbootstrap-resamples = 40\nkl-samples = 5\nkl-max-new-tokens = 4\nsamples = 0\n";
    written(dir, &format!("schema = 1\nseed = 3\nout = \"out\"\n{}{TEXT}{evaluation}{more}", tables("cpu", 24, 12)))
}

fn events(spec: &RunSpec) -> Result<Vec<Event>, TrainError> {
    let mut seen = Memory::default();
    run(prepare(spec, &mut Memory::default())?, &mut seen, &AtomicBool::new(false))?;
    Ok(seen.0.into_iter().map(|record| record.event).collect())
}

fn steps<'e>(events: &'e [Event], phase: &str) -> Vec<&'e StepFigures> {
    let of = |event: &'e Event| if let Event::Step(figures) = event { Some(figures) } else { None };
    events.iter().filter_map(of).filter(|figures| figures.phase == phase).collect()
}

fn held_out<'e>(events: &'e [Event], phase: &str) -> Vec<&'e HeldOut> {
    let of = |event: &'e Event| if let Event::HeldOut(found) = event { Some(found) } else { None };
    events.iter().filter_map(of).filter(|found| found.phase == phase).collect()
}

#[test]
fn a_step_says_what_was_written_and_how_it_was_scored() {
    let dir = tempfile::tempdir().unwrap();
    let more = training("zo-estimates = 2") + ROUND;
    let (spec, phase) = (spec(dir.path(), &more), "round-1-style");
    let forecast = Forecast::of(&prepare(&spec, &mut Memory::default()).unwrap()).unwrap();
    // Six answers at both sides of two directions, and once more where the noise is measured; five held-out ones twice.
    let planned = forecast.phases[0].written.as_ref().unwrap();
    assert_eq!((planned.answers_per_step, planned.tokens_per_step), (24, 24 * 12));
    assert_eq!(planned.tokens, (4 * 24 + 6) * 12);
    let stage = forecast.stages.iter().find(|stage| stage.stage == format!("train {phase}")).unwrap();
    assert_eq!(stage.sampled_tokens, planned.tokens + 2 * 5 * 12);
    let events = events(&spec).unwrap();
    let steps = steps(&events, phase);
    assert_eq!(steps.len(), 4);
    for figures in &steps {
        // The loss is minus the score, and all that was sampled counts as run through the model.
        assert_eq!(figures.loss, -figures.score.unwrap());
        let tokens = figures.answer_tokens.unwrap();
        assert!((1.0..=12.0).contains(&tokens), "{figures:?}");
        assert!(figures.tokens > (24.0 * tokens) as u64, "{figures:?}");
        assert!(figures.accuracy.is_none() && figures.grad_norm.is_finite());
    }
    assert!(steps[0].signal_to_noise.is_some() && steps[1].signal_to_noise.is_none());
    let looks = held_out(&events, phase);
    assert_eq!(looks.iter().map(|look| look.step).collect::<Vec<_>>(), [2, 4]);
    assert!(looks.iter().all(|look| look.score == Some(-look.loss)));
    let read = |name: &str| std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert!(read("report.md").contains("Scores of a policy's own answers"));
    assert!(read("metrics.csv").lines().next().unwrap().ends_with("score,answer-tokens"));
    let rows = read("events.jsonl");
    assert!(!rows.contains("\"event\":\"pairs-made\"") && rows.contains("\"score\":"));
}

#[test]
fn a_policy_that_does_not_move_scores_the_same_and_the_slope_is_of_the_policies_alone() {
    let dir = tempfile::tempdir().unwrap();
    // Both sides are the policy itself, and draw with the same random numbers: no difference is left.
    let still = training("").replace("learning-rate = 1e-4", "learning-rate = 0.0\nzo-eps = 1e-30") + ROUND;
    let found = events(&spec(dir.path(), &still)).unwrap();
    let phase = "round-1-style";
    let looks: Vec<Option<f64>> = held_out(&found, phase).iter().map(|look| look.score).collect();
    assert!(looks.len() == 2 && looks[0] == looks[1], "{looks:?}");
    assert!(steps(&found, phase).iter().all(|figures| figures.grad_norm == 0.0));
    assert_eq!(steps(&found, phase)[0].signal_to_noise, Some(0.0));
    let warned = |event: &Event| matches!(event, Event::Warning { text } if text.contains("times the rounding of one"));
    assert!(found.iter().any(warned));
    // Other steps draw other numbers, other seeds too; the most likely answers have none.
    let scores = |found: &[Event]| steps(found, phase).iter().map(|figures| figures.score.unwrap()).collect::<Vec<_>>();
    let same_prompts = still.replace("pairs-per-step = 6", "pairs-per-step = 24\nshuffle = false");
    let drawn = scores(&events(&spec(tempfile::tempdir().unwrap().path(), &same_prompts)).unwrap());
    assert_ne!(drawn[0], drawn[1]);
    let greedy = same_prompts.replace("max-new-tokens", "temperature = 0, max-new-tokens");
    let greedy = scores(&events(&spec(tempfile::tempdir().unwrap().path(), &greedy)).unwrap());
    assert!(greedy.iter().all(|score| *score == greedy[0]), "{greedy:?}");
}

#[test]
fn a_score_rises_and_the_control_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let more = training("zo-estimates = 4")
        .replace("steps = 4", "steps = 24")
        .replace("eval-every = 2", "eval-every = 24")
        .replace("pairs-per-step = 6", "pairs-per-step = 24")
        .replace("1e-4", "1e-3")
        + ROUND
        + "[[rounds.controls]]\nname = \"still\"\nlearning-rate = 0.0\n";
    let spec = spec(dir.path(), &more);
    let found = events(&spec).unwrap();
    let mean = |phase: &str, from: usize| {
        let steps = steps(&found, phase);
        steps[from..from + 6].iter().map(|figures| figures.score.unwrap()).sum::<f64>() / 6.0
    };
    let (main, control) = ("round-1-style", "round-1-style.still");
    let of = |phase: &str| (mean(phase, 0), mean(phase, 18), held_out(&found, phase)[0].score.unwrap());
    let (rose, stayed) = (of(main), of(control));
    assert!(rose.1 > stayed.1 + 0.1 && rose.2 > stayed.2 + 0.1, "{rose:?} {stayed:?}");
}

/// Asks the run to stop at the first steps, or breaks it off there.
struct Breaks<'a> {
    after: usize,
    stop: Option<&'a AtomicBool>,
}

impl Sink for Breaks<'_> {
    fn event(&mut self, _: f64, event: &Event) -> Result<(), TrainError> {
        if matches!(event, Event::Step(_) | Event::HeldOut(_)) {
            match (self.after, self.stop) {
                (0, Some(stop)) => stop.store(true, Ordering::Relaxed),
                (0, None) => return Err(TrainError::sink("killed")),
                _ => self.after -= 1,
            }
        }
        Ok(())
    }
}

#[test]
fn equal_seeds_give_equal_bits_wherever_a_run_is_broken_off() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let checkpoints = "[checkpoints]\nevery-steps = 1\n";
    let momentum = training("zo-refresh = 3\nzo-momentum = 0.5");
    let spec = spec(dir.path(), &format!("{momentum}{ROUND}{checkpoints}"));
    events(&spec).unwrap();
    let expected = left(&out);
    for (after, asked) in [(0, true), (2, false), (3, true), (4, false)] {
        std::fs::remove_dir_all(&out).unwrap();
        let stop = AtomicBool::new(false);
        let prepared = prepare(&spec, &mut Memory::default()).unwrap();
        let broken = run(prepared, &mut Breaks { after, stop: asked.then_some(&stop) }, &stop);
        assert!(broken.is_err(), "{after}");
        let again = prepare(&Manifest::read(&out).unwrap().spec().unwrap(), &mut Memory::default()).unwrap();
        resume(again, &out, &[], &mut Memory::default(), &AtomicBool::new(false)).unwrap();
        assert_same(&left(&out), &expected, &format!("after {after}"));
    }
}

#[test]
fn all_weights_and_mezo_go_by_scores_too_and_a_program_may_decline() {
    for more in [training("").replace("[lora]\nrank = 4\n", ""), training("").replace("subzero", "mezo")] {
        let dir = tempfile::tempdir().unwrap();
        let found = events(&spec(dir.path(), &(more + ROUND))).unwrap();
        assert!(steps(&found, "round-1-style").iter().all(|figures| figures.score.is_some()));
    }
    if cfg!(windows) {
        return;
    }
    // Every second answer is declined: it takes no part. Of none there is no mean.
    let script = r#"while read -r a; do id=${a#*\"id\":}; id=${id%%[,\}]*}; if [ $((id % 2)) = 0 ]; then echo "{\"id\":$id,\"score\":2}"; else echo "{\"id\":$id,\"score\":null}"; fi; done"#;
    for (script, judged) in [(script.to_owned(), true), (script.replace("score\\\":2", "score\\\":null"), false)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("scorer.sh"), script).unwrap();
        let more = training("") + &ROUND.replace("rules:length=3", "command:sh scorer.sh");
        match events(&spec(dir.path(), &more)) {
            Ok(found) => {
                assert!(judged && steps(&found, "round-1-style").iter().all(|figures| figures.score == Some(2.0)));
            }
            Err(error) => assert!(!judged && error.to_string().contains("judged none of 6 answers"), "{error}"),
        }
    }
}

#[test]
fn what_cannot_go_by_scores_is_refused_with_a_reason() {
    let adamw = training("").replace("optimizer = \"subzero\"\n", "");
    let keys = |more: &str| training("") + &ROUND.replace("max-new-tokens", &format!("{more}, max-new-tokens"));
    for (more, message, hint) in [
        (adamw + ROUND, "`score` has no gradient", "optimizer = \"subzero\""),
        (training("") + &ROUND.replace("online", "#"), "the round names none", "spo list scorers"),
        (keys("pair = \"all\""), "about making pairs", ""),
        (keys("refresh = 2"), "about making pairs", ""),
        (keys("temperature = 0, samples = 2"), "all the same", ""),
        (training("zo-slopes = \"pairs\"") + ROUND, "no loss on the log-probs of one pair", "zo-slopes"),
        (training("") + ROUND + "beta = 0.1\n", "no option of the objective `score`", ""),
        (
            training("") + ROUND + "[[rounds.controls]]\nname = \"dpo\"\nobjective = \"dpo\"\n",
            "not made into pairs but scored",
            "the objective `score`",
        ),
        (
            training("")
                + &ROUND.replace("score\"\n", "dpo\"\n")
                + "[[rounds.controls]]\nname = \"s\"\nobjective = \"score\"\n",
            "learns from prompts, and answers are made into pairs",
            "an objective on pairs",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = prepare(&spec(dir.path(), &more), &mut Memory::default()).unwrap_err();
        assert!(error.to_string().contains(message), "{more}: {error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{more}: {:?}", error.hint());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut none = spec(dir.path(), &(training("") + ROUND));
    none.apply_set("evaluation.kl-samples=0").unwrap();
    let error = prepare(&none, &mut Memory::default()).unwrap_err();
    assert!(error.to_string().contains("`kl-samples` held-out prompts, and that is 0"), "{error}");
}
