//! Conservative DPO: label smoothing.

use serde::Deserialize;

use super::dpo::{BETA, smoothed};
use super::entry::{Build, pair};
use super::options::{BELOW_HALF, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "cdpo",
    aliases: &["label-smoothing"],
    formula: "(1−ε)·(−log σ(β·d)) + ε·(−log σ(−β·d))",
    gradient: "∂/∂log π(y_w) = −β·(σ(−β·d) − ε) = −∂/∂log π(y_l)",
    when: "Labels are known to be wrong at a rate ε.",
    limits: "Pulls every margin to log((1−ε)/ε)/β: too large an ε undoes the preference.",
    paper: "Mitchell 2023, A note on DPO with noisy preferences",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "label-smoothing",
            default: "0.1",
            meaning: "assumed share ε of flipped labels",
            source: "the example rate of the note",
            range: BELOW_HALF,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: true,
    build: Build::Pair(pair::<Cdpo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cdpo {
    beta: f64,
    label_smoothing: f64,
}

impl Objective for Cdpo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let per_pair = smoothed(ratios.delta() * self.beta, self.label_smoothing);
        Ok(ratios.losses(per_pair, self.beta))
    }

    fn step_zero(&self, logps: &PairLogps) -> Result<Option<burn::tensor::Tensor<1>>, CoreError> {
        Ok(Some(super::dpo::ln_2(logps)))
    }
}
