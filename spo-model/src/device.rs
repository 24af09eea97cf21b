//! From a device's name to a device that has been seen working.

use crate::ModelError;
use crate::storage::Storage;
use burn::tensor::{Device, Tensor};
pub use spo_kernels::cpu::on_cpu;
pub use spo_kernels::matmul::MatmulStrategy;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The device kinds compiled into this build, in the order that `auto` tries them.
pub const COMPILED: &[&str] = &[
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "metal")]
    "metal",
    #[cfg(feature = "vulkan")]
    "vulkan",
    #[cfg(feature = "wgpu")]
    "wgpu",
    "cpu",
];

/// The CPU.
pub fn cpu() -> Device {
    Device::flex()
}

/// A device in words.
pub fn describe(device: &Device) -> String {
    if on_cpu(device) { "CPU".into() } else { format!("{device:?}") }
}

/// Which adapter of a kind of device is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adapter {
    /// The one that the backend prefers.
    Default,
    /// A card of its own, by its number among these.
    Discrete(usize),
    /// One inside the processor, by its number among these.
    Integrated(usize),
    /// One that a virtual machine has, by its number among these.
    Virtual(usize),
    /// The processor itself, as a software driver offers it.
    Cpu,
}

/// Opens the device called `auto` (the first of [`COMPILED`] that is a card of its own, or Apple's, else the CPU), `cpu`, `wgpu`, `vulkan`, `metal` or `cuda`, and runs a first operation on it. The last
/// four take a number: `cuda:1` is the second card. `wgpu`, `vulkan` and `metal` also take a kind before it:
/// `vulkan:integrated`, `vulkan:integrated:1`, `wgpu:virtual:0`, `wgpu:cpu`; without a kind the number is that of a
/// discrete card.
///
/// # Errors
/// [`ModelError::Device`] when the name is unknown, the backend is not compiled in, or the first
/// operation fails, as it does where the driver or the hardware is missing.
pub fn open(name: &str) -> Result<Device, ModelError> {
    if name == "auto" {
        return Ok(COMPILED.iter().find_map(|kind| open_card(kind)).unwrap_or_else(cpu));
    }
    let (kind, adapter) = parse(name).map_err(|reason| error(name, reason))?;
    if !COMPILED.contains(&kind) {
        return Err(error(name, "this build was made without it"));
    }
    probe(|| construct(kind, adapter)).map_err(|reason| error(name, &reason))
}

/// A card that `auto` may take: of its own, or Apple's. A card inside the processor can be slower than the processor, and
/// a software driver always is: these are taken by name only.
fn open_card(kind: &str) -> Option<Device> {
    match kind {
        "cuda" | "metal" => open(kind).ok(),
        "vulkan" | "wgpu" => open(&format!("{kind}:discrete")).ok(),
        _ => None,
    }
}

/// The kinds of device that are there: cards, also those inside the processor, and the CPU; a software driver is none.
pub fn present() -> impl Iterator<Item = &'static str> {
    COMPILED.iter().copied().filter(|kind| match *kind {
        "vulkan" | "wgpu" => ["discrete", "integrated"].iter().any(|of| open(&format!("{kind}:{of}")).is_ok()),
        kind => open(kind).is_ok(),
    })
}

/// The kind of device and the adapter that a name means.
fn parse(name: &str) -> Result<(&str, Adapter), &'static str> {
    let (kind, rest) = name.split_once(':').map_or((name, None), |(kind, rest)| (kind, Some(rest)));
    let number = |text: &str| text.parse::<usize>().map_err(|_| "the part after `:` is not a device index");
    match (kind, rest) {
        ("cpu", Some(_)) => Err("there is one cpu, without an index"),
        ("cpu" | "cuda" | "metal" | "vulkan" | "wgpu", None) => Ok((kind, Adapter::Default)),
        ("cuda", Some(rest)) => Ok((kind, Adapter::Discrete(number(rest)?))),
        ("metal" | "vulkan" | "wgpu", Some(rest)) => {
            let (word, index) = rest.split_once(':').map_or((rest, "0"), |(word, index)| (word, index));
            Ok((
                kind,
                match word {
                    "discrete" => Adapter::Discrete(number(index)?),
                    "integrated" => Adapter::Integrated(number(index)?),
                    "virtual" => Adapter::Virtual(number(index)?),
                    "cpu" if rest == "cpu" => Adapter::Cpu,
                    _ => Adapter::Discrete(number(rest)?),
                },
            ))
        }
        _ => Err("there is no such kind of device"),
    }
}

#[allow(unused_variables, reason = "the adapter is unused in a build for the CPU only")]
fn construct(kind: &str, adapter: Adapter) -> Device {
    #[cfg(feature = "kernel-cache")]
    if kind != "cpu" {
        spo_kernels::gpu::cache::keep();
    }
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    let kind_of_gpu = {
        use burn::tensor::DeviceKind;
        match adapter {
            Adapter::Default => DeviceKind::DefaultDevice,
            Adapter::Discrete(index) => DeviceKind::DiscreteGpu(index),
            Adapter::Integrated(index) => DeviceKind::IntegratedGpu(index),
            Adapter::Virtual(index) => DeviceKind::VirtualGpu(index),
            Adapter::Cpu => DeviceKind::Cpu,
        }
    };
    match kind {
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(if let Adapter::Discrete(index) = adapter { index } else { 0 }),
        #[cfg(feature = "metal")]
        "metal" => Device::metal(kind_of_gpu),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(kind_of_gpu),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(kind_of_gpu),
        "cpu" => Device::flex(),
        other => unreachable!("`{other}` was checked against COMPILED"),
    }
}

