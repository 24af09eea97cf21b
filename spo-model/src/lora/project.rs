//! Updates kept out of the directions that earlier adapters moved most (the projection of OrthAlign, arXiv 2509.24610, in the
//! form that AdamW and weight decay leave intact: of the weights themselves, after a step).

use super::projections;
use crate::CausalLm;
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeMap;

/// Of every layer with a frozen adapter the leading left singular vectors `U` of its update `s·BA`.
#[derive(Debug, Clone)]
pub struct Complement {
    /// By module path: orthonormal, each `[out]`.
    directions: BTreeMap<String, Vec<Vec<f64>>>,
}

impl Complement {
    /// The `count` leading directions of each layer, or as many as its update has.
    pub fn of(model: &CausalLm, count: usize) -> Self {
        let mut model = model.clone();
        let layers = projections(&mut model).into_iter();
        let of = |(path, linear): (String, &mut crate::decoder::Linear)| {
            let frozen = linear.frozen.as_ref()?;
            let (b, a) = (columns(frozen.b.val()), columns(frozen.a.val().transpose()));
            Some((path, leading(&b, &a, count)))
        };
        Self { directions: layers.filter_map(of).collect() }
    }

    /// The model with every trained `B`, `[out, rank]`, replaced by `(I − U Uᵀ) B`, computed in f64. A fresh adapter begins at
    /// `B = 0`, so what this leaves of a step is the step's part outside of `U`.
    pub fn apply(&self, mut model: CausalLm) -> CausalLm {
        for (path, linear) in projections(&mut model) {
            let (Some(directions), Some(lora)) = (self.directions.get(&path), &mut linear.lora) else { continue };
            let b = lora.b.val();
            let ([out, rank], device, dtype) = (b.dims(), b.device(), b.dtype());
            let mut values = vec![0.0f32; out * rank];
            for (index, mut column) in columns(b).into_iter().enumerate() {
                directions.iter().for_each(|direction| take_out(&mut column, direction));
                column.iter().enumerate().for_each(|(row, value)| values[row * rank + index] = *value as f32);
            }
            let b = Tensor::<2>::from_data(TensorData::new(values, [out, rank]), &device).cast(dtype);
            lora.b = Param::initialized(lora.b.id, b);
        }
        model
    }

    /// The directions of a layer, each `[out]`; none where it has no frozen adapter.
    pub fn directions(&self, path: &str) -> &[Vec<f64>] {
        self.directions.get(path).map_or(&[], Vec::as_slice)
    }
}

/// The columns of a matrix in f64.
fn columns(matrix: Tensor<2>) -> Vec<Vec<f64>> {
    let [rows, columns] = matrix.dims();
    let values: Vec<f64> = matrix.into_data().iter::<f64>().collect();
    (0..columns).map(|column| (0..rows).map(|row| values[row * columns + column]).collect()).collect()
}

/// The leading left singular vectors of `B Aᵀ`, of whose factors these are the columns: with `B = Q R` they are `Q V`, where `V`
/// are the eigenvectors of `R (AᵀA) Rᵀ`.
fn leading(b: &[Vec<f64>], a: &[Vec<f64>], count: usize) -> Vec<Vec<f64>> {
    let q = orthonormal(b);
    let r: Vec<Vec<f64>> = q.iter().map(|q| b.iter().map(|b| dot(q, b)).collect()).collect();
    let gram: Vec<Vec<f64>> = a.iter().map(|x| a.iter().map(|y| dot(x, y)).collect()).collect();
    let through: Vec<Vec<f64>> = r.iter().map(|row| gram.iter().map(|column| dot(row, column)).collect()).collect();
    let square = through.iter().map(|row| r.iter().map(|other| dot(row, other)).collect()).collect();
    let mut found = eigen(square);
    found.sort_by(|(x, _), (y, _)| y.total_cmp(x));
    let most = found.first().map_or(0.0, |(value, _)| *value);
    // Of an update of lower rank the others are rounding.
    let kept = found.into_iter().take(count).filter(|(value, _)| *value > 1e-14 * most);
    let mixed = |(_, vector): (f64, Vec<f64>)| {
        let mut direction = vec![0.0; q[0].len()];
        for (q, weight) in q.iter().zip(vector) {
            direction.iter_mut().zip(q).for_each(|(sum, value)| *sum += weight * value);
        }
        direction
    };
    kept.map(mixed).collect()
}

