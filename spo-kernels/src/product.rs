//! Matrix products without a tape: `a b` and `sum + aᵀ b`.

use crate::cpu::{self, Values};
use burn::tensor::Tensor;

/// `[rows, inner]` and `[inner, columns]` → `[rows, columns]`
pub fn product(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    cpu::product::product(&a, &b).unwrap_or_else(|| a.matmul(b))
}

/// `sum + aᵀ b` in the sum's type, and in its memory where a form can: `[rows, columns]`, `[inner, rows]` and
/// `[inner, columns]` → `[rows, columns]`.
pub fn add_transposed(sum: Tensor<2>, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    if Values::fit(&sum) && Values::fit(&a) && Values::fit(&b) {
        return cpu::product::add_transposed(sum, &a, &b).expect("all three fit");
    }
    #[cfg(feature = "gpu")]
    let sum = match crate::gpu::form::add_transposed(sum, &a, &b) {
        Ok(sum) => return sum,
        Err(sum) => sum,
    };
    let dtype = sum.dtype();
    sum + a.transpose().matmul(b).cast(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{random, wide};
    use burn::tensor::DType;

    #[test]
    fn products_follow_f64() {
        for [rows, inner, columns] in [[1, 1, 1], [9, 70, 13], [130, 64, 200]] {
            let (sum, a, b) = (random([rows, columns]), random([inner, rows]), random([inner, columns]));
            let exact = |x: &Tensor<2>| x.clone().cast(DType::F64);
            let product_of = |a: Tensor<2>, b: Tensor<2>| product(a.transpose(), b);
            let expected = product_of(exact(&a), exact(&b));
            let close = |found: Tensor<2>, expected: Tensor<2>| {
                let largest = wide(&expected).iter().fold(1e-3f64, |top, x| top.max(x.abs()));
                wide(&found).iter().zip(wide(&expected)).all(|(a, b)| (a - b).abs() <= 2e-6 * largest)
            };
            assert!(close(product_of(a.clone(), b.clone()), expected.clone()), "{rows} {inner} {columns}");
            let expected = add_transposed(exact(&sum), exact(&a), exact(&b));
            assert!(close(add_transposed(sum, a, b), expected), "{rows} {inner} {columns}");
        }
    }
}
