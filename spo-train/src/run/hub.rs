//! What a run file names of the Hugging Face Hub, brought to this machine.

use crate::TrainError;
use crate::config::spec::{Located, Split};
use crate::config::{Origin, RunPlan, RunSpec};
use crate::events::{Event, Sink};
use spo_hub::{Kind, Name, Progress, Settings, Want};
use std::path::Path;

/// The run file with paths of the cache for names of the Hub, and what they are.
pub(super) fn local(spec: &RunSpec, sink: &mut dyn Sink) -> Result<(RunSpec, Vec<Located>), TrainError> {
    let settings = Settings::from_env();
    let (mut located, mut told) = (vec![], Ok(()));
    check_keys(spec)?;
    let local = spec.with_local(|key, text| {
        let Some(rest) = text.strip_prefix("hf://") else { return Ok(None) };
        let name = Name::parse(text, Path::new(""))?.expect("it has the scheme");
        let want = want(spec, key);
        let of_rows = matches!(want, Want::Rows { .. });
        if of_rows != (name.kind == Kind::Dataset) {
            let (expected, hint) = match of_rows {
                true => ("a data set", format!("write hf://datasets/{rest}")),
                false => ("a model", "data sets belong into [[data]]".to_owned()),
            };
            return Err(spec.refused(key, format!("found {text}, expected {expected}"), Some(hint)).into());
        }
        let pin = spec.pins().iter().find(|pin| pin.asked == text);
        let name = match pin {
            Some(pin) => Name::parse(&pin.name, Path::new(""))?.unwrap_or(name).pinned(&pin.commit),
            None => name,
        };
        let fetched = spo_hub::fetch(&name, &want, &settings, &mut |progress| {
            if told.is_ok() {
                told = sink.event(0.0, &event(progress));
            }
        })?;
        let texts =
            |paths: &[std::path::PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let paths = if of_rows { texts(&fetched.files) } else { texts(std::slice::from_ref(&fetched.path)) };
        located.push(Located { asked: text.into(), name: fetched.name, commit: fetched.commit, path: fetched.path });
        Ok::<_, TrainError>(Some(paths))
    })?;
    told.map(|()| (local, located))
}

/// Writes into the plan what the names were.
pub(super) fn note(plan: &mut RunPlan, located: &[Located]) {
    plan.hub = located.to_vec();
    for index in 0..located.len() {
        for key in ["asked", "name", "commit", "path"] {
            let from = "the Hugging Face Hub".to_owned();
            plan.origins.insert(format!("hub.{index}.{key}"), Origin::Computed { from });
        }
    }
}

fn event(progress: Progress) -> Event {
    match progress {
        Progress::Bytes { name, done, total } => Event::Downloading { name, done, total },
        Progress::Note(text) => Event::Warning { text },
    }
}

/// What is needed of the name that a key has.
fn want(spec: &RunSpec, key: &str) -> Want {
    let entry = key.strip_prefix("data.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    match entry.and_then(|index| spec.sections().data.get(index)) {
        Some(entry) => Want::Rows {
            config: entry.hub_config.clone(),
            split: entry.hub_split.clone(),
            test: entry.split == Split::Test,
        },
        None if key.ends_with(".prompts") => Want::Rows { config: None, split: None, test: false },
        None => Want::Model,
    }
}

/// Keys that only say something of a data set on the Hub.
fn check_keys(spec: &RunSpec) -> Result<(), TrainError> {
    for (index, entry) in spec.sections().data.iter().enumerate() {
        let of_hub = entry.source.path.as_slice().iter().any(|path| path.starts_with("hf://"));
        let keys = [("hub-config", &entry.hub_config), ("hub-split", &entry.hub_split)];
        if let Some((key, _)) = keys.into_iter().find(|(_, value)| value.is_some() && !of_hub) {
            let message = "the path of this entry is no data set of the Hub".to_owned();
            let hint = Some("a path such as hf://datasets/org/name has configurations and splits".to_owned());
            return Err(spec.refused(&format!("data.{index}.{key}"), message, hint).into());
        }
    }
    Ok(())
}
