//! Random orthonormal frames of a matrix.

use super::random::{Key, Role};

/// `U` and `V` of a matrix `[rows, columns]`: what SubZero changes of it in a window is `U C Vᵀ` with a small core `C`.
#[derive(Debug, Clone, PartialEq)]
pub struct Frames {
    /// Sides of the matrix.
    pub dims: [usize; 2],
    /// Columns of both frames, at most the shorter side.
    pub rank: usize,
    /// `Uᵀ`, `[rank, rows]`, its rows orthonormal.
    pub left: Vec<f32>,
    /// `Vᵀ`, `[rank, columns]`, its rows orthonormal.
    pub right: Vec<f32>,
}

impl Frames {
    /// The frames of the matrix at `path` in the window of this number: uniform among all (Haar), as the orthogonal
    /// factor of a Gaussian matrix is.
    pub fn new(dims: [usize; 2], rank: usize, seed: u64, path: &str, window: u64) -> Self {
        let rank = rank.min(dims[0]).min(dims[1]);
        let frame = |length, role| orthonormal(Key::new(seed, path, role, window, 0).normals(rank * length), length);
        Self { dims, rank, left: frame(dims[0], Role::Left), right: frame(dims[1], Role::Right) }
    }

    /// What a core of N(0, 1) is multiplied by, `√(rows · columns) / rank`: then `U Z Vᵀ` has the expected squared length
    /// of a Gaussian matrix of these sides, and MeZO's learning rate and ε keep their meaning.
    pub fn scale(&self) -> f64 {
        ((self.dims[0] * self.dims[1]) as f64).sqrt() / self.rank as f64
    }
}

/// The rows of `values`, `[rows, length]`, made orthonormal one after the other (Gram & Schmidt, twice, in f64).
fn orthonormal(values: Vec<f32>, length: usize) -> Vec<f32> {
    let mut rows: Vec<Vec<f64>> = vec![];
    for row in values.chunks_exact(length) {
        let mut row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        for _ in 0..2 {
            for done in &rows {
                let along = dot(&row, done);
                row.iter_mut().zip(done).for_each(|(x, y)| *x -= along * y);
            }
        }
        let norm = dot(&row, &row).sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
        rows.push(row);
    }
    rows.into_iter().flatten().map(|x| x as f32).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The factors of `elements` that are closest to each other, the smaller one first.
pub fn near_square(elements: usize) -> [usize; 2] {
    let rows = (1..=elements.isqrt()).rev().find(|rows| elements.is_multiple_of(*rows)).unwrap_or(1);
    [rows, elements / rows]
}
