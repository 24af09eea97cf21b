//! `spo merge`

mod sweep;

use std::path::PathBuf;

use burn::tensor::Device;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;
use spo_model::export::{self, Manifest, ModelFiles, Parity, SHARD_BYTES};
use spo_model::load::{LoadOptions, Storage};
use spo_model::lora::{merge_adapter, merge_adapter_at};
use spo_model::merge::{METHODS, Merger, Method, Settings, method};
use spo_model::{CausalLm, device, parameters};
use spo_train::config::RunPlan;
use spo_train::persist::directory::{START, WARMUP};

use super::export::probe;
use crate::error::CliError;
use crate::inputs::{LayoutArguments, TextArguments};
use crate::output::{Output, note};
use crate::places::{Place, run_of};

/// Make one model of several of the same shape, or score what several would make
///
/// Methods: linear (the weighted mean), slerp (along the arc between two), task-arithmetic (weighted changes of a base),
/// ties (changes trimmed, and averaged where signs agree), dare (a random share of the changes dropped, the others
/// scaled up). Adapters are merged into their models first. Every number is computed in f64, tensor by tensor.
/// With --sweep nothing is written: every weighting of a grid over the models is scored on pairs.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Two or more: model directories, GGUF files, or policies of a run, RUN:POLICY
    #[arg(required = true, num_args = 2.., value_name = "POLICY")]
    policies: Vec<PathBuf>,
    /// How; `spo list merges` has the formulas
    #[arg(long, default_value = "linear", value_parser = names())]
    method: String,
    /// What each policy counts, in their order: 0.7,0.3; equal weights without it. Those of task-arithmetic and dare are
    /// factors of changes, and need not sum to 1
    #[arg(long, value_name = "W,...", value_delimiter = ',', allow_negative_numbers = true)]
    weights: Option<Vec<f64>>,
    /// What the policies were before they changed, of task-arithmetic, ties and dare: a directory or RUN:POLICY. Without it
    /// the policy that the first round of their run started from
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Share of the changes that ties and dare keep
    #[arg(long, value_name = "P", default_value_t = 0.5)]
    density: f64,
    /// What the choices of dare follow from
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Directory to write; must not exist, or be empty
    #[arg(long, value_name = "DIR", required_unless_present = "sweep", conflicts_with = "sweep")]
    out: Option<PathBuf>,
    /// Score every weighting with this many steps from 0 to 1 for each policy, in the place of writing one; needs --data
    #[arg(long, value_name = "N", requires = "data", conflicts_with = "weights", value_parser = clap::value_parser!(u16).range(2..))]
    sweep: Option<u16>,
    /// File, directory or pattern with pairs to score a sweep on; may be repeated
    #[arg(long, value_name = "FILE", requires = "sweep")]
    data: Vec<PathBuf>,
    /// The model whose log-probs margins are relative to: without it --base, or what the policies' run started from
    #[arg(long, value_name = "DIR", requires = "sweep")]
    reference: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Bootstrap resamples
    #[arg(long, value_name = "N", default_value_t = 2000)]
    resamples: usize,
    /// Where a sweep is scored, and what was written: auto, cpu, vulkan, metal, wgpu, cuda, or with an index: cuda:0
    #[arg(long, default_value = "auto", help_heading = "Device")]
    device: String,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    layout: LayoutArguments,
}

fn names() -> PossibleValuesParser {
    METHODS.iter().map(|method| method.name).into()
}

