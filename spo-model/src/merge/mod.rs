//! Several models of one shape made into one, tensor by tensor, in f64 on the host.
//!
//! A method is a file with a [`Method`] and a line in [`METHODS`].

mod dare;
mod linear;
mod slerp;
mod task_arithmetic;
mod ties;

use crate::load::Storage;
use crate::parameters::{Parameter, for_each, replace};
use crate::{CausalLm, ModelError};
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeMap;

/// Every method, a line each.
pub static METHODS: &[Method] = &[linear::METHOD, slerp::METHOD, task_arithmetic::METHOD, ties::METHOD, dare::METHOD];

/// A way to make one model of several.
#[derive(Debug)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// The merged tensor.
    pub formula: &'static str,
    /// Where it was defined.
    pub paper: &'static str,
    /// Whether it looks at what the models changed of a base.
    pub base: bool,
    /// Whether its weights are at least 0 and sum to 1.
    pub simplex: bool,
    /// Whether it takes two models and no more.
    pub two: bool,
    /// Whether it leaves a share of the changes out.
    pub sparse: bool,
    /// The merged values of one tensor.
    tensor: fn(&Parts) -> Vec<f64>,
}

/// One tensor of every model.
///
/// # Shapes
/// All are flat, `[elements]`.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Its name.
    pub name: &'a str,
    /// That of the base; empty for a method without one.
    pub base: &'a [f32],
    /// Those of the models.
    pub models: Vec<&'a [f32]>,
    /// What each model counts.
    pub weights: &'a [f64],
    /// What else a method takes.
    pub settings: Settings,
}

/// What a method takes beside weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Share of the changes that is kept, of a method that leaves some out.
    pub density: f64,
    /// What random choices follow from.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { density: 0.5, seed: 0 }
    }
}

impl Parts<'_> {
    /// What a model changed of the base, `[elements]`.
    fn change(&self, model: usize) -> impl Iterator<Item = f64> {
        let both = self.models[model].iter().zip(self.base);
        both.map(|(own, base)| f64::from(*own) - f64::from(*base))
    }

    /// The base with changes added, `[elements]`.
    fn on_base(&self, changes: &[f64]) -> Vec<f64> {
        self.base.iter().zip(changes).map(|(base, change)| f64::from(*base) + change).collect()
    }
}

/// The method of a name.
pub fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Models that can be merged at any weights.
#[derive(Debug)]
pub struct Merger {
    method: &'static Method,
    /// The first model, whose values are replaced.
    frame: CausalLm,
    models: Vec<Tensors>,
    base: Option<Tensors>,
}

impl Merger {
    /// Models with their names, and the base, which a method that looks at changes needs. All are whole: without adapters.
    ///
    /// # Errors
    /// Too few or too many models, no base, a tensor that one lacks or has in another shape, another configuration.
    pub fn new(
        method: &'static Method,
        models: Vec<(String, CausalLm)>,
        base: Option<(String, CausalLm)>,
    ) -> Result<Self, ModelError> {
        let fault = |what: &str, reason: String| ModelError::Merge { what: what.into(), reason };
        if models.len() < 2 || (method.two && models.len() > 2) {
            let wanted = if method.two { "two" } else { "two or more" };
            return Err(fault(method.name, format!("found {} models, expected {wanted}", models.len())));
        }
        let base = base.filter(|_| method.base);
        if method.base && base.is_none() {
            return Err(fault(method.name, "it merges what models changed of a base, and none is named".into()));
        }
        let all = || models.iter().chain(&base);
        for (name, model) in all() {
            if model.has_lora() || model.is_quantised() || model.steering.is_some() {
                return Err(fault(name, "only whole models can be merged: without adapters, in plain numbers".into()));
            }
        }
        let (first, frame) = models[0].clone();
        let (shapes, mut read) = (tensors(&frame), vec![]);
        for (name, model) in all() {
            let own = tensors(model);
            same_shapes((&first, &shapes), (name, &own))?;
            if model.spec() != frame.spec() {
                let reason =
                    format!("its configuration is not that of {first}, though its tensors have the same shapes");
                return Err(fault(name, reason));
            }
            read.push(own);
        }
        let base = base.map(|_| read.remove(models.len()));
        Ok(Self { method, frame: frame.stored_as(Storage::F32), models: read, base })
    }

