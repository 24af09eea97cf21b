//! What a graphics card says of its memory.

use burn::tensor::Device;

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
        let probe = burn::tensor::Tensor::<1>::empty([1], &device.clone().inner());
        let probe = probe.try_into_primitive::<burn_cubecl::CubeBackend>().ok()?;
        let memory = &probe.client.properties().memory;
        Some(CardMemory { total: memory.max_memory(), largest: memory.max_page_size })
    }
    #[cfg(not(feature = "gpu"))]
    None
}
