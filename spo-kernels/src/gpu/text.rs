//! The CUDA C++ of kernels, recorded instead of launching them: no NVIDIA device or library is needed.

use super::attention::products_of;
use cubecl::Compiler;
use cubecl::ir::DeviceProperties;
use cubecl::prelude::*;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler};
use cubecl_cpp::target::Cuda;
use half::{bf16, f16};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static RECORDED: RefCell<Option<Vec<(String, String)>>> = const { RefCell::new(None) };
}

/// Runs `launches` on this thread; their kernels are not launched but returned, as name and source.
pub fn recorded(launches: impl FnOnce()) -> Vec<(String, String)> {
    RECORDED.set(Some(vec![]));
    launches();
    RECORDED.take().unwrap_or_default()
}

pub(super) fn is_recording() -> bool {
    RECORDED.with_borrow(Option::is_some)
}

/// What a card is taken to have: this device's properties, and matrix units for 16-bit types.
pub(super) fn hardware(client: &Client) -> Arc<DeviceProperties> {
    let mut properties = client.properties().clone();
    properties.features.matmul.cmma.extend([products_of::<f16>(), products_of::<bf16>()]);
    properties.into()
}

pub(super) fn record(name: &str, kernel: &impl CubeKernel) {
    let definition = cubecl::define_kernel(kernel).expect("a kernel that runs elsewhere expands");
    let mut options = CompilationOptions::default();
    options.supports_features.grid_constants = true;
    let source = CppCompiler::<Cuda>::default().compile(definition, &options);
    let source = source.expect("CUDA C++ has all operations that kernels use").to_string();
    RECORDED.with_borrow_mut(|recorded| recorded.get_or_insert_default().push((name.into(), source)));
}