/// A backend without its driver panics at its first operation: run one where that can be caught,
/// with the panic hook silenced so that nothing is printed.
fn probe(construct: impl FnOnce() -> Device) -> Result<Device, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let device = construct();
        let two = Tensor::<1>::ones([2], &device).sum().into_data();
        (device, two.iter::<f32>().next())
    }));
    std::panic::set_hook(hook);
    match outcome {
        Ok((device, Some(2.0))) => Ok(device),
        Ok((_, sum)) => Err(format!("its first sum gave {sum:?} instead of 2")),
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .and_then(|message| message.lines().find(|line| !line.trim().is_empty()))
            // The backend's own thread died, and its words with it.
            .map(|line| if line.contains("RecvError") { "there is no such adapter, or no driver for it" } else { line })
            .unwrap_or("the backend could not start")
            .to_string()),
    }
}

/// Refuses a storage type that a device cannot compute in, such as bf16 in WGSL.
///
/// # Errors
/// [`ModelError::DeviceDtype`]
pub fn check_dtype(device: &Device, storage: Storage) -> Result<(), ModelError> {
    let computes = |storage: &Storage| device.supports_dtype(storage.dtype());
    if computes(&storage) {
        return Ok(());
    }
    let known = [Storage::F32, Storage::Bf16, Storage::F16].into_iter().filter(computes).map(Storage::name);
    Err(ModelError::DeviceDtype { device: describe(device), dtype: storage.name(), known: known.collect() })
}

/// Says how products are computed on a card from now on, once the card was seen to multiply so: what [`MatmulStrategy::Auto`]
/// became, else the same. Attention follows: [`attend_by_matrix_units`].
///
/// # Errors
/// [`ModelError::Matmul`] for a strategy that the build or the device does not have, or whose products are wrong.
pub fn multiply_by(device: &Device, strategy: MatmulStrategy, storage: Storage) -> Result<MatmulStrategy, ModelError> {
    let refused = |reason: String| ModelError::Matmul { strategy: strategy.name(), device: describe(device), reason };
    if on_cpu(device) {
        return match strategy {
            MatmulStrategy::Auto => Ok(strategy),
            _ => Err(refused("the CPU has one way to multiply, its own".into())),
        };
    }
    check_dtype(device, storage)?;
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]
    {
        let chosen = spo_kernels::gpu::matmul::choose(strategy, device, storage.dtype()).map_err(refused)?;
        attend_by_matrix_units(device, chosen, storage);
        Ok(chosen)
    }
    #[cfg(not(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda")))]
    unreachable!("this build has no other device")
}

/// Lets attention multiply by matrix units from now on where the strategy is not one in plain arithmetic, the weights have 16
/// bits, and the device has such units, which were seen to give what plain arithmetic gives. Says whether it does.
#[allow(unused_variables, reason = "the CPU has none")]
pub fn attend_by_matrix_units(device: &Device, strategy: MatmulStrategy, storage: Storage) -> bool {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]
    if !on_cpu(device) {
        let wanted = strategy.takes_matrix_units() && storage != Storage::F32;
        return spo_kernels::gpu::matrix_units::choose(device, storage.dtype(), wanted);
    }
    false
}

/// `a b` by one strategy, to compare them; `None` for tensors that no graphics card has.
///
/// # Shapes
/// `[rows, inner]` and `[inner, columns]` → `[rows, columns]`, all of one type
#[allow(unused_variables, reason = "a build for the CPU only has no strategies")]
pub fn multiplied(strategy: MatmulStrategy, a: Tensor<2>, b: Tensor<2>) -> Option<Result<Tensor<2>, String>> {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]
    return spo_kernels::gpu::matmul::multiplied(strategy, a, b);
    #[cfg(not(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda")))]
    None
}

fn error(name: &str, reason: &str) -> ModelError {
    ModelError::Device { name: name.into(), reason: reason.into(), compiled: COMPILED.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_and_cpu_open() {
        assert!(open("cpu").is_ok());
        assert!(open("auto").is_ok());
    }

    #[test]
    fn an_unknown_device_lists_the_compiled_ones() {
        let error = open("tpu").expect_err("no such kind");
        assert!(error.to_string().contains("tpu"));
        assert!(error.hint().is_some_and(|hint| hint.contains("cpu")));
        assert!(open("cpu:1").is_err());
        assert!(open("cuda:x").is_err());
    }

    #[test]
    fn names_say_which_adapter() {
        for (name, expected) in [
            ("cuda:1", ("cuda", Adapter::Discrete(1))),
            ("vulkan", ("vulkan", Adapter::Default)),
            ("vulkan:2", ("vulkan", Adapter::Discrete(2))),
            ("vulkan:discrete:2", ("vulkan", Adapter::Discrete(2))),
            ("vulkan:integrated", ("vulkan", Adapter::Integrated(0))),
            ("metal:integrated:1", ("metal", Adapter::Integrated(1))),
            ("wgpu:virtual:0", ("wgpu", Adapter::Virtual(0))),
            ("wgpu:cpu", ("wgpu", Adapter::Cpu)),
        ] {
            assert_eq!(parse(name), Ok(expected));
        }
        for name in ["wgpu:cpu:1", "cuda:integrated", "wgpu:x", "wgpu:integrated:x", "tpu:0", "wgpu:"] {
            assert!(parse(name).is_err(), "{name}");
        }
    }
}
