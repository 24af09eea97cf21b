//! Which kernel graphics cards multiply matrices with.
//!
//! What is fastest depends on the card, on the driver and on the shapes: `spo bench --what matmul` tells. The choice is of the
//! whole process, and products of projections, of the head and of their gradients follow it; what a strategy cannot
//! multiply, a type or a shape, goes to [`MatmulStrategy::Auto`]'s. Attention of 16-bit types multiplies by matrix units of
//! its own accord, unless the strategy is one in plain arithmetic.

use std::sync::atomic::{AtomicU8, Ordering};

macro_rules! strategies {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// A way to multiply on a graphics card. Those of cubek have its names: `simple` stages of both matrices one after the
        /// other, `double` ones load the next while one is multiplied, `specialized` ones give loading to units of its own;
        /// `cyclic`, `tilewise`, `hybrid` and `async` say how they load, `tma` by the tensor memory accelerator; `unit` multiplies
        /// in plain arithmetic, `cmma` and `mma` on matrix units, by the portable and by the finer instructions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum MatmulStrategy {
            $($(#[$doc])* #[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl MatmulStrategy {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As settings call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

strategies! {
    /// cuBLASLt where the build has it, it is there and its products are right; else cubek's choice, which is
    /// `simple-cyclic-cmma` where the card has matrix units for the type, else `simple-unit`:
    Auto "auto",
    SimpleUnit "simple-unit",
    DoubleUnit "double-unit",
    SimpleCyclicCmma "simple-cyclic-cmma",
    SimpleCyclicMma "simple-cyclic-mma",
    SimpleTmaCmma "simple-tma-cmma",
    SimpleTmaMma "simple-tma-mma",
    DoubleCyclicCmma "double-cyclic-cmma",
    DoubleCyclicMma "double-cyclic-mma",
    DoubleTilewiseMma "double-tilewise-mma",
    DoubleHybridMma "double-hybrid-mma",
    DoubleAsyncMma "double-async-mma",
    DoubleTmaMma "double-tma-mma",
    SpecializedCyclicMma "specialized-cyclic-mma",
    SpecializedTmaMma "specialized-tma-mma",
    OrderedDoubleCmma "ordered-double-cmma",
    OrderedDoubleMma "ordered-double-mma",
    /// NVIDIA's library; only in builds with the feature `cublaslt`:
    CublasLt "cublaslt",
}

impl MatmulStrategy {
    /// The strategy of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|strategy| strategy.name() == name)
    }

    /// Whether it may multiply on matrix units.
    pub fn takes_matrix_units(self) -> bool {
        !matches!(self, Self::SimpleUnit | Self::DoubleUnit)
    }

    /// What products of this process use from now on.
    pub fn choose(self) {
        let place = Self::ALL.iter().position(|strategy| *strategy == self).expect("all are listed");
        CHOSEN.store(place as u8, Ordering::Relaxed);
    }

    /// What was chosen.
    pub fn chosen() -> Self {
        Self::ALL[CHOSEN.load(Ordering::Relaxed) as usize]
    }
}

/// Its place in [`MatmulStrategy::ALL`].
static CHOSEN: AtomicU8 = AtomicU8::new(0);
