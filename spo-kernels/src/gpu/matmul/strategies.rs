//! The strategies as cubek has them.

use crate::matmul::MatmulStrategy;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as MultiLevel;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

/// One of cubek's ways with its own tile sizes; none is not cubek's.
fn of_cubek(strategy: MatmulStrategy) -> Option<Strategy> {
    use MatmulStrategy as Named;
    Some(Strategy::MultiLevel(match strategy {
        Named::Auto => return Some(Strategy::Auto),
        Named::CublasLt => return None,
        Named::SimpleUnit => MultiLevel::SimpleUnit(Default::default()),
        Named::DoubleUnit => MultiLevel::DoubleUnit(Default::default()),
        Named::SimpleCyclicCmma => MultiLevel::SimpleCyclicCmma(Default::default()),
        Named::SimpleCyclicMma => MultiLevel::SimpleCyclicMma(Default::default()),
        Named::SimpleTmaCmma => MultiLevel::SimpleTmaCmma(Default::default()),
        Named::SimpleTmaMma => MultiLevel::SimpleTmaMma(Default::default()),
        Named::DoubleCyclicCmma => MultiLevel::DoubleCyclicCmma(Default::default()),
        Named::DoubleCyclicMma => MultiLevel::DoubleCyclicMma(Default::default()),
        Named::DoubleTilewiseMma => MultiLevel::DoubleTilewiseMma(Default::default()),
        Named::DoubleHybridMma => MultiLevel::DoubleHybridMma(Default::default()),
        Named::DoubleAsyncMma => MultiLevel::DoubleAsyncCyclicMma(Default::default()),
        Named::DoubleTmaMma => MultiLevel::DoubleTmaMma(Default::default()),
        Named::SpecializedCyclicMma => MultiLevel::SpecializedCyclicMma(Default::default()),
        Named::SpecializedTmaMma => MultiLevel::SpecializedTmaMma(Default::default()),
        Named::OrderedDoubleCmma => MultiLevel::OrderedDoubleCmma(Default::default()),
        Named::OrderedDoubleMma => MultiLevel::OrderedDoubleMma(Default::default()),
    }))
}

fn element(dtype: DType) -> Result<ElemType, String> {
    match dtype {
        DType::F32 => Ok(ElemType::Float(FloatKind::F32)),
        DType::F16 => Ok(ElemType::Float(FloatKind::F16)),
        DType::BF16 => Ok(ElemType::Float(FloatKind::BF16)),
        other => Err(format!("{other:?} is not multiplied so")),
    }
}

/// Starts the product into `out`.
///
/// # Errors
/// Why the strategy cannot multiply these.
pub(super) fn launch(strategy: MatmulStrategy, a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) -> Result<(), String> {
    let cubek = of_cubek(strategy).ok_or("this build was made without it; it needs the feature `cublaslt`")?;
    let [of_a, of_b, of_out] = [element(a.dtype)?, element(b.dtype)?, element(out.dtype)?];
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: of_a, rhs: of_b, out: of_out });
    let [a, b] = [(a, of_a), (b, of_b)].map(|(x, of)| InputBinding::new(x.clone().binding(), of));
    launch_ref(&cubek, &out.client, a, b, out.clone().binding(), &mut elements).map_err(|error| format!("{error:?}"))
}
