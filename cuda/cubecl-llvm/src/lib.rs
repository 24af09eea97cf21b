//! The names of cubecl-llvm 0.11.3 that cubecl-cuda 0.11.3 mentions, without LLVM behind them.
//!
//! The build script of the real crate downloads LLVM. With the feature `cuda-cpp` of `cubecl` kernels
//! go to NVRTC as C++ and nothing here is called; without it every kernel is refused with a reason.

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::backtrace::BackTrace;
use cubecl_server::compiler::CompilationError;
use cubecl_server::kernel::BufferIOAttr;

/// NVIDIA's assembler.
pub mod nvptx {
    /// Its versions.
    pub mod ptx_version {
        use std::fmt;

        /// A version of PTX: none is known here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// The newest version that a driver loads: unknown.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

/// What all targets have in common.
pub mod shared {
    /// Features that a target lacks.
    pub mod lowered_features {
        /// A GPU assembler.
        #[derive(Clone, Copy, Debug)]
        pub enum GpuTarget {
            /// NVIDIA's.
            Nvptx,
        }

        /// Takes away what the LLVM path cannot do; never called on the way through NVRTC.
        pub fn restrict_features<T>(_properties: &mut T, _target: GpuTarget) {}
    }
}

/// What LLVM would compile for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// The host.
    #[default]
    Cpu,
    /// NVIDIA GPUs.
    Nvptx,
}

/// A compiler that refuses.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// What it would compile for.
    pub target: LlvmTarget,
}

/// Options of the compiler, ignored.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Architecture of an AMD GPU.
    pub arch: Option<()>,
    /// Architecture of an NVIDIA GPU.
    pub sm_arch: Option<SmArch>,
    /// Newest PTX of the driver.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// How launch parameters are passed.
    pub grid_constants: bool,
    /// Keeps `..Default::default()` meaningful.
    pub reserved: (),
}

/// A compiled kernel: never made.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX, as a C string.
    pub ptx: Vec<std::ffi::c_char>,
    /// Name of the kernel.
    pub entrypoint: String,
    /// LLVM's own form.
    pub ir: String,
    /// Dynamic shared memory, bytes.
    pub shared_memory_size: usize,
    /// Which buffers are read and written.
    pub io: Vec<BufferIOAttr>,
}

/// What a compilation gives.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// A kernel for NVIDIA GPUs.
    NvptxCode(NvptxModule),
    /// A kernel for the host.
    Jit,
}

impl PlironCompiler {
    /// Name of the language it would produce.
    pub fn lang_tag(&self) -> &'static str {
        "llvm"
    }

    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "built without LLVM: the feature `cuda-cpp` of cubecl is needed".into(),
            backtrace: BackTrace::capture(),
        })
    }
}
