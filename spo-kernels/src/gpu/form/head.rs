//! See [`crate::head`]: the product with logits in f32, then one pass over its rows, and another one for gradients.

use super::{beside, buffer, typed};
use crate::gpu::head::{Options, gradients as write_gradients, log_probs, products_to_gradients};
use crate::gpu::{Buffer, matmul};
use crate::head::LogitOptions;
use burn::tensor::{DType, Int, IntDType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Products and targets of some rows, and what is known of them.
struct Rows {
    /// `h Wᵀ`, `[rows, vocab]`, f32.
    products: CubeTensor,
    /// `[rows]`, u32.
    targets: Buffer,
    logps: CubeTensor,
    log_sums: CubeTensor,
    vocab: usize,
    options: Options,
}

impl Rows {
    /// `None` for tensors of another backend, or on a tape.
    fn new(hidden: &Tensor<2>, weight: &Tensor<2>, targets: &Tensor<1, Int>, options: LogitOptions) -> Option<Self> {
        let ([rows, _], [vocab, _]) = (hidden.dims(), weight.dims());
        if rows == 0 || !matches!(hidden.dtype(), DType::F32 | DType::F16 | DType::BF16) {
            return None;
        }
        let take = |x: &Tensor<2>| x.clone().try_into_primitive::<CubeBackend>().ok();
        let (hidden, transposed) = (take(hidden)?, take(&weight.clone().transpose())?);
        let targets = targets.clone().cast(IntDType::I32).try_into_primitive::<CubeBackend>().ok()?;
        let products = into_contiguous(matmul::product(&hidden, &transposed, DType::F32));
        let [logps, log_sums] = [(); 2].map(|()| beside(&products, [rows], DType::F32));
        let options = Options { scale: options.scale as f32, softcap: options.softcap.map(|cap| cap as f32) };
        // Ids are not negative, so their 32 bits are those of u32.
        let targets = buffer(&into_contiguous(targets));
        let of = [&products, &logps, &log_sums].map(buffer);
        let [from, to, sums] = of;
        log_probs(&products.client, options, vocab, from, targets.clone(), to, sums);
        Some(Self { products, targets, logps, log_sums, vocab, options })
    }
}

/// See [`crate::head::logps`].
pub(crate) fn logps(
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Tensor<1, Int>,
    options: LogitOptions,
) -> Option<Tensor<1>> {
    let rows = Rows::new(hidden, weight, targets, options)?;
    Some(Tensor::from_primitive::<CubeBackend>(rows.logps))
}

/// See [`crate::head::gradients`].
pub(crate) fn gradients(
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Tensor<1, Int>,
    options: LogitOptions,
) -> Option<(Tensor<1>, Tensor<2>)> {
    let Rows { products, targets, logps, log_sums, vocab, options } = Rows::new(hidden, weight, targets, options)?;
    let (client, [from, sums]) = (&products.client, [&products, &log_sums].map(buffer));
    let gradients = match hidden.dtype() {
        DType::F32 => {
            products_to_gradients(client, options, vocab, from, targets, sums);
            products
        }
        dtype => {
            let to = beside(&products, hidden_shape(&products), dtype);
            typed!(dtype, E => write_gradients::<E>(client, options, vocab, from, targets, sums, buffer(&to)));
            to
        }
    };
    Some((Tensor::from_primitive::<CubeBackend>(logps), Tensor::from_primitive::<CubeBackend>(gradients)))
}

fn hidden_shape(products: &CubeTensor) -> burn::tensor::Shape {
    products.meta.shape().clone()
}
