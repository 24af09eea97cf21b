//! Efficient exact optimisation: the reverse KL to the smoothed label.

use serde::Deserialize;

use super::dpo::BETA;
use super::entry::{Build, pair};
use super::options::{BETWEEN_0_AND_1, OptionDoc};
use super::{Entry, Needs, Objective, PairLosses, Ratios};
use crate::numerics::{log_sigmoid, sigmoid};
use crate::{CoreError, PairLogps};

pub(crate) const ENTRY: Entry = Entry {
    name: "exo",
    aliases: &["exo-pair"],
    formula: "q_w·(log q_w − log(1−ε)) + q_l·(log q_l − log ε),  q_w = σ(β·d), q_l = σ(−β·d)",
    gradient: "∂/∂log π(y_w) = β·q_w·q_l·(β·d − log((1−ε)/ε)) = −∂/∂log π(y_l)",
    when: "Mode seeking: put the mass on the best answer.",
    limits: "Needs ε > 0; the gradient vanishes at both ends of the margin.",
    paper: "Ji et al. 2024, arXiv 2402.00856",
    needs: Needs::REFERENCE,
    options: &[
        BETA,
        OptionDoc {
            key: "label-smoothing",
            default: "0.001",
            meaning: "smoothing ε of the label; above 0",
            source: "the paper's typical value",
            range: BETWEEN_0_AND_1,
            ..OptionDoc::POSITIVE
        },
    ],
    difference_only: true,
    build: Build::Pair(pair::<Exo>),
};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Exo {
    beta: f64,
    label_smoothing: f64,
}

impl Objective for Exo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        ENTRY.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        let margin = ratios.delta() * self.beta;
        let epsilon = self.label_smoothing;
        let chosen = sigmoid(margin.clone()) * (log_sigmoid(margin.clone()) - (-epsilon).ln_1p());
        let rejected = sigmoid(-margin.clone()) * (log_sigmoid(-margin) - epsilon.ln());
        Ok(ratios.losses(chosen + rejected, self.beta))
    }
}
