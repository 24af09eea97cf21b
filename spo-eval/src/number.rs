//! How numbers are written, the same in every kind of report.

/// A share as a percentage without its sign.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A number with three significant digits or so: two decimals below 10, one below 1000, else none.
pub(crate) fn plain(value: f64) -> String {
    let decimals = if value.abs() < 9.995 {
        2
    } else if value.abs() < 999.95 {
        1
    } else {
        0
    };
    let text = format!("{value:.decimals$}");
    if text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.') {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// [`plain`] with its sign; zero has none.
pub(crate) fn signed(value: f64) -> String {
    let text = plain(value);
    if text.starts_with('-') || text.chars().all(|c| c == '0' || c == '.') { text } else { format!("+{text}") }
}

/// A value and its standard error with one decimal, two where the error is below 0.1.
pub(crate) fn plus_minus(value: f64, error: f64) -> String {
    if error < 0.1 { format!("{value:.2} ± {error:.2}") } else { format!("{value:.1} ± {error:.1}") }
}

/// An interval of a difference of shares, in percentage points.
pub(crate) fn interval_points(interval: (f64, f64)) -> String {
    format!("{} to {}", signed(100.0 * interval.0), signed(100.0 * interval.1))
}

/// A count with thousands separated.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in the unit that suits it.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), (seconds % 60.0).floor())
    } else {
        format!("{:.0} h {:.0} min", (seconds / 3600.0).floor(), (seconds % 3600.0 / 60.0).floor())
    }
}

/// Bytes in binary units.
#[must_use]
pub fn bytes(value: u64) -> String {
    const MEBIBYTE: f64 = 1_048_576.0;
    let mebibytes = value as f64 / MEBIBYTE;
    if mebibytes < 1024.0 { format!("{mebibytes:.1} MiB") } else { format!("{:.2} GiB", mebibytes / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_promised() {
        assert_eq!([plain(-0.001), plain(9.99), plain(-12.34), plain(1234.5)], ["0.00", "9.99", "-12.3", "1234"]);
        assert_eq!([signed(0.0), signed(-0.004), signed(3.456), signed(-3.456)], ["0.00", "0.00", "+3.46", "-3.46"]);
        assert_eq!([plus_minus(12.94, 1.08), plus_minus(0.5, 0.012)], ["12.9 ± 1.1", "0.50 ± 0.01"]);
        assert_eq!(interval_points((-0.031, 0.1)), "-3.10 to +10.0");
        assert_eq!([count(7), count(260_032), count(1_000)], ["7", "260,032", "1,000"]);
        assert_eq!([duration(3.21), duration(125.0), duration(7_265.0)], ["3.2 s", "2 min 5 s", "2 h 1 min"]);
        assert_eq!([bytes(1 << 20), bytes(3 << 30)], ["1.0 MiB", "3.00 GiB"]);
        assert_eq!(percent(0.7951), "79.5");
    }
}
