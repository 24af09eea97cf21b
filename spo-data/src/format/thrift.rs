//! What Parquet files say of themselves, walked through before the reader of Parquet takes it.
//!
//! That reader skips fields that it does not know. A list of booleans it skips without reading a byte of it, so one that
//! states two thousand million elements keeps it busy for a minute. No structure of Parquet's has such a list: a file with
//! one in a place that is not known is refused.
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

use std::ops::ControlFlow;

/// How deep structures may lie in each other, as in the reader of Parquet.
const DEPTH: usize = 64;
/// The field of a page's header that says how many bytes follow it.
const PAGE_SIZE: i64 = 3;

/// A structure at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// All of it is there: so many bytes, with that page size where it is a page's header.
    Whole { bytes: usize, page: Option<u64> },
    /// It goes on behind them, or is none.
    Broken,
    /// It has a list of booleans.
    Endless,
}

/// Walks through a structure of Thrift's compact protocol.
pub(super) fn walk(bytes: &[u8]) -> Walked {
    let mut walk = Walk { rest: bytes, page: None };
    match walk.structure(DEPTH) {
        ControlFlow::Continue(()) => Walked::Whole { bytes: bytes.len() - walk.rest.len(), page: walk.page },
        ControlFlow::Break(end) => end,
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    page: Option<u64>,
}

type Step<T = ()> = ControlFlow<Walked, T>;

fn some<T>(value: Option<T>) -> Step<T> {
    value.map_or(ControlFlow::Break(Walked::Broken), ControlFlow::Continue)
}

impl Walk<'_> {
    fn skip(&mut self, count: u64) -> Step {
        self.rest = some(usize::try_from(count).ok().and_then(|count| self.rest.get(count..)))?;
        ControlFlow::Continue(())
    }

    fn byte(&mut self) -> Step<u8> {
        let (first, rest) = some(self.rest.split_first())?;
        self.rest = rest;
        ControlFlow::Continue(*first)
    }

    fn number(&mut self) -> Step<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return ControlFlow::Continue(number);
            }
        }
        ControlFlow::Break(Walked::Broken)
    }

    fn structure(&mut self, depth: usize) -> Step {
        let mut field = 0;
        loop {
            let header = self.byte()?;
            if header & 15 == 0 {
                return ControlFlow::Continue(());
            }
            field = match header >> 4 {
                0 => zigzag(self.number()?),
                more => field + i64::from(more),
            };
            // An i32 at the top.
            if (depth, field, header & 15) == (DEPTH, PAGE_SIZE, 5) {
                self.page = u64::try_from(zigzag(self.number()?)).ok();
            } else {
                self.value(header & 15, depth)?;
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Step {
        let deeper = some(depth.checked_sub(1))?;
        match kind {
            1 | 2 => ControlFlow::Continue(()),
            3 => self.skip(1),
            4..=6 => self.number().map_continue(|_| ()),
            7 => self.skip(8),
            8 => {
                let length = self.number()?;
                self.skip(length)
            }
            9 | 10 => {
                let header = self.byte()?;
                let size = if header >> 4 == 15 { self.number()? } else { u64::from(header >> 4) };
                self.elements(size, &[header & 15], deeper)
            }
            11 => match self.number()? {
                0 => ControlFlow::Continue(()),
                size => {
                    let kinds = self.byte()?;
                    self.elements(size, &[kinds >> 4, kinds & 15], deeper)
                }
            },
            12 => self.structure(deeper),
            13 => self.skip(16),
            _ => ControlFlow::Break(Walked::Broken),
        }
    }

    fn elements(&mut self, size: u64, kinds: &[u8], depth: usize) -> Step {
        if size > 0 && kinds.iter().all(|kind| matches!(kind, 1 | 2)) {
            return ControlFlow::Break(Walked::Endless);
        }
        // Each takes a byte at least, so what is there ends it.
        for _ in 0..size {
            kinds.iter().try_for_each(|kind| self.value(*kind, depth))?;
        }
        ControlFlow::Continue(())
    }
}

fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_a_page_is_walked_to_its_end() {
        // type 0; 300 bytes, packed to 150; a header with a count and a list of two numbers; the stop.
        let header = [0x15, 0, 0x15, 0xd8, 4, 0x15, 0xac, 2, 0x2c, 0x15, 2, 0x19, 0x25, 4, 6, 0, 0];
        let more = [&header[..], &[7, 7]].concat();
        assert_eq!(walk(&more), Walked::Whole { bytes: header.len(), page: Some(150) });
        for length in 0..header.len() {
            assert_eq!(walk(&header[..length]), Walked::Broken, "{length}");
        }
    }

    #[test]
    fn lists_and_maps_of_booleans_are_endless() {
        for bytes in [&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 7][..], &[0x1b, 0xff, 0xff, 3, 0x12], &[0x1c, 0x1a, 0x12]] {
            assert_eq!(walk(bytes), Walked::Endless, "{bytes:?}");
        }
        // None of them, and booleans beside numbers.
        assert_eq!(walk(&[0x19, 0x01, 0]), Walked::Whole { bytes: 3, page: None });
        assert_eq!(walk(&[0x1b, 1, 0x15, 6, 0]), Walked::Whole { bytes: 5, page: None });
    }

    #[test]
    fn nothing_is_deeper_than_it_may() {
        assert_eq!(walk(&[0x1c; 1000]), Walked::Broken);
        assert_eq!(walk(&[0xff; 20]), Walked::Broken);
    }
}
