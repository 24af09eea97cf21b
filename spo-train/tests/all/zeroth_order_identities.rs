//! What is known of SubZero's directions `Z̃ = μ U Z Vᵀ`, by Monte Carlo with a fixed gradient `G`.

use spo_train::step::optimizer::zeroth_order::{Frames, Key, Role};

const DIMS: [usize; 2] = [12, 9];
const RANK: usize = 3;
const DRAWS: u64 = 20_000;

fn normals(number: u64, count: usize) -> Vec<f64> {
    Key::new(7, "w", Role::Direction, number, 0).normals(count).into_iter().map(f64::from).collect()
}

/// `Aᵀ C B`, `[rows, columns]`, of `A`, `[rank, rows]`, and `B`, `[rank, columns]`.
fn spread(frames: &Frames, core: &[f64]) -> Vec<f64> {
    let [rows, columns] = frames.dims;
    let mut full = vec![0.0; rows * columns];
    for i in 0..frames.rank {
        for j in 0..frames.rank {
            for row in 0..rows {
                let left = f64::from(frames.left[i * rows + row]) * core[i * frames.rank + j];
                let right = &frames.right[j * columns..][..columns];
                let target = &mut full[row * columns..][..columns];
                target.iter_mut().zip(right).for_each(|(sum, right)| *sum += left * f64::from(*right));
            }
        }
    }
    full
}

