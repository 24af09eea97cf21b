//! A run in MLflow, by its REST API.
//!
//! A server that fails never ends a run: what it did not take is kept and sent with what comes next, and a warning says so once.

use crate::TrainError;
use crate::config::{RunPlan, TrackPlan};
use crate::events::{Event, Sink, StepFigures};
use crate::persist::durable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use spo_eval::Subset;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use ureq::Agent;

/// The id of the run on the server, in the run directory: a resumed run goes on with it.
const FILE: &str = "mlflow.json";
/// Metrics that are sent at once; the server takes a thousand.
const BATCH: usize = 200;
/// Values of the plan that are sent at once, as the server has it.
const PARAMS: usize = 100;
/// Metrics that are kept for a server that does not answer.
const KEPT: usize = 100_000;

/// Tells an MLflow server what happens.
pub struct Mlflow {
    agent: Agent,
    address: String,
    experiment: String,
    authorization: Option<String>,
    name: String,
    params: Vec<Value>,
    file: PathBuf,
    id: Option<String>,
    /// Whether an earlier process of the run began it there.
    resumed: bool,
    metrics: Vec<Value>,
    /// Metrics beyond [`KEPT`], which nobody gets.
    lost: usize,
    /// What went wrong and was not told yet; told once until the server answers again.
    fault: Option<String>,
    told: bool,
}

impl Mlflow {
    /// The sink of a run, where its plan names a server.
    pub fn of(plan: &RunPlan, out: &Path) -> Option<Self> {
        let TrackPlan { mlflow, experiment } = plan.track.clone();
        let file = out.join(FILE);
        let kept = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let id = kept.and_then(|value| Some(value["run-id"].as_str()?.to_owned()));
        let timeout = Some(Duration::from_secs(10));
        let config = Agent::config_builder().timeout_global(timeout).http_status_as_error(false).build();
        let params =
            plan.lines().into_iter().map(|line| json!({ "key": plain(&line.key), "value": text(&line.value) }));
        Some(Self {
            agent: config.into(),
            address: mlflow?.trim_end_matches('/').into(),
            experiment,
            authorization: authorization(|name| std::env::var(name).ok()),
            name: plan.name.clone(),
            params: params.collect(),
            file,
            resumed: id.is_some(),
            id,
            metrics: vec![],
            lost: 0,
            fault: None,
            told: false,
        })
    }

    /// An answer of the server; the status and its message where it refuses.
    fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value, (u16, String)> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.address);
        let answer = match (body, &self.authorization) {
            (None, None) => self.agent.get(&url).call(),
            (None, Some(right)) => self.agent.get(&url).header("authorization", right).call(),
            (Some(body), right) => {
                let request = self.agent.post(&url).header("content-type", "application/json");
                let request = right.iter().fold(request, |request, right| request.header("authorization", right));
                request.send(body.to_string())
            }
        };
        let mut answer = answer.map_err(|error| (0, error.to_string()))?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string().map_err(|error| (0, error.to_string()))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        match status.is_success() {
            true => Ok(value),
            false => Err((status.as_u16(), format!("status {}: {}", status.as_u16(), text_of(&value["message"])))),
        }
    }

    /// The run's id on the server, which begins one if there is none.
    fn id(&mut self) -> Result<String, (u16, String)> {
        if let Some(id) = &self.id {
            if self.resumed {
                self.ask("runs/update", Some(&json!({ "run_id": id, "status": "RUNNING" })))?;
                self.resumed = false;
            }
            return Ok(id.clone());
        }
        let name: String = url_escaped(&self.experiment);
        let known = self.ask(&format!("experiments/get-by-name?experiment_name={name}"), None);
        let experiment = match known {
            Ok(found) => found["experiment"]["experiment_id"].clone(),
            Err((404, _)) => {
                self.ask("experiments/create", Some(&json!({ "name": self.experiment })))?["experiment_id"].clone()
            }
            Err(error) => return Err(error),
        };
        let body = json!({ "experiment_id": experiment, "run_name": self.name, "start_time": now(),
            "tags": [{ "key": "mlflow.source.name", "value": "spo" }] });
        let run = self.ask("runs/create", Some(&body))?;
        let id =
            run["run"]["info"]["run_id"].as_str().ok_or((0, "found no run.info.run_id in its answer".to_owned()))?;
        self.id = Some(id.to_owned());
        let kept = durable::write(&self.file, format!("{}\n", json!({ "run-id": id })).as_bytes());
        kept.map_err(|error| (0, error.to_string()))?;
        for params in self.params.chunks(PARAMS) {
            self.ask("runs/log-batch", Some(&json!({ "run_id": id, "params": params })))?;
        }
        Ok(id.to_owned())
    }

    /// Sends what is kept, and the state of the run if there is a new one.
    fn send(&mut self, status: Option<&str>) {
        match self.sent(status) {
            Ok(()) => {
                self.told = false;
                let lost = std::mem::take(&mut self.lost);
                let lost = (lost > 0).then(|| {
                    format!("MLflow at {}: it did not answer for long: {lost} metrics are lost", self.address)
                });
                self.fault = lost.or(self.fault.take());
            }
            Err((_, reason)) if !self.told => {
                self.told = true;
                self.fault = Some(format!("MLflow at {}: {reason}; {} metrics wait", self.address, self.metrics.len()));
            }
            Err(_) => {}
        }
    }

    fn sent(&mut self, status: Option<&str>) -> Result<(), (u16, String)> {
        let id = self.id()?;
        while !self.metrics.is_empty() {
            let count = self.metrics.len().min(BATCH);
            self.ask("runs/log-batch", Some(&json!({ "run_id": id, "metrics": &self.metrics[..count] })))?;
            self.metrics.drain(..count);
        }
        let Some(status) = status else { return Ok(()) };
        let body = json!({ "run_id": id, "status": status, "end_time": now() });
        self.ask("runs/update", Some(&body)).map(|_| ())
    }

    fn metric(&mut self, key: &str, value: f64, step: u64) {
        // JSON has no other numbers.
        if !value.is_finite() {
            return;
        }
        if self.metrics.len() == KEPT {
            self.lost += 1;
        } else {
            self.metrics.push(json!({ "key": plain(key), "value": value, "timestamp": now(), "step": step }));
        }
    }

    fn step(&mut self, figures: &StepFigures) {
        let StepFigures { phase, step, .. } = figures;
        let known =
            [("loss", figures.loss), ("grad-norm", figures.grad_norm), ("learning-rate", figures.learning_rate)];
        let values =
            [("accuracy", figures.accuracy), ("margin", figures.margin), ("kl", figures.kl), ("score", figures.score)];
        let values = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in known.into_iter().chain(values) {
            self.metric(&format!("train/{phase}/{name}"), value, *step);
        }
        for of in &figures.replayed {
            self.metric(&format!("train/{phase}/replayed/{}/loss", of.dimension), of.loss, *step);
        }
    }
}