    /// The model at these weights, one for each model, in f32.
    ///
    /// # Errors
    /// Another number of weights, or weights that the method does not take.
    pub fn at(&self, weights: &[f64], settings: Settings) -> Result<CausalLm, ModelError> {
        self.check(weights, settings).map_err(|reason| ModelError::Merge { what: self.method.name.into(), reason })?;
        let device = self.frame.device();
        Ok(replace(self.frame.clone(), "", |parameter: Parameter| {
            let name = parameter.path.as_str();
            let models = self.models.iter().map(|model| model[name].1.as_slice()).collect();
            let base = self.base.as_ref().map_or(&[][..], |base| base[name].1.as_slice());
            let merged = (self.method.tensor)(&Parts { name, base, models, weights, settings });
            let values: Vec<f32> = merged.into_iter().map(|value| value as f32).collect();
            let elements = values.len();
            Tensor::from_data(TensorData::new(values, [elements]), &device)
        }))
    }

    fn check(&self, weights: &[f64], settings: Settings) -> Result<(), String> {
        if weights.len() != self.models.len() {
            return Err(format!("found {} weights for {} models", weights.len(), self.models.len()));
        }
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err(format!("found the weights {weights:?}, expected finite numbers"));
        }
        let sum: f64 = weights.iter().sum();
        if self.method.simplex && (weights.iter().any(|weight| *weight < 0.0) || (sum - 1.0).abs() > 1e-6) {
            return Err(format!("found the weights {weights:?}, expected numbers of at least 0 that sum to 1"));
        }
        match settings.density > 0.0 && settings.density <= 1.0 {
            true => Ok(()),
            false => Err(format!("found the density {}, expected a number above 0, at most 1", settings.density)),
        }
    }
}

/// The parameters of a model in f32, by name.
fn tensors(model: &CausalLm) -> Tensors {
    let mut all = Tensors::new();
    for_each(model, "", |parameter| {
        let values = parameter.value.into_data().iter::<f32>().collect();
        all.insert(parameter.path, (parameter.shape, values));
    });
    all
}

