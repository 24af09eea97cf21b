//! The named parameters of a model: walking, counting, hashing, replacing.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Int, Shape, Tensor, TensorData};

/// A parameter as its walkers see it.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Module path, such as `layers.0.mlp.up_proj.weight`.
    pub path: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// The values, flattened: `[elements]`.
    pub value: Tensor<1>,
}

/// Whether the parameter at a module path is a constant that the checkpoint holds: nothing trains it.
pub fn is_constant(path: &str) -> bool {
    [".xielu.beta", ".xielu.eps", ".layer_scalar"].iter().any(|end| path.ends_with(end))
}

/// Calls `visit` for each parameter of a module, in the module's own order. `prefix` is put
/// before the paths: `""` for a whole model, `"layers.3."` for a block.
pub fn for_each(module: &impl Module, prefix: &str, visit: impl FnMut(Parameter)) {
    module.visit(&mut Visitor { path: ModulePath::new(prefix), visit });
}

/// The module with each parameter replaced by what `map` returns, flat, `[elements]`. `map` gets the value itself, so that
/// it can be changed in its own memory.
pub fn replace<M: Module>(module: M, prefix: &str, map: impl FnMut(Parameter) -> Tensor<1>) -> M {
    module.map(&mut Mapper { path: ModulePath::new(prefix), map })
}

/// Number of values in the parameters that `select` picks by path.
pub fn count(module: &impl Module, mut select: impl FnMut(&str) -> bool) -> usize {
    let mut count = 0;
    for_each(module, "", |parameter| {
        if select(&parameter.path) {
            count += parameter.shape.iter().product::<usize>();
        }
    });
    count
}

/// blake3 of names, shapes, types and values of the parameters that `select` picks, in hex.
/// Equal weights give equal hashes whatever file they came from.
pub fn hash(module: &impl Module, select: impl FnMut(&str) -> bool) -> String {
    let mut hashing = Hashing { path: ModulePath::new(""), select, hasher: blake3::Hasher::new() };
    module.visit(&mut hashing);
    hashing.hasher.finalize().to_hex().to_string()
}

/// Values that are copied to the host at a time.
const HASHED_AT_ONCE: usize = 1 << 20;

struct Hashing<F> {
    path: ModulePath,
    select: F,
    hasher: blake3::Hasher,
}

impl<F: FnMut(&str) -> bool> Hashing<F> {
    /// Adds a parameter of this shape and type, whose values `part` hands out.
    fn add(&mut self, shape: Shape, dtype: DType, part: impl Fn(usize, usize) -> TensorData) {
        let path = self.path.join();
        if (self.select)(&path) {
            let elements = shape.num_elements();
            self.hasher.update(format!("{path} {:?} {dtype:?}\n", shape.as_slice()).as_bytes());
            for start in (0..elements).step_by(HASHED_AT_ONCE) {
                self.hasher.update(part(start, HASHED_AT_ONCE.min(elements - start)).as_bytes());
            }
        }
    }
}

impl<F: FnMut(&str) -> bool> ModuleVisitor for Hashing<F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val().inner();
        let (shape, dtype) = (value.shape(), value.dtype());
        let flat = value.reshape([shape.num_elements()]);
        self.add(shape, dtype, |start, length| flat.clone().narrow(0, start, length).into_data());
    }
    /// The codes of quantised weights.
    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let value = param.val();
        let (shape, dtype) = (value.shape(), value.dtype());
        let flat = value.reshape([shape.num_elements()]);
        self.add(shape, dtype, |start, length| flat.clone().narrow(0, start, length).into_data());
    }
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}

/// The module path of a walk: push a name when entering a module, pop it when leaving.
#[derive(Debug, Clone)]
pub struct ModulePath {
    prefix: String,
    names: Vec<String>,
}

impl ModulePath {
    /// A walk whose paths start with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), names: vec![] }
    }

    /// Enters a module or field.
    pub fn push(&mut self, name: &str) {
        self.names.push(name.into());
    }

    /// Leaves it.
    pub fn pop(&mut self) {
        self.names.pop();
    }

    /// The path of where the walk stands.
    pub fn join(&self) -> String {
        format!("{}{}", self.prefix, self.names.join("."))
    }
}

fn parameter<const D: usize>(path: &ModulePath, value: Tensor<D>) -> Parameter {
    let shape = value.dims().to_vec();
    let elements = shape.iter().product::<usize>();
    Parameter { path: path.join(), shape, value: value.inner().reshape([elements]) }
}

struct Visitor<F> {
    path: ModulePath,
    visit: F,
}

impl<F: FnMut(Parameter)> ModuleVisitor for Visitor<F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        (self.visit)(parameter(&self.path, param.val()));
    }
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}

struct Mapper<F> {
    path: ModulePath,
    map: F,
}

impl<F: FnMut(Parameter) -> Tensor<1>> ModuleMapper for Mapper<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| {
            let shape = value.dims();
            (self.map)(parameter(&self.path, value)).reshape(shape)
        })
    }
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}
