//! `strftime_now` for chat templates that print today's date: Python's `datetime.now().strftime(…)`, in local time.

use chrono::{DateTime, Local, NaiveDateTime};

use super::jinja::{Error, Result, fail};

/// Directives that mean the same here and in the C locale, by themselves.
const PLAIN: &str = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyY%";
/// Those that print a number, which `-`, `_` and `0` pad otherwise.
const NUMBERS: &str = "CdegGHIjklmMSuUVwWyY";

/// The current local time in a `strftime` format.
pub(super) fn now(format: &str) -> Result<String> {
    let now: DateTime<Local> = std::time::SystemTime::now().into();
    strftime(format, now.naive_local(), now.timestamp())
}

/// Formats a local time; `seconds` since 1970 are what `%s` prints.
pub(super) fn strftime(format: &str, time: NaiveDateTime, seconds: i64) -> Result<String> {
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let next = rest.next();
        let flag = next.filter(|c| "-_0".contains(*c));
        let directive = if flag.is_some() { rest.next() } else { next };
        match (flag, directive) {
            (None, Some('s')) => text += &seconds.to_string(),
            (None, Some('f')) => text += &time.format("%6f").to_string(),
            // A time without a zone prints neither.
            (None, Some('z' | 'Z')) => {}
            (None, Some(directive)) if PLAIN.contains(directive) => {
                text += &time.format(&format!("%{directive}")).to_string();
            }
            (Some(flag), Some(directive)) if NUMBERS.contains(directive) => {
                text += &time.format(&format!("%{flag}{directive}")).to_string();
            }
            (flag, Some(directive)) => {
                let flag = flag.map(String::from).unwrap_or_default();
                return Err(Error::unsupported(format!("%{flag}{directive} in the format of a date")));
            }
            (_, None) => return fail("the format of a date ends with '%'"),
        }
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::strftime;
    use chrono::DateTime;

    const FORMATS: [&str; 6] = [
        "%a %A %b %B %d %e %j %m",
        "%y %Y %C %G %g %H %I %k %l %M %S %p %P",
        "%c|%x|%X|%D|%F|%R|%T|%r|%h",
        "%u %w %U %W %V %n%t%%",
        "%-d %-m %-H %-I %-M %-S %-j %-y %_d %_m %0e %_H",
        "%f|%z|%Z|%s",
    ];

    #[test]
    fn dates_are_formatted_as_by_python() {
        let right = [
            (
                1_772_874_303,
                [
                    "Sat Saturday Mar March 07  7 066 03",
                    "26 2026 20 2026 26 09 09  9  9 05 03 AM am",
                    "Sat Mar  7 09:05:03 2026|03/07/26|09:05:03|03/07/26|2026-03-07|09:05|09:05:03|09:05:03 AM|Mar",
                    "6 6 09 09 10 \n\t%",
                    "7 3 9 9 5 3 66 26  7  3 07  9",
                    "000000|||1772874303",
                ],
            ),
            (
                1_767_225_599,
                [
                    "Wed Wednesday Dec December 31 31 365 12",
                    "25 2025 20 2026 26 23 11 23 11 59 59 PM pm",
                    "Wed Dec 31 23:59:59 2025|12/31/25|23:59:59|12/31/25|2025-12-31|23:59|23:59:59|11:59:59 PM|Dec",
                    "3 3 52 52 01 \n\t%",
                    "31 12 23 11 59 59 365 25 31 12 31 23",
                    "000000|||1767225599",
                ],
            ),
            (
                951_827_696,
                [
                    "Tue Tuesday Feb February 29 29 060 02",
                    "00 2000 20 2000 00 12 12 12 12 34 56 PM pm",
                    "Tue Feb 29 12:34:56 2000|02/29/00|12:34:56|02/29/00|2000-02-29|12:34|12:34:56|12:34:56 PM|Feb",
                    "2 2 09 09 09 \n\t%",
                    "29 2 12 12 34 56 60 0 29  2 29 12",
                    "000000|||951827696",
                ],
            ),
        ];
        for (seconds, texts) in right {
            let time = DateTime::from_timestamp(seconds, 0).unwrap().naive_utc();
            for (format, text) in FORMATS.into_iter().zip(texts) {
                assert_eq!(strftime(format, time, seconds).unwrap(), text, "{format}");
            }
        }
    }

    #[test]
    fn unknown_directives_are_refused() {
        let time = DateTime::from_timestamp(0, 0).unwrap().naive_utc();
        for format in ["%q", "%", "%-B", "%^a", "%Ey", "%10Y"] {
            assert!(strftime(format, time, 0).is_err(), "{format}");
        }
    }
}
