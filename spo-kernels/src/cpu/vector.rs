//! Vectorised loops over one row. They are plain Rust that the compiler vectorises inside `widest!`.

use pulp::{Arch, Simd, WithSimd};

/// Computes an expression with the widest vectors that the processor has. What it calls must be inlined: a function that is not
/// is compiled for the oldest processor.
macro_rules! widest {
    ($work:expr) => {
        $crate::cpu::vector::with_widest(
            #[inline(always)]
            || $work,
        )
    };
}
pub(crate) use widest;

/// See `widest!`. A closure called by value goes through a function of the compiler's own, which is not inlined; called in
/// place it does not.
#[inline(always)]
pub(crate) fn with_widest<R>(work: impl FnMut() -> R) -> R {
    struct Work<F>(F);
    impl<R, F: FnMut() -> R> WithSimd for Work<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, _: S) -> R {
            (self.0)()
        }
    }
    Arch::new().dispatch(Work(work))
}

const LANES: usize = 16;

/// The largest value; −∞ of none.
#[inline(always)]
pub fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut tops = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        (0..LANES).for_each(|lane| tops[lane] = larger(tops[lane], chunk[lane]));
    }
    tops.iter().chain(rest).fold(f32::NEG_INFINITY, |top, value| larger(top, *value))
}

/// `Σ x`
#[inline(always)]
pub fn sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        (0..LANES).for_each(|lane| sums[lane] += chunk[lane]);
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// `Σ a · b`
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        (0..LANES).for_each(|lane| sums[lane] += a[lane] * b[lane]);
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// `Σ a · b` in f64.
#[inline(always)]
pub fn dot_f64(a: &[f32], b: &[f32]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        (0..LANES).for_each(|lane| sums[lane] += f64::from(a[lane]) * f64::from(b[lane]));
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b));
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

/// `eˣ` for x ≤ 0, within 2 units in the last place; 0 below −87.3. Range reduction by ln 2 in two parts and the
/// polynomial of Cephes' `expf`; written without a branch or a call, so that it vectorises.
/// NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer
    let clamped = if x < -87.3 { -87.3 } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    // The low bits of `rounded` are the integer n: shifted into the exponent they make 2ⁿ.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { value * power }
}

/// `Σ e^(x − top)`, of parts in f32, of the parts in f64.
#[inline(always)]
pub fn sum_of_exp(values: &[f32], top: f32) -> f32 {
    let part = |part: &[f32]| {
        let (chunks, rest) = part.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for chunk in chunks {
            (0..LANES).for_each(|lane| sums[lane] += exp(chunk[lane] - top));
        }
        f64::from(sums.iter().sum::<f32>() + rest.iter().map(|x| exp(x - top)).sum::<f32>())
    };
    values.chunks(1024).map(part).sum::<f64>() as f32
}

/// `1 / (1 + e⁻ˣ)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let small = exp(-x.abs());
    let larger = 1.0 / (1.0 + small);
    if x >= 0.0 { larger } else { small * larger }
}

/// `tanh x`, within 4 · 10⁻⁷.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let small = exp(-2.0 * x.abs());
    let value = (1.0 - small) / (1.0 + small);
    if x >= 0.0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for step in 0..=873_000 {
            let x = -(step as f32) * 1e-4;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (found - expected).abs() <= 2.0 * f64::from(f32::EPSILON) * expected,
                "exp({x}) = {found}, not {expected}"
            );
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_and_tanh_follow_f64() {
        for step in -100_000..=100_000 {
            let x = step as f32 * 1e-3;
            let expected = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(sigmoid(x)) - expected).abs() <= 3e-7 * expected + 2e-38, "sigmoid({x})");
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() <= 4e-7, "tanh({x})");
        }
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn sums_follow_f64() {
        for length in [0, 1, 15, 16, 17, 100, 1000] {
            let a: Vec<f32> = (0..length).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let b: Vec<f32> = (0..length).map(|i| ((i * 53 % 97) as f32 - 48.0) / 5.0).collect();
            let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let expected: f64 = wide(&a).iter().zip(wide(&b)).map(|(a, b)| a * b).sum();
            assert!((f64::from(dot(&a, &b)) - expected).abs() < 1e-2);
            assert!((dot_f64(&a, &b) - expected).abs() < 1e-9);
            assert!((f64::from(sum(&a)) - wide(&a).iter().sum::<f64>()).abs() < 1e-3);
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
