//! Pareto front and hypervolume of points whose every coordinate is better when larger.

use crate::EvalError;

/// Whether `a` is at least as good everywhere and better somewhere.
fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(x, y)| x >= y) && a.iter().zip(b).any(|(x, y)| x > y)
}

/// Refuses coordinates that are not finite and points whose number of coordinates is not `expected`.
fn check(points: &[Vec<f64>], expected: usize) -> Result<(), EvalError> {
    for (index, point) in points.iter().enumerate() {
        let name = format!("point {index}");
        if point.len() != expected {
            return Err(EvalError::LengthMismatch { name, found: point.len(), expected });
        }
        if let Some((index, &found)) = point.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(EvalError::NonFiniteValue { name, index, found });
        }
    }
    Ok(())
}

/// Indices of the points that no other point dominates, ascending; equal points stay together.
///
/// # Errors
/// Points of different length or with a coordinate that is not finite.
pub fn front(points: &[Vec<f64>]) -> Result<Vec<usize>, EvalError> {
    check(points, points.first().map_or(0, Vec::len))?;
    Ok((0..points.len()).filter(|&index| !points.iter().any(|other| dominates(other, &points[index]))).collect())
}

/// Volume that the points dominate above `reference`; exact in any number of dimensions by slicing along the last one.
/// A point that is not above `reference` everywhere adds nothing.
///
/// # Errors
/// A point or reference with another number of coordinates, or one that is not finite.
pub fn hypervolume(points: &[Vec<f64>], reference: &[f64]) -> Result<f64, EvalError> {
    check(points, reference.len())?;
    check(&[reference.to_vec()], reference.len())?;
    let above: Vec<&[f64]> = points
        .iter()
        .filter(|point| point.iter().zip(reference).all(|(value, low)| value > low))
        .map(Vec::as_slice)
        .collect();
    Ok(if reference.is_empty() { 0.0 } else { volume(above, reference) })
}

/// Slabs from the top down: each is as thick as the gap to the next point and as wide as the points above it.
fn volume(mut points: Vec<&[f64]>, reference: &[f64]) -> f64 {
    let last = reference.len() - 1;
    if last == 0 {
        return points.iter().map(|point| point[0] - reference[0]).fold(0.0, f64::max);
    }
    points.sort_by(|a, b| b[last].total_cmp(&a[last]));
    (0..points.len())
        .map(|index| {
            let below = points.get(index + 1).map_or(reference[last], |point| point[last]);
            let thickness = points[index][last] - below;
            if thickness > 0.0 { thickness * volume(points[..=index].to_vec(), &reference[..last]) } else { 0.0 }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn front_drops_dominated_points_and_keeps_equal_ones() {
        let points = vec![vec![1.0, 3.0], vec![2.0, 2.0], vec![1.0, 2.0], vec![3.0, 1.0], vec![2.0, 2.0]];
        assert_eq!(front(&points).unwrap(), [0, 1, 3, 4]);
        assert!(front(&[]).unwrap().is_empty());
    }

    #[test]
    fn volumes_of_known_shapes() {
        let staircase = vec![vec![1.0, 3.0], vec![2.0, 2.0], vec![3.0, 1.0]];
        assert_eq!(hypervolume(&staircase, &[0.0, 0.0]).unwrap(), 6.0);
        assert_eq!(hypervolume(&[vec![2.0, 3.0, 4.0]], &[1.0, 1.0, 1.0]).unwrap(), 6.0);
        // Two unit-depth boxes 2×1×1 and 1×2×1 that share a unit cube, plus a tower 1×1×3.
        let boxes = vec![vec![2.0, 1.0, 1.0], vec![1.0, 2.0, 1.0], vec![1.0, 1.0, 3.0]];
        assert_eq!(hypervolume(&boxes, &[0.0; 3]).unwrap(), 5.0);
        assert_eq!(hypervolume(&[vec![-1.0, 9.0]], &[0.0, 0.0]).unwrap(), 0.0);
    }

    #[test]
    fn bad_points_are_errors() {
        assert!(matches!(front(&[vec![1.0], vec![1.0, 2.0]]), Err(EvalError::LengthMismatch { .. })));
        assert!(matches!(hypervolume(&[vec![f64::NAN]], &[0.0]), Err(EvalError::NonFiniteValue { .. })));
    }
}
