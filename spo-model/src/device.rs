//! From a device's name to a device that has been seen working.

use crate::ModelError;
use burn::tensor::{Device, Tensor};
pub use spo_kernels::cpu::on_cpu;
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

/// Opens the device called `auto`, `cpu`, `wgpu`, `vulkan`, `metal` or `cuda`, the last four
/// with an optional index (`cuda:1`), and runs a first operation on it.
///
/// # Errors
/// [`ModelError::Device`] when the name is unknown, the backend is not compiled in, or the first
/// operation fails, as it does where the driver or the hardware is missing.
pub fn open(name: &str) -> Result<Device, ModelError> {
    if name == "auto" {
        return COMPILED
            .iter()
            .find_map(|kind| open(kind).ok())
            .ok_or_else(|| error(name, "no compiled backend works on this machine"));
    }
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => {
            let index = index.parse::<usize>().map_err(|_| error(name, "the part after `:` is not a device index"))?;
            (kind, Some(index))
        }
        None => (name, None),
    };
    match (kind, index) {
        ("cpu", Some(_)) => return Err(error(name, "there is one cpu, without an index")),
        ("cpu" | "cuda" | "metal" | "vulkan" | "wgpu", _) if !COMPILED.contains(&kind) => {
            return Err(error(name, "this build was made without it"));
        }
        ("cpu" | "cuda" | "metal" | "vulkan" | "wgpu", _) => {}
        _ => return Err(error(name, "there is no such kind of device")),
    }
    probe(|| construct(kind, index)).map_err(|reason| error(name, &reason))
}

#[allow(unused_variables, reason = "the index is unused in a build for the CPU only")]
fn construct(kind: &str, index: Option<usize>) -> Device {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    let kind_of_gpu = match index {
        Some(index) => burn::tensor::DeviceKind::DiscreteGpu(index),
        None => burn::tensor::DeviceKind::DefaultDevice,
    };
    match kind {
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(index.unwrap_or(0)),
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
            .unwrap_or("the backend could not start")
            .to_string()),
    }
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
}
