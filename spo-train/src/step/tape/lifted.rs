//! Modules with gradients switched on.

use crate::step::gradients::{Gradients, Trainable};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients as TapeGradients, Tensor};
use spo_model::parameters::ModulePath;

/// The module with gradients switched on for its trained parameters; frozen ones are constants.
pub(super) fn lift<M: Module>(module: M, prefix: &str, trainable: Trainable) -> M {
    module.map(&mut Lift { path: ModulePath::new(prefix), trainable })
}

struct Lift {
    path: ModulePath,
    trainable: Trainable,
}

impl ModuleMapper for Lift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.trainable.contains(&self.path.join()) {
            true => param.map(|value| value.autodiff().require_grad()),
            false => param,
        }
    }
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}

/// The value of a loss of a module alone, and the gradients of all its parameters by their paths.
pub fn module_gradients<M: Module>(module: &M, loss: impl FnOnce(&M) -> Tensor<1>) -> (f64, Gradients) {
    let (lifted, mut gradients) = (lift(module.clone(), "", Trainable::All), Gradients::default());
    let loss = loss(&lifted);
    let mut tape = loss.backward();
    collect(&lifted, "", Trainable::All, &mut tape, &mut gradients);
    (loss.inner().into_scalar::<f64>(), gradients)
}

/// Moves the gradients of a lifted module's trained parameters from the tape to the sums.
pub(super) fn collect(
    module: &impl Module,
    prefix: &str,
    trainable: Trainable,
    tape: &mut TapeGradients,
    gradients: &mut Gradients,
) {
    module.visit(&mut Collect { path: ModulePath::new(prefix), trainable, tape, gradients });
}

struct Collect<'a> {
    path: ModulePath,
    trainable: Trainable,
    tape: &'a mut TapeGradients,
    gradients: &'a mut Gradients,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join();
        if self.trainable.contains(&path)
            && let Some(gradient) = param.val().grad_remove(self.tape)
        {
            self.gradients.add(&path, gradient);
        }
    }
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}
