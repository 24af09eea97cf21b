//! Compiled kernels that the next process finds again.

use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use std::path::PathBuf;

/// Keeps compiled kernels in the user's cache folder (`~/.cache/cubecl` on Linux) or where a `cubecl.toml` says, and tells
/// where. Counts before the first device is opened; later what holds already stays.
///
/// CUDA's kernels are kept as PTX and those for SPIR-V as such; drivers keep what they make of the others themselves.
pub fn keep() -> PathBuf {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    // cubecl's own choice is a build folder in whatever Rust project the program is called in.
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    CubeClRuntimeConfig::try_set(config);
    CubeClRuntimeConfig::get().environment.path.root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_kept_outside_of_the_folder_the_program_is_called_in() {
        let kept = keep();
        assert!(kept.is_absolute() && !kept.starts_with(std::env::current_dir().expect("a folder")), "{kept:?}");
        assert!(CubeClRuntimeConfig::get().compilation.cache);
        assert_eq!(keep(), kept, "a second call changes nothing");
    }
}
