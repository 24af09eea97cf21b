//! Student's t distribution.

use std::f64::consts::PI;

/// `ln Γ(x)` for `x > 0`: Stirling's series behind the recurrence, to about 1e-13.
fn ln_gamma(mut x: f64) -> f64 {
    let mut below = 0.0;
    while x < 15.0 {
        below += x.ln();
        x += 1.0;
    }
    let square = (x * x).recip();
    let series = (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - below
}

/// The regularised incomplete beta function `I_x(a, b)` by its continued fraction (Lentz's method).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    /// In place of a zero that would be divided by.
    const TINY: f64 = 1e-300;
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast below the mean.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let safe = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut c, mut d) = (1.0, safe(1.0 - (a + b) * x / (a + 1.0)).recip());
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for step in [even, odd] {
            d = safe(1.0 + step * d).recip();
            c = safe(1.0 + step / c);
            fraction *= c * d;
        }
        if (fraction / before - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// `P(T ≤ t)` with `freedom` degrees of freedom, above 0.
pub fn cdf(t: f64, freedom: f64) -> f64 {
    if t.is_infinite() {
        return if t > 0.0 { 1.0 } else { 0.0 };
    }
    let tail = incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5) / 2.0;
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The `t` with `P(T ≤ t) = p`, `0 < p < 1`, by bisection.
pub fn quantile(p: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (-1.0, 1.0);
    while cdf(low, freedom) > p {
        low *= 2.0;
    }
    while cdf(high, freedom) < p {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if cdf(middle, freedom) < p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_two_degrees_of_freedom_have_closed_forms() {
        for t in [-30.0, -2.0, -0.3, 0.0, 0.7, 1.0, 5.0, 200.0] {
            let cauchy = 0.5 + f64::atan(t) / PI;
            let two = 0.5 + t / (2.0 * (2.0 + t * t).sqrt());
            assert!((cdf(t, 1.0) - cauchy).abs() < 1e-12, "{t}: {} {cauchy}", cdf(t, 1.0));
            assert!((cdf(t, 2.0) - two).abs() < 1e-12, "{t}: {} {two}", cdf(t, 2.0));
        }
    }

    #[test]
    fn the_quantiles_are_those_of_the_tables() {
        for (freedom, expected) in [(1.0, 12.706_204_7), (4.0, 2.776_445_1), (9.0, 2.262_157_2), (29.0, 2.045_229_6)] {
            assert!((quantile(0.975, freedom) - expected).abs() < 1e-6, "{freedom}");
        }
        assert!((quantile(0.975, 1e6) - 1.959_966).abs() < 1e-5, "almost the normal distribution");
        assert!((quantile(0.2, 4.0) + quantile(0.8, 4.0)).abs() < 1e-12);
    }

    #[test]
    fn whole_numbers_have_their_factorials() {
        let mut factorial = 1.0f64;
        for n in 1..20 {
            assert!((ln_gamma(f64::from(n)) - factorial.ln()).abs() < 1e-12 * factorial.ln().max(1.0), "{n}");
            factorial *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - PI.sqrt().ln()).abs() < 1e-12);
    }
}