/// Refuses a model that lacks a tensor, has one too many, or one of another shape.
fn same_shapes((first, expected): (&str, &Tensors), (name, found): (&str, &Tensors)) -> Result<(), ModelError> {
    let fault = |reason: String| Err(ModelError::Merge { what: name.into(), reason });
    for (tensor, (shape, _)) in expected {
        match found.get(tensor) {
            None => return fault(format!("it has no tensor {tensor}, which {first} has")),
            Some((own, _)) if own != shape => {
                return fault(format!("tensor {tensor} has the shape {own:?}, that of {first} {shape:?}"));
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|tensor| !expected.contains_key(*tensor)) {
        Some(tensor) => fault(format!("it has a tensor {tensor}, which {first} has not")),
        None => Ok(()),
    }
}

/// Sums of the models' values times factors, `[elements]`.
fn weighed<'a>(tensors: impl Iterator<Item = (&'a [f32], f64)>, elements: usize) -> Vec<f64> {
    let mut sums = vec![0.0; elements];
    for (values, factor) in tensors {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * f64::from(*value));
    }
    sums
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{ModelSpec, device, parameters};

    pub const BASE: [f32; 5] = [0.5, -1.25, 2.0, 0.75, -0.125];
    pub const A: [f32; 5] = [1.5, -1.0, 1.0, 0.25, -0.5];
    pub const B: [f32; 5] = [-0.5, 0.5, 2.5, 1.75, 1.0];

    pub fn merge_seeded(
        name: &str,
        base: &[f32],
        models: &[&[f32]],
        weights: &[f64],
        density: f64,
        seed: u64,
    ) -> Vec<f64> {
        let settings = Settings { density, seed };
        (method(name).unwrap().tensor)(&Parts { name: "a tensor", base, models: models.to_vec(), weights, settings })
    }

    pub fn merge_on(name: &str, base: &[f32], models: &[&[f32]], weights: &[f64], density: f64) -> Vec<f64> {
        merge_seeded(name, base, models, weights, density, 0)
    }

    pub fn merged(name: &str, models: &[&[f32]], weights: &[f64], density: f64) -> Vec<f64> {
        merge_on(name, &BASE, models, weights, density)
    }

    fn model(seed: u64, hidden: usize) -> CausalLm {
        let spec = format!(
            r#"{{"model_type": "llama", "vocab_size": 32, "hidden_size": {hidden}, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": true}}"#
        );
        CausalLm::random(&ModelSpec::from_json(&spec).unwrap(), seed, &device::cpu())
    }

    fn hash(model: &CausalLm) -> String {
        parameters::hash(model, |_| true)
    }

    fn three() -> Vec<(String, CausalLm)> {
        ["a", "b", "base"].iter().zip(1..).map(|(name, seed)| ((*name).to_owned(), model(seed, 16))).collect()
    }

    #[test]
    fn weight_one_of_a_model_is_that_model_bit_for_bit() {
        for method in METHODS {
            let mut models = three();
            let base = models.pop();
            let (first, second) = (hash(&models[0].1), hash(&models[1].1));
            let merger = Merger::new(method, models, base).unwrap();
            let settings = Settings { density: 1.0, seed: 3 };
            let at = |weights: &[f64]| hash(&merger.at(weights, settings).unwrap());
            assert_eq!((at(&[1.0, 0.0]), at(&[0.0, 1.0])), (first, second), "{}", method.name);
            assert_ne!(at(&[0.5, 0.5]), at(&[0.25, 0.75]), "{}", method.name);
        }
    }

    #[test]
    fn changes_of_nothing_are_the_base() {
        for method in METHODS.iter().filter(|method| method.base && !method.simplex) {
            let mut models = three();
            let base = models.pop();
            let expected = hash(&base.as_ref().unwrap().1);
            let found = Merger::new(method, models, base).unwrap().at(&[0.0, 0.0], Settings::default()).unwrap();
            assert_eq!(hash(&found), expected, "{}", method.name);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let fault = |name: &str, models: Vec<(String, CausalLm)>, base| {
            Merger::new(method(name).unwrap(), models, base).unwrap_err().to_string()
        };
        let unlike = vec![("a".to_owned(), model(1, 16)), ("b".to_owned(), model(2, 32))];
        let found = fault("linear", unlike, None);
        assert!(
            found.starts_with("b: tensor embed_tokens.weight has the shape [32, 32], that of a [32, 16]"),
            "{found}"
        );
        assert!(fault("slerp", three(), None).contains("found 3 models, expected two"));
        assert!(fault("linear", three()[..1].to_vec(), None).contains("two or more"));
        assert!(fault("ties", three(), None).contains("none is named"));
        let merger = Merger::new(method("linear").unwrap(), three()[..2].to_vec(), None).unwrap();
        let wrong =
            |weights: &[f64], density| merger.at(weights, Settings { density, seed: 0 }).unwrap_err().to_string();
        assert!(wrong(&[1.0], 0.5).contains("found 1 weights for 2 models"));
        assert!(wrong(&[0.5, 0.6], 0.5).contains("sum to 1") && wrong(&[1.5, -0.5], 0.5).contains("at least 0"));
        assert!(wrong(&[f64::NAN, 0.5], 0.5).contains("finite") && wrong(&[0.5, 0.5], 0.0).contains("density"));
    }
}
