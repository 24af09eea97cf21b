//! Contiguous buffers of a device.

use cubecl::prelude::*;
use cubecl::server::Handle;

/// `len` values from the start of a handle, without gaps.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Where the values are.
    pub handle: Handle,
    /// How many there are, in elements of the kernel's type.
    pub len: usize,
}

impl Buffer {
    /// `len` values at a handle.
    pub fn new(handle: Handle, len: usize) -> Self {
        Self { handle, len }
    }

    /// Memory for `len` values of `E`, which holds anything.
    pub fn empty<E: CubeElement>(client: &Client, len: usize) -> Self {
        Self::new(client.empty(len.max(1) * size_of::<E>()), len)
    }

    /// Uploads values; an empty buffer is one value long, because no device has empty ones.
    pub fn from_slice<E: CubeElement + Default>(client: &Client, values: &[E]) -> Self {
        let handle = match values.is_empty() {
            true => client.create_from_slice(E::as_bytes(&[E::default()])),
            false => client.create_from_slice(E::as_bytes(values)),
        };
        Self::new(handle, values.len())
    }

    /// Downloads the values.
    pub fn read<E: CubeElement>(self, client: &Client) -> Vec<E> {
        let bytes = client.read_one_unchecked(self.handle);
        E::from_bytes(&bytes)[..self.len].to_vec()
    }

    /// As an argument of a kernel that sees vectors of `lanes` values.
    pub(super) fn argument(self, lanes: usize) -> BufferArg {
        // SAFETY: the buffer has this many values, as its maker said; launches check what their kernels touch.
        unsafe { BufferArg::from_raw_parts(self.handle, self.len / lanes) }
    }

    /// Panics unless there are `expected` values, and a kernel can number them with 32 bits.
    #[track_caller]
    pub(super) fn expect(&self, name: &str, expected: usize) {
        assert_eq!(self.len, expected, "length of `{name}`");
        assert!(u32::try_from(expected).is_ok(), "`{name}` has {expected} values, more than 32 bits can number");
    }
}

/// Panics unless each of these buffers has `expected` values, see [`Buffer::expect`].
#[track_caller]
pub(super) fn expect<const N: usize>(buffers: [(&Buffer, &str); N], expected: usize) {
    for (buffer, name) in buffers {
        buffer.expect(name, expected);
    }
}
