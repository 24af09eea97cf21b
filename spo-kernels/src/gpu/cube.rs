//! Reductions over the units of a cube. Shared memory and barriers only: the size of a plane differs between devices.

use cubecl::prelude::*;

/// The sum over a cube of `units` units, for all of them. `shared` holds as many values.
#[cube]
pub(super) fn sum(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    // Somebody may still read what the last reduction left.
    sync_cube();
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.ilog2() as usize) {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            let other = shared[unit + half];
            shared[unit] += other;
        }
        sync_cube();
    }
    shared[0]
}

/// The largest value of a cube, for all its units.
#[cube]
pub(super) fn max(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.ilog2() as usize) {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            let other = shared[unit + half];
            shared[unit] = f32::max(shared[unit], other);
        }
        sync_cube();
    }
    shared[0]
}
