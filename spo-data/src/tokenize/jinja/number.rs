//! Digits of numbers as C and Python lay them out.

use super::error::{Result, fail};
use super::print;

/// How a number is laid out.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) precision: Option<usize>,
    /// `#`: keep the point, and in `%g` the zeros.
    pub(crate) alternate: bool,
}

/// The digits of a float without its sign, by the letter of its format.
pub(crate) fn float(number: f64, kind: char, layout: Layout) -> Result<String> {
    let number = number.abs();
    let upper = kind.is_ascii_uppercase();
    let cased = |text: &str| if upper { text.to_uppercase() } else { text.to_string() };
    if !number.is_finite() {
        return Ok(cased(&print::float(number)));
    }
    let precision = layout.precision.unwrap_or(6);
    Ok(match kind.to_ascii_lowercase() {
        'f' => {
            let digits = format!("{number:.precision$}");
            if layout.alternate && precision == 0 { digits + "." } else { digits }
        }
        'e' => cased(&scientific(number, precision, layout.alternate)),
        'g' => cased(&general(number, precision.max(1), layout.alternate)),
        _ => return fail(format!("unknown format '{kind}' for a float")),
    })
}

fn scientific(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{digits}{point}e{sign}{exponent:0>2}")
}

fn general(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.*e}", precision - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let digits = if exponent < -4 || exponent >= precision as i32 {
        scientific(number, precision - 1, alternate)
    } else {
        format!("{number:.*}", (precision as i32 - 1 - exponent).max(0) as usize)
    };
    if alternate {
        return digits;
    }
    let (mantissa, exponent) = digits.find('e').map_or((&digits[..], ""), |at| digits.split_at(at));
    let mantissa = match mantissa.contains('.') {
        true => mantissa.trim_end_matches('0').trim_end_matches('.'),
        false => mantissa,
    };
    format!("{mantissa}{exponent}")
}

/// The digits of an integer without its sign.
pub(crate) fn int(number: i128, kind: char) -> String {
    let number = number.unsigned_abs();
    match kind {
        'x' => format!("{number:x}"),
        'X' => format!("{number:X}"),
        'o' => format!("{number:o}"),
        'b' => format!("{number:b}"),
        _ => number.to_string(),
    }
}

/// Commas or underscores between groups of digits before the point.
pub(crate) fn grouped(digits: &str, separator: char, size: usize) -> String {
    let whole = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let mut out = String::new();
    for (index, digit) in digits[..whole].chars().enumerate() {
        if index > 0 && (whole - index) % size == 0 {
            out.push(separator);
        }
        out.push(digit);
    }
    out + &digits[whole..]
}
