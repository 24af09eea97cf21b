//! Products by NVIDIA's cuBLASLt, which is looked for when the program runs.
//!
//! CubeCL keeps its streams to itself. A product therefore has a stream of its own, in the order of the others by two events: it
//! waits for all that the context was given before, and what the context is given after waits for it. Nothing waits on the
//! host, but a tensor's address is known only once all launches before have reached the driver.
//!
//! A matrix that is stored row by row is its transpose column by column, so `c = a b` is computed as `cᵀ = bᵀ aᵀ`. Sums over
//! parts of the inner dimension are kept apart and added in one order, so that results have one set of bits. f32 is
//! multiplied in TF32, as cubek's matrix units do.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;
use cubecl_runtime::runtime::Runtime;
use cudarc::cublaslt::{result as lt, sys};
use cudarc::driver::result::{event, malloc_sync, stream};
use cudarc::driver::sys as driver;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex, PoisonError};

type Server = <CudaRuntime as Runtime>::Server;

/// Memory that a product may use, bytes: what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;
/// The first driver that orders work of a context by events: CUDA 12.5.
const ORDERS: i32 = 12_050;
/// Reductions whose order is fixed: none, in the type of the sums, and in that of the output.
const FIXED_ORDER: u32 = 2 | 4;

/// What went wrong where.
fn failed<E: std::fmt::Debug>(call: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{call}: {error:?}")
}

/// How a matrix lies in memory, seen column by column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    rows: usize,
    columns: usize,
    /// Elements from one column to the next.
    leading: usize,
    /// Whether it is read the other way round.
    turned: bool,
    /// What its address is a multiple of, bytes; 256 at most.
    aligned: u32,
    kind: DType,
}

impl Place {
    /// A matrix `[rows, columns]` at an address, of which rows or columns are without gaps, as its transpose.
    fn of(x: &CubeTensor, address: u64) -> Result<Self, String> {
        let (shape, strides) = (x.meta.shape(), x.meta.strides());
        let ([rows, columns], [down, across]) = ([shape[0], shape[1]], [strides[0], strides[1]]);
        let (rows, columns, leading, turned) = match (down, across) {
            (down, 1) if down >= columns => (columns, rows, down, false),
            (1, across) if across >= rows => (rows, columns, across, true),
            _ => return Err(format!("strides of {down} and {across}, where one must be 1")),
        };
        let aligned = 1 << address.trailing_zeros().min(8);
        Ok(Self { rows, columns, leading, turned, aligned, kind: x.dtype })
    }

    fn layout(&self) -> Result<Layout, String> {
        let [rows, columns] = [self.rows as u64, self.columns as u64];
        let layout = lt::create_matrix_layout(kind(self.kind)?, rows, columns, self.leading as i64);
        Ok(Layout(layout.map_err(failed("cublasLtMatrixLayoutCreate"))?))
    }
}

fn kind(dtype: DType) -> Result<sys::cudaDataType, String> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        DType::F16 => Ok(sys::cudaDataType_t::CUDA_R_16F),
        DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        other => Err(format!("{other:?} is not multiplied so")),
    }
}

/// The layout of a matrix; it ends with the value.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody else has it.
        let _ = unsafe { lt::destroy_matrix_layout(self.0) };
    }
}

/// What is computed; it ends with the value.
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new(kind: DType, turned: [bool; 2]) -> Result<Self, String> {
        let compute = match kind {
            DType::F32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let created = lt::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F);
        let description = Self(created.map_err(failed("cublasLtMatmulDescCreate"))?);
        use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB};
        for (attribute, turned) in [CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB].into_iter().zip(turned) {
            let operation = i32::from(turned);
            // SAFETY: an attribute of that size, of a description that is there.
            unsafe { lt::set_matmul_desc_attribute(description.0, attribute, (&raw const operation).cast(), 4) }
                .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
        }
        Ok(description)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody else has it.
        let _ = unsafe { lt::destroy_matmul_desc(self.0) };
    }
}

/// What a kernel may need; it ends with the value.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new() -> Result<Self, String> {
        Ok(Self(lt::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?))
    }

    fn set(&self, attribute: sys::cublasLtMatmulPreferenceAttributes_t, value: &[u8]) -> Result<(), String> {
        // SAFETY: an attribute of that size, of a preference that is there.
        unsafe { lt::set_matmul_pref_attribute(self.0, attribute, value.as_ptr().cast(), value.len()) }
            .map_err(failed("cublasLtMatmulPreferenceSetAttribute"))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody else has it.
        let _ = unsafe { lt::destroy_matmul_pref(self.0) };
    }
}

/// cuBLASLt in one context of the driver.
struct Library {
    handle: sys::cublasLtHandle_t,
    context: driver::CUcontext,
    stream: driver::CUstream,
    /// All work of the context before a product, and the product.
    events: [driver::CUevent; 2],
    workspace: driver::CUdeviceptr,
    /// The kernel that the library proposed for the shapes of `bᵀ`, `aᵀ` and `cᵀ`.
    proposed: HashMap<[Place; 3], sys::cublasLtMatmulAlgo_t>,
}

// SAFETY: handles of the driver and the library, which any thread may use, one at a time.
unsafe impl Send for Library {}

/// By context.
static LIBRARIES: LazyLock<Mutex<HashMap<usize, Library>>> = LazyLock::new(Mutex::default);