impl Sink for Mlflow {
    fn event(&mut self, _: f64, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::RunStarted { .. } => self.send(None),
            Event::Step(figures) => {
                self.step(figures);
                if self.metrics.len().is_multiple_of(BATCH) || figures.step == figures.steps {
                    self.send(None);
                }
            }
            Event::HeldOut(found) => {
                self.metric(&format!("held-out/{}/loss", found.phase), found.loss, found.step);
                if let Some(score) = found.score {
                    self.metric(&format!("held-out/{}/score", found.phase), score, found.step);
                }
                for of in &found.dimensions {
                    let name = format!("held-out/{}/{}", found.phase, of.dimension);
                    self.metric(&format!("{name}/accuracy"), of.accuracy, found.step);
                    self.metric(&format!("{name}/margin"), of.margin, found.step);
                }
            }
            Event::Evaluated { policy, step, scores, .. } => {
                for score in scores.iter().filter(|score| score.kind.is_main()) {
                    let Some(tally) = score.tally(Subset::All) else { continue };
                    let name = format!("policy/{policy}/{}", score.dimension);
                    self.metric(&format!("{name}/accuracy"), tally.accuracy, *step);
                    self.metric(&format!("{name}/margin"), tally.mean_margin, *step);
                }
                self.send(None);
            }
            Event::Benchmarked(found) => {
                for (name, value) in &found.results {
                    self.metric(&format!("command/{}/{name}", found.policy), *value, 0);
                }
                self.send(None);
            }
            Event::RunStopped { reason } => {
                self.send(Some(if reason.starts_with("interrupted") { "KILLED" } else { "FAILED" }));
            }
            Event::RunFinished { .. } => self.send(Some("FINISHED")),
            _ => {}
        }
        Ok(())
    }

    fn warnings(&mut self) -> Vec<String> {
        self.fault.take().into_iter().collect()
    }
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}

/// `MLFLOW_TRACKING_TOKEN`, or `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, as MLflow's own client has them.
fn authorization(value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let token = value("MLFLOW_TRACKING_TOKEN").map(|token| format!("Bearer {token}"));
    token.or_else(|| {
        let (user, password) = (value("MLFLOW_TRACKING_USERNAME")?, value("MLFLOW_TRACKING_PASSWORD")?);
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    })
}

/// The letters that names may have there.
fn plain(name: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() || "_-. :/".contains(c) { c } else { '_' };
    name.chars().take(250).map(known).collect()
}

fn text(value: &Value) -> String {
    text_of(value).chars().take(6000).collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn url_escaped(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    part.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{authorization, plain, url_escaped};

    #[test]
    fn names_and_rights_are_as_the_server_takes_them() {
        assert_eq!(plain("train/a+b/λ"), "train/a_b/_");
        assert_eq!(url_escaped("my runs/1"), "my%20runs%2F1");
        let of = |pairs: &'static [(&str, &str)]| {
            authorization(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("MLFLOW_TRACKING_TOKEN", "t")]).unwrap(), "Bearer t");
        let both = of(&[("MLFLOW_TRACKING_USERNAME", "u"), ("MLFLOW_TRACKING_PASSWORD", "p")]);
        assert_eq!(both.unwrap(), "Basic dTpw");
    }
}
