//! The index of a sharded checkpoint, `model.safetensors.index.json`.

use crate::ModelError;
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// The shard that holds each tensor, as the index says.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let json = |reason: String| ModelError::Json { file: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
    let index: Index = serde_json::from_str(&text).map_err(|e| json(e.to_string()))?;
    if let Some(file) = index.weight_map.values().find(|file| !is_beside(file)) {
        return Err(json(format!("weight_map names `{file}`, which is not a file beside the index")));
    }
    if index.weight_map.is_empty() {
        return Err(json("weight_map is empty".into()));
    }
    Ok(index.weight_map)
}

/// Whether a name is that of a file in the index's own directory, whatever the system.
fn is_beside(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    plain && !file.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::is_beside;

    #[test]
    fn only_plain_names_are_beside() {
        assert!(is_beside("model-00001-of-00002.safetensors"));
        for name in ["../x", "/etc/passwd", "a/b", "..", ".", "", "C:x", "a\\b", "x\0"] {
            assert!(!is_beside(name), "{name:?}");
        }
    }
}