/// What is missing on this machine, if something is.
fn missing() -> Result<(), String> {
    static MISSING: LazyLock<Result<(), String>> = LazyLock::new(|| {
        // SAFETY: looks for a library by its names, and loads it if it is there.
        if !unsafe { sys::is_culib_present() } {
            return Err("libcublasLt.so is not found".into());
        }
        let mut version = 0;
        // SAFETY: the driver is there, a tensor lies on its card; the pointer is valid.
        let found = unsafe { driver::cuDriverGetVersion(&raw mut version) }.result();
        found.map_err(failed("cuDriverGetVersion"))?;
        if version < ORDERS {
            return Err(format!(
                "the driver is for CUDA {}.{}, and 12.5 is needed",
                version / 1000,
                version % 1000 / 10
            ));
        }
        Ok(())
    });
    MISSING.clone()
}

impl Library {
    fn new(context: driver::CUcontext) -> Result<Self, String> {
        let handle = lt::create_handle().map_err(failed("cublasLtCreate"))?;
        let stream = stream::create(stream::StreamKind::NonBlocking).map_err(failed("cuStreamCreate"))?;
        let event = || event::create(driver::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(failed("cuEventCreate"));
        // SAFETY: the context is current.
        let workspace = unsafe { malloc_sync(WORKSPACE) }.map_err(failed("cuMemAlloc"))?;
        Ok(Self { handle, context, stream, events: [event()?, event()?], workspace, proposed: HashMap::new() })
    }

    /// `c = a b` at three addresses.
    fn multiply(&mut self, addresses: [u64; 3], places: [Place; 3]) -> Result<(), String> {
        let [a, b, c] = places;
        let description = Description::new(a.kind, [b.turned, a.turned])?;
        let [of_b, of_a, of_c] = [b.layout()?, a.layout()?, c.layout()?];
        let algorithm = match self.proposed.get(&[b, a, c]) {
            Some(algorithm) => *algorithm,
            None => {
                let found = self.propose(&description, [(&of_b, &b), (&of_a, &a), (&of_c, &c)])?;
                self.proposed.insert([b, a, c], found);
                found
            }
        };
        let ([one, zero], [a, b, c]) = ([1.0f32, 0.0], addresses);
        let [before, after] = self.events;
        // SAFETY: handles that live as long as this; the addresses are of tensors of these layouts, which the caller keeps
        // until the product is in order with the rest of the context.
        unsafe {
            driver::cuCtxRecordEvent(self.context, before).result().map_err(failed("cuCtxRecordEvent"))?;
            let flags = driver::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            stream::wait_event(self.stream, before, flags).map_err(failed("cuStreamWaitEvent"))?;
            lt::matmul(
                self.handle,
                description.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                b as *const c_void,
                of_b.0,
                a as *const c_void,
                of_a.0,
                c as *const c_void,
                of_c.0,
                c as *mut c_void,
                of_c.0,
                &raw const algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                self.stream.cast(),
            )
            .map_err(failed("cublasLtMatmul"))?;
            event::record(after, self.stream).map_err(failed("cuEventRecord"))?;
            driver::cuCtxWaitEvent(self.context, after).result().map_err(failed("cuCtxWaitEvent"))
        }
    }

    /// The kernel that the library thinks fastest.
    fn propose(
        &self,
        description: &Description,
        matrices: [(&Layout, &Place); 3],
    ) -> Result<sys::cublasLtMatmulAlgo_t, String> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let [b, a, c] = matrices.map(|(layout, _)| layout.0);
        let [of_b, of_a, of_c] = matrices.map(|(_, place)| place.aligned);
        let preference = Preference::new()?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE.to_ne_bytes())?;
        for (attribute, value) in [
            (Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, FIXED_ORDER),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, of_b),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, of_a),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_c),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_c),
        ] {
            preference.set(attribute, &value.to_ne_bytes())?;
        }
        // SAFETY: all of them are there.
        let found = unsafe { lt::get_matmul_algo_heuristic(self.handle, description.0, b, a, c, c, preference.0) };
        Ok(found.map_err(failed("cublasLtMatmulAlgoGetHeuristic"))?.algo)
    }
}

/// The context that an address belongs to, made the thread's own.
fn context_of(address: u64) -> Result<driver::CUcontext, String> {
    let mut context: driver::CUcontext = std::ptr::null_mut();
    let attribute = driver::CUpointer_attribute::CU_POINTER_ATTRIBUTE_CONTEXT;
    // SAFETY: the attribute is a context, which is written where the call succeeds.
    unsafe {
        let asked = driver::cuPointerGetAttribute((&raw mut context).cast(), attribute, address);
        asked.result().map_err(failed("cuPointerGetAttribute"))?;
        driver::cuCtxSetCurrent(context).result().map_err(failed("cuCtxSetCurrent"))?;
    }
    Ok(context)
}

/// Starts `out = a b`.
///
/// # Errors
/// What this machine lacks, or the call that failed.
pub(super) fn multiply(a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) -> Result<(), String> {
    let find = |x: &CubeTensor| x.client.get_resource::<Server>(x.handle.clone()).map_err(failed("no CUDA memory"));
    // They stay until the product is in order with the rest.
    let kept = [find(a)?, find(b)?, find(out)?];
    missing()?;
    let addresses = [0, 1, 2].map(|i| kept[i].resource().ptr);
    let places = [Place::of(a, addresses[0])?, Place::of(b, addresses[1])?, Place::of(out, addresses[2])?];
    let context = context_of(addresses[2])?;
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match libraries.entry(context as usize) {
        std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
        std::collections::hash_map::Entry::Vacant(none) => none.insert(Library::new(context)?),
    };
    library.multiply(addresses, places)
}
