//! How kernels are laid out over a device.

use cubecl::prelude::*;

/// Units of a cube that has no reason for another number.
pub(super) const UNITS: usize = 256;

/// Cubes along the first axis before the second is used.
const AXIS: usize = 32_768;

/// At least `count` cubes; a kernel leaves at once where `CUBE_POS` is beyond what it has to do.
pub(super) fn grid(count: usize) -> CubeCount {
    let x = count.clamp(1, AXIS);
    CubeCount::Static(x as u32, count.max(1).div_ceil(x) as u32, 1)
}

/// The widest vectors, up to 4, that divide a row of `width` values.
pub(super) fn lanes(width: usize) -> usize {
    [4, 2].into_iter().find(|lanes| width.is_multiple_of(*lanes)).unwrap_or(1)
}

/// Units for a row of this many vectors: a power of two between 32 and [`UNITS`].
pub(super) fn units(vectors: usize) -> usize {
    vectors.next_power_of_two().clamp(32, UNITS)
}

/// Launches a kernel without bounds checks, with so many cubes of so many units: `launch!(client, kernel::<E>[cubes,
/// units](arguments))`. The calling function has checked all lengths.
macro_rules! launch {
    ($client:expr, $kernel:ident $(::<$($type:ty),+>)? [$count:expr, $units:expr] ($($argument:expr),+ $(,)?)) => {{
        let (client, count, dim) = ($client, $count, ::cubecl::prelude::CubeDim::new_1d($units as u32));
        #[cfg(feature = "cuda-text")]
        if crate::gpu::text::is_recording() {
            let (hardware, target) = (crate::gpu::text::hardware(client), client.target_properties_shared());
            let kernel =
                $kernel::create_dummy_kernel $(::<$($type),+>)? (hardware, target, count, dim, $($argument),+);
            crate::gpu::text::record(stringify!($kernel), &kernel);
            return;
        }
        // SAFETY: no kernel leaves the lengths that its launch function checks, and every loop of one ends.
        unsafe { $kernel::launch_unchecked $(::<$($type),+>)? (client, count, dim, $($argument),+) }
    }};
}
