//! What Parquet files say of themselves, walked through before the reader of Parquet takes it.
//!
//! That reader takes a field by its number, whatever type it states, and skips what it does not know: of a list of booleans
//! without reading a byte of it, so that forty bytes which state two thousand million elements keep it busy for a minute. So
//! known fields must have their type, and no list of booleans may stand where none is known.
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

use std::ops::ControlFlow;

/// How deep structures may lie in each other, as in the reader of Parquet.
const DEPTH: usize = 64;

/// Fields of a structure by number; others may have any type.
pub(super) type Fields = &'static [(i64, Field)];

/// Types of fields.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    Bool,
    I8,
    I16,
    I32,
    I64,
    Double,
    Bytes,
    List(&'static Field),
    Struct(Fields),
}

/// A structure at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// All of it is there: so many bytes, with the number in one of its fields.
    Whole { bytes: usize, number: Option<i64> },
    /// It goes on behind them.
    Cut,
    /// It is none.
    Unlike(&'static str),
}

/// Walks through a structure of Thrift's compact protocol, and looks at the 32-bit number in one of its fields.
pub(super) fn walk(bytes: &[u8], fields: Fields, number: i64) -> Walked {
    let mut walk = Walk { rest: bytes, number: None, wanted: number };
    match walk.structure(fields, DEPTH) {
        ControlFlow::Continue(()) => Walked::Whole { bytes: bytes.len() - walk.rest.len(), number: walk.number },
        ControlFlow::Break(end) => end,
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    number: Option<i64>,
    wanted: i64,
}

type Step<T = ()> = ControlFlow<Walked, T>;

fn there<T>(value: Option<T>) -> Step<T> {
    value.map_or(ControlFlow::Break(Walked::Cut), ControlFlow::Continue)
}

fn unlike<T>(what: &'static str) -> Step<T> {
    ControlFlow::Break(Walked::Unlike(what))
}

impl Field {
    /// Whether a field or an element may state this type.
    fn is(self, kind: u8) -> bool {
        match self {
            Self::Bool => matches!(kind, 1 | 2),
            Self::I8 => kind == 3,
            Self::I16 => kind == 4,
            Self::I32 => kind == 5,
            Self::I64 => kind == 6,
            Self::Double => kind == 7,
            Self::Bytes => kind == 8,
            Self::List(_) => kind == 9,
            Self::Struct(_) => kind == 12,
        }
    }
}

impl Walk<'_> {
    fn skip(&mut self, count: u64) -> Step {
        self.rest = there(usize::try_from(count).ok().and_then(|count| self.rest.get(count..)))?;
        ControlFlow::Continue(())
    }

    fn byte(&mut self) -> Step<u8> {
        let (first, rest) = there(self.rest.split_first())?;
        self.rest = rest;
        ControlFlow::Continue(*first)
    }

    fn varint(&mut self) -> Step<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return ControlFlow::Continue(number);
            }
        }
        unlike("a number of more than 64 bits")
    }

    fn structure(&mut self, fields: Fields, depth: usize) -> Step {
        let mut number = 0;
        loop {
            let header = self.byte()?;
            let kind = header & 15;
            if kind == 0 {
                return ControlFlow::Continue(());
            }
            number = match header >> 4 {
                0 => zigzag(self.varint()?),
                more => number + i64::from(more),
            };
            let known = fields.iter().find(|(known, _)| *known == number).map(|(_, field)| *field);
            if known.is_some_and(|field| !field.is(kind)) {
                return unlike("a field of another type");
            }
            if (depth, number, kind) == (DEPTH, self.wanted, 5) {
                self.number = Some(zigzag(self.varint()?));
            } else {
                self.value(kind, known, depth)?;
            }
        }
    }

    fn value(&mut self, kind: u8, known: Option<Field>, depth: usize) -> Step {
        let Some(deeper) = depth.checked_sub(1) else { return unlike("structures too deep in each other") };
        match kind {
            1 | 2 => ControlFlow::Continue(()),
            3 => self.skip(1),
            4..=6 => self.varint().map_continue(|_| ()),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => {
                let header = self.byte()?;
                let size = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
                let of = if let Some(Field::List(of)) = known { Some(*of) } else { None };
                if size > 0 && of.is_some_and(|of| !of.is(header & 15)) {
                    return unlike("a list of another type");
                }
                self.elements(size, &[header & 15], of, deeper)
            }
            11 => match self.varint()? {
                0 => ControlFlow::Continue(()),
                size => {
                    let kinds = self.byte()?;
                    self.elements(size, &[kinds >> 4, kinds & 15], None, deeper)
                }
            },
            12 => self.structure(if let Some(Field::Struct(fields)) = known { fields } else { &[] }, deeper),
            13 => self.skip(16),
            _ => unlike("a field of no type"),
        }
    }

    fn elements(&mut self, size: u64, kinds: &[u8], known: Option<Field>, depth: usize) -> Step {
        if size > 0 && kinds.iter().all(|kind| matches!(kind, 1 | 2)) {
            return unlike("a list of booleans");
        }
        // Each takes a byte at least, so what is there ends it.
        for _ in 0..size {
            kinds.iter().try_for_each(|kind| self.value(*kind, known, depth))?;
        }
        ControlFlow::Continue(())
    }
}

fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::super::parquet_fields::{FILE, PAGE, PAGE_SIZE};
    use super::*;

    fn page(bytes: &[u8]) -> Walked {
        walk(bytes, PAGE, PAGE_SIZE)
    }

    #[test]
    fn a_header_of_a_page_is_walked_to_its_end() {
        // Type 0; 300 bytes, packed to 150; a header with a count; a field of tomorrow, a list of two numbers; the stop.
        let header = [0x15, 0, 0x15, 0xd8, 4, 0x15, 0xac, 2, 0x2c, 0x15, 2, 0, 0x79, 0x25, 4, 6, 0];
        let more = [&header[..], &[7, 7]].concat();
        assert_eq!(page(&more), Walked::Whole { bytes: header.len(), number: Some(150) });
        for length in 0..header.len() {
            assert_eq!(page(&header[..length]), Walked::Cut, "{length}");
        }
    }

    #[test]
    fn known_fields_have_their_type() {
        assert_eq!(page(&[0x16, 0, 0]), Walked::Unlike("a field of another type"));
        assert_eq!(walk(&[0x2c, 0, 0], FILE, 0), Walked::Unlike("a field of another type"));
        assert_eq!(walk(&[0x29, 0x15, 0, 0], FILE, 0), Walked::Unlike("a list of another type"));
        // A name in the schema that is a number.
        assert_eq!(walk(&[0x29, 0x1c, 0x45, 2, 0, 0], FILE, 0), Walked::Unlike("a field of another type"));
        assert_eq!(walk(&[0x29, 0x1c, 0x48, 1, b'a', 0, 0], FILE, 0), Walked::Whole { bytes: 7, number: None });
        // An empty list may state any type.
        assert_eq!(walk(&[0x29, 0x05, 0], FILE, 0), Walked::Whole { bytes: 3, number: None });
    }

    #[test]
    fn lists_and_maps_of_booleans_are_refused() {
        let endless = Walked::Unlike("a list of booleans");
        for bytes in [&[0xf9, 0xf1, 0xff, 0xff, 0xff, 0xff, 7][..], &[0xfb, 0xff, 0xff, 3, 0x12], &[0xfc, 0x1a, 0x12]] {
            assert_eq!(page(bytes), endless, "{bytes:?}");
        }
        // None of them, and booleans beside numbers.
        assert_eq!(page(&[0xf9, 0x01, 0]), Walked::Whole { bytes: 3, number: None });
        assert_eq!(page(&[0xfb, 1, 0x15, 6, 0]), Walked::Whole { bytes: 5, number: None });
    }

    #[test]
    fn nothing_is_deeper_than_it_may() {
        assert_eq!(page(&[0xfc; 1000]), Walked::Unlike("structures too deep in each other"));
        assert_eq!(page(&[0xff; 20]), Walked::Unlike("a field of no type"));
    }
}