/// `Uᵀ G V`, `[rank, rank]`
fn gather(frames: &Frames, full: &[f64]) -> Vec<f64> {
    let unit = |index| (0..frames.rank * frames.rank).map(|i| f64::from(i == index)).collect::<Vec<_>>();
    (0..frames.rank * frames.rank).map(|index| dot(&spread(frames, &unit(index)), full)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn scaled(a: &[f64], by: f64) -> Vec<f64> {
    a.iter().map(|a| a * by).collect()
}

/// `Z̃` of these frames.
fn direction(frames: &Frames, number: u64) -> Vec<f64> {
    scaled(&spread(frames, &normals(number, frames.rank * frames.rank)), frames.scale())
}

fn gradient() -> Vec<f64> {
    Key::new(1, "g", Role::Direction, 0, 0).normals(DIMS[0] * DIMS[1]).into_iter().map(f64::from).collect()
}

fn mean(values: impl Iterator<Item = f64>, count: u64) -> f64 {
    values.sum::<f64>() / count as f64
}

fn near(found: f64, expected: f64, share: f64, what: &str) {
    assert!((found - expected).abs() <= share * expected.abs(), "{what}: found {found}, expected {expected}");
}

#[test]
fn frames_are_orthonormal_and_their_own() {
    for (dims, rank, expected) in [([40, 9], 8, 8), ([5, 30], 8, 5), ([1, 6], 2, 1)] {
        let frames = Frames::new(dims, rank, 3, "w", 0);
        assert_eq!(frames.rank, expected);
        for (values, length) in [(&frames.left, dims[0]), (&frames.right, dims[1])] {
            let values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
            for (i, a) in values.chunks(length).enumerate() {
                for (j, b) in values.chunks(length).enumerate() {
                    assert!((dot(a, b) - f64::from(i == j)).abs() < 1e-6);
                }
            }
        }
        assert_eq!(frames, Frames::new(dims, rank, 3, "w", 0));
        for other in
            [Frames::new(dims, rank, 4, "w", 0), Frames::new(dims, rank, 3, "v", 0), Frames::new(dims, rank, 3, "w", 1)]
        {
            assert_ne!(frames.right, other.right);
        }
    }
}

#[test]
fn in_fixed_frames_the_estimate_is_the_projected_gradient() {
    let (frames, gradient) = (Frames::new(DIMS, RANK, 0, "w", 0), gradient());
    let projected = spread(&frames, &gather(&frames, &gradient));
    let mut sum = vec![0.0; gradient.len()];
    let (mut lengths, mut cosines) = (0.0, 0.0);
    for draw in 0..DRAWS {
        let z = direction(&frames, draw);
        let slope = dot(&gradient, &z);
        sum.iter_mut().zip(&z).for_each(|(sum, z)| *sum += slope * z / DRAWS as f64);
        lengths += dot(&z, &z) / DRAWS as f64;
        cosines += dot(&z, &projected).powi(2) / (dot(&z, &z) * dot(&projected, &projected)) / DRAWS as f64;
    }
    // T1
    let expected = scaled(&projected, frames.scale().powi(2));
    let error: f64 = sum.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum();
    assert!((error / dot(&expected, &expected)).sqrt() < 0.05);
    // T3 and the first half of T4
    near(lengths, (DIMS[0] * DIMS[1]) as f64, 0.02, "squared length");
    near(cosines, 1.0 / (RANK * RANK) as f64, 0.05, "cos² to the projected gradient");
}

#[test]
fn over_random_frames_the_estimate_is_the_gradient_with_the_variance_of_mezo() {
    let (gradient, size) = (gradient(), (DIMS[0] * DIMS[1]) as f64);
    let length = dot(&gradient, &gradient);
    let (mut along, mut squares, mut cosines) = (0.0, 0.0, 0.0);
    let mut mezo = 0.0;
    for draw in 0..DRAWS {
        let z = direction(&Frames::new(DIMS, RANK, 0, "w", draw), draw);
        let slope = dot(&gradient, &z);
        along += slope * slope / length / DRAWS as f64;
        squares += slope * slope * dot(&z, &z) / length / DRAWS as f64;
        cosines += slope * slope / (dot(&z, &z) * length) / DRAWS as f64;
        let z = normals(draw + DRAWS, gradient.len());
        mezo += dot(&gradient, &z).powi(2) * dot(&z, &z) / length / DRAWS as f64;
    }
    near(along, 1.0, 0.05, "T2: projection onto the gradient");
    near(cosines, 1.0 / size, 0.05, "T4: cos² to the gradient");
    near(squares, size * (1.0 + 2.0 / (RANK * RANK) as f64), 0.06, "T5: squared length of the estimate");
    near(mezo, size + 2.0, 0.06, "T5: of MeZO's");
}

#[test]
fn with_full_rank_and_fresh_frames_it_is_mezo_rotated() {
    // T8: of a square matrix the length is that of Z, and the slope has the moments of a Gaussian.
    let gradient = &gradient()[..36];
    let (mut second, mut fourth) = (0.0, 0.0);
    for draw in 0..DRAWS {
        let frames = Frames::new([6, 6], 6, 0, "w", draw);
        let (z, core) = (direction(&frames, draw), normals(draw, 36));
        near(dot(&z, &z), dot(&core, &core), 1e-5, "squared length");
        let slope = dot(gradient, &z) / dot(gradient, gradient).sqrt();
        second += slope.powi(2) / DRAWS as f64;
        fourth += slope.powi(4) / DRAWS as f64;
    }
    near(second, 1.0, 0.04, "variance");
    near(fourth, 3.0, 0.12, "fourth moment");
}

#[test]
fn the_variance_falls_with_the_number_of_estimates() {
    // T9, of the slope-weighted mean along a fixed direction of G's own.
    let (frames, gradient) = (Frames::new(DIMS, RANK, 0, "w", 0), gradient());
    let core = scaled(&gather(&frames, &gradient), frames.scale().powi(2));
    let variance = |estimates: u64| {
        let draws = DRAWS / 8;
        let of = |draw: u64| {
            let mut sum = vec![0.0; core.len()];
            for estimate in 0..estimates {
                let z = scaled(&normals(draw * estimates + estimate, core.len()), frames.scale());
                let slope = dot(&gather(&frames, &gradient), &z);
                sum.iter_mut().zip(&z).for_each(|(sum, z)| *sum += slope * z / estimates as f64);
            }
            sum.iter().zip(&core).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
        };
        mean((0..draws).map(of), draws)
    };
    near(variance(1) / variance(8), 8.0, 0.15, "ratio of variances");
}
