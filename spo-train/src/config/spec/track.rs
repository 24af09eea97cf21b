//! `[track]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a run is also told, beside the files of its directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TrackSpec {
    /// Address of an MLflow server, such as `http://127.0.0.1:5000`: settings, steps, evaluations and the numbers of
    /// `evaluation.command` go there. A server that does not answer never ends a run. `MLFLOW_TRACKING_TOKEN`, or `…_USERNAME` and
    /// `…_PASSWORD`, are read from the environment.
    pub mlflow: Option<String>,
    /// The experiment there; made where it is not there.
    pub experiment: Option<String>,
}