/// An orthonormal basis of the span of some vectors (Gram & Schmidt, twice).
fn orthonormal(vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = vec![];
    for vector in vectors {
        let (length, mut left) = (dot(vector, vector).sqrt(), vector.clone());
        for _ in 0..2 {
            basis.iter().for_each(|done| take_out(&mut left, done));
        }
        let norm = dot(&left, &left).sqrt();
        if norm > 1e-9 * length {
            left.iter_mut().for_each(|value| *value /= norm);
            basis.push(left);
        }
    }
    basis
}

/// Eigenvalues and eigenvectors of a symmetric matrix (Jacobi's rotations).
fn eigen(mut m: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    const SWEEPS: usize = 60;
    let n = m.len();
    let mut vectors: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let size: f64 = m.iter().flatten().map(|value| value * value).sum();
    for _ in 0..SWEEPS {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| m[i][j] * m[i][j]).sum();
        if off <= 1e-30 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if m[p][q] != 0.0 {
                    rotate(&mut m, &mut vectors, p, q);
                }
            }
        }
    }
    (0..n).map(|i| (m[i][i], vectors[i].clone())).collect()
}

/// Makes `m[p][q]` 0; row `p` of `vectors` stays the vector of `m[p][p]`.
fn rotate(m: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    let theta = (m[q][q] - m[p][p]) / (2.0 * m[p][q]);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = (tangent * tangent + 1.0).sqrt().recip();
    let sine = tangent * cosine;
    for row in m.iter_mut() {
        (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
    }
    let mix = |rows: &mut [Vec<f64>]| {
        for column in 0..rows[p].len() {
            let (a, b) = (rows[p][column], rows[q][column]);
            (rows[p][column], rows[q][column]) = (cosine * a - sine * b, sine * a + cosine * b);
        }
    };
    mix(m);
    mix(vectors);
}

/// Takes the part along a unit vector out.
fn take_out(vector: &mut [f64], unit: &[f64]) {
    let along = dot(vector, unit);
    vector.iter_mut().zip(unit).for_each(|(value, unit)| *value -= along * unit);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn matrix(columns: usize, rows: usize, salt: f64) -> Vec<Vec<f64>> {
        (0..columns).map(|c| (0..rows).map(|r| ((c * rows + r) as f64 * 1.7 + salt).sin()).collect()).collect()
    }

    fn product(b: &[Vec<f64>], a: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let column = |j: usize| (0..b[0].len()).map(|i| b.iter().zip(a).map(|(b, a)| b[i] * a[j]).sum()).collect();
        (0..a[0].len()).map(column).collect()
    }

    /// What is left of a matrix, given by columns, outside of some directions: its squared length.
    fn left(mut matrix: Vec<Vec<f64>>, directions: &[Vec<f64>]) -> f64 {
        matrix.iter_mut().for_each(|column| directions.iter().for_each(|direction| take_out(column, direction)));
        matrix.iter().flatten().map(|value| value * value).sum()
    }

    #[test]
    fn the_directions_are_leading_singular_vectors() {
        let (b, a) = (matrix(3, 9, 0.2), matrix(3, 7, 1.1));
        let whole = product(&b, &a);
        let all = leading(&b, &a, 3);
        for (i, x) in all.iter().enumerate() {
            for (j, y) in all.iter().enumerate() {
                assert!((dot(x, y) - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
        let length = left(whole.clone(), &[]);
        assert!(left(whole.clone(), &all) < 1e-20 * length, "all of them hold the whole update");
        // W Wᵀ u = σ² u, and what the first one leaves is the sum of the other σ².
        let mut sum = 0.0;
        for u in &all {
            let wu: Vec<f64> = whole.iter().map(|column| dot(column, u)).collect();
            let again: Vec<f64> =
                (0..u.len()).map(|i| whole.iter().zip(&wu).map(|(column, x)| column[i] * x).sum()).collect();
            let value = dot(&wu, &wu);
            assert!(again.iter().zip(u).all(|(x, u)| (x - value * u).abs() < 1e-10 * value.max(1.0)));
            sum += value;
        }
        assert!((sum - length).abs() < 1e-10 * length);
        let first = left(whole, &leading(&b, &a, 1));
        assert!(first < length && first > 0.0);
        // Of an update of rank 1 there is one.
        let twice = vec![b[0].clone(), b[0].iter().map(|x| 2.0 * x).collect()];
        assert_eq!(leading(&twice, &a[..2], 2).len(), 1);
        assert!(leading(&[vec![0.0; 4]], &[vec![1.0; 3]], 2).is_empty());
    }
}
