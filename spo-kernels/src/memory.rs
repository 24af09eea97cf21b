//! What a graphics card says of its memory.

use burn::tensor::Device;
#[cfg(feature = "gpu")]
use burn_cubecl::tensor::CubeTensor;
#[cfg(feature = "gpu")]
use cubecl_runtime::memory_management::MemoryScope;

/// Memory of a graphics card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardMemory {
    /// All of it, bytes, where the driver tells.
    pub total: Option<u64>,
    /// The most that one tensor may take, bytes.
    pub largest: u64,
}

/// The memory of a device; `None` for the CPU.
#[cfg_attr(not(feature = "gpu"), allow(unused_variables, reason = "a build for the CPU knows no cards"))]
pub fn card(device: &Device) -> Option<CardMemory> {
    #[cfg(feature = "gpu")]
    {
        let probe = probe(device)?;
        let memory = &probe.client.properties().memory;
        Some(CardMemory { total: memory.max_memory(), largest: memory.max_page_size })
    }
    #[cfg(not(feature = "gpu"))]
    None
}

/// Memory that the kernels' allocator has taken of a graphics card, bytes, in use or not: it gives none back, so this is the
/// most that was needed so far. `None` for the CPU.
#[cfg_attr(not(feature = "gpu"), allow(unused_variables, reason = "a build for the CPU knows no cards"))]
pub fn taken(device: &Device) -> Option<u64> {
    #[cfg(feature = "gpu")]
    {
        Some(probe(device)?.client.memory_report(MemoryScope::Device).usage().bytes_reserved)
    }
    #[cfg(not(feature = "gpu"))]
    None
}

/// A number on a card, through which the card can be asked; `None` for the CPU.
#[cfg(feature = "gpu")]
pub(crate) fn probe(device: &Device) -> Option<CubeTensor> {
    let probe = burn::tensor::Tensor::<1>::empty([1], &device.clone().inner());
    probe.try_into_primitive::<burn_cubecl::CubeBackend>().ok()
}