/// What is merged.
struct Opened {
    device: Device,
    places: Vec<Place>,
    merger: Merger,
    settings: Settings,
    /// Number format of the first policy's files.
    storage: Storage,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        if let Some(out) = self.out.as_ref().filter(|out| out.read_dir().is_ok_and(|mut found| found.next().is_some()))
        {
            return Err(CliError::Exists { path: out.clone() });
        }
        let opened = self.open()?;
        match (self.sweep, &self.out) {
            (Some(steps), _) => self.sweep(&opened, steps.into(), output),
            (None, Some(out)) => self.write(&opened, out, output),
            (None, None) => unreachable!("clap asks for one of them"),
        }
    }

    fn open(&self) -> Result<Opened, CliError> {
        self.check_policies()?;
        let (method, device) = (method(&self.method).expect("clap knows the names"), device::open(&self.device)?);
        let places: Vec<Place> =
            self.policies.iter().map(|policy| Place::named(policy, None, None)).collect::<Result<_, _>>()?;
        let loaded = places.iter().map(|place| whole(place, &device)).collect::<Result<Vec<_>, _>>()?;
        let storage = Storage::of_dtype(loaded[0].1.dtype()).unwrap_or(Storage::F32);
        for (place, (below, _)) in places.iter().zip(&loaded).skip(1) {
            if loaded[0].0 != *below {
                let found = format!("{} on {}", place.name, place.model.display());
                let expected =
                    format!("an adapter on the weights below {}, {}", places[0].name, places[0].model.display());
                return Err(CliError::argument("POLICY", found, expected));
            }
        }
        let base = self.base(method)?.map(|base| Ok::<_, CliError>((base.name.clone(), whole(&base, &device)?.1)));
        let names = places.iter().map(|place| place.name.clone());
        let models = names.zip(loaded.into_iter().map(|(_, model)| model)).collect();
        let merger = Merger::new(method, models, base.transpose()?)?;
        let settings = Settings { density: self.density, seed: self.seed };
        Ok(Opened { device, places, merger, settings, storage })
    }

    /// Refuses the name of a method where a policy should stand.
    fn check_policies(&self) -> Result<(), CliError> {
        let is_method =
            |policy: &&PathBuf| !policy.exists() && policy.to_str().is_some_and(|name| method(name).is_some());
        let Some(found) = self.policies.iter().find(is_method).map(|policy| policy.display().to_string()) else {
            return Ok(());
        };
        let expected =
            format!("a model directory, a GGUF file or RUN:POLICY; the method is an option: --method {found}");
        Err(CliError::argument("POLICY", found, expected))
    }

    /// The base that a method asks for.
    fn base(&self, method: &Method) -> Result<Option<Place>, CliError> {
        match (method.base, &self.base) {
            (false, None) => Ok(None),
            (false, Some(base)) => {
                let expected = format!("none: {} looks at no base", method.name);
                Err(CliError::argument("--base", base.display().to_string(), expected))
            }
            (true, Some(base)) => Place::named(base, None, None).map(Some),
            (true, None) => self.start()?.map(Some).ok_or_else(|| {
                let expected = "the model that the policies changed; only runs say which it was, and all the same one";
                CliError::argument("--base", "none", expected)
            }),
        }
    }

    /// What the first rounds of the policies' runs started from, where all are of runs and it is one.
    fn start(&self) -> Result<Option<Place>, CliError> {
        let mut found = None::<Place>;
        for policy in &self.policies {
            let Some((run, _)) = run_of(policy) else { return Ok(None) };
            let name = if RunPlan::read(&run)?.warmup.is_some() { WARMUP } else { START };
            let place = Place::named(&PathBuf::from(format!("{}:{name}", run.display())), None, None)?;
            match &found {
                Some(found) if (&found.model, &found.adapter) != (&place.model, &place.adapter) => return Ok(None),
                Some(_) => {}
                None => found = Some(place),
            }
        }
        Ok(found)
    }

    /// Writes the model of one weighting, and reads it back.
    fn write(&self, opened: &Opened, out: &PathBuf, output: &mut Output) -> Result<(), CliError> {
        let count = opened.places.len();
        let weights = self.weights.clone().unwrap_or_else(|| vec![1.0 / count as f64; count]);
        let model = opened.merger.at(&weights, opened.settings)?;
        let first = &opened.places[0];
        let probe = probe(&model, first)?;
        let before = probe.score(&model);
        let files = ModelFiles::from_path(&first.model)?.with_ends()?;
        let model = model.stored_as(opened.storage);
        let dtype = model.dtype();
        export::save(&model, &files, out, SHARD_BYTES)?;
        let wide = LoadOptions { storage: Some(Storage::F32), blocks: None };
        let after = probe.score(&CausalLm::open(out, wide, &opened.device)?);
        let parity = Parity::check(&probe, &before, &after, export::rounding(dtype, &before), out)?;
        let terms: Vec<String> =
            opened.places.iter().zip(&weights).map(|(place, weight)| format!("{weight} {}", place.name)).collect();
        let mut manifest = Manifest::new("hf", format!("{dtype:?}").to_lowercase(), parity.clone());
        manifest.text.clone_from(&first.text);
        manifest.meta_prompts.clone_from(&first.meta);
        manifest.policy = Some(format!("{}: {}", self.method, terms.join(" + ")));
        manifest.write(out)?;
        note(format_args!(
            "{}: read back, the log-probs of {} answers differ by at most {:.1e} nats",
            out.display(),
            parity.sequences,
            parity.largest_difference
        ));
        output.pretty_json(&json!({ "path": out, "weights": weights, "manifest": manifest }))
    }
}

/// A place's model with its adapter merged into it, in the number format of its files; and the hash of what is below the
/// adapter, where there is one.
fn whole(place: &Place, device: &Device) -> Result<(Option<String>, CausalLm), CliError> {
    let model = CausalLm::open(&place.model, LoadOptions::default(), device)?;
    let Some(adapter) = &place.adapter else { return Ok((None, model)) };
    let below = parameters::hash(&model, |_| true);
    let model = match &place.point {
        Some(point) => merge_adapter_at(model, adapter, point)?,
        None => merge_adapter(model, adapter)?,
    };
    Ok((Some(below), model))
}
