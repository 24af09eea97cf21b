//! Models split into several files, `NAME-00001-of-00003.gguf`.

use std::path::PathBuf;

use super::{Gguf, GgufError};

/// Parts that five digits can number.
const MOST: usize = 99_999;

/// The other parts of a file that was opened by its first one.
pub(super) fn others(file: &Gguf) -> Result<Vec<PathBuf>, GgufError> {
    let count = file.count("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![]);
    }
    if count > MOST {
        return Err(file.expected("split.count", &format!("at most {MOST} parts")));
    }
    let name = file.path().file_name().unwrap_or_default().to_string_lossy();
    let end = format!("-of-{count:05}.gguf");
    let start = name.strip_suffix(&end).and_then(|start| start.split_at_checked(start.len().checked_sub(6)?));
    match start {
        Some((base, "-00001")) => {
            Ok((2..=count).map(|part| file.path().with_file_name(format!("{base}-{part:05}{end}"))).collect())
        }
        _ => Err(file.error(
            "key `split.count`",
            format!("{count} parts, of which the first is to be named: …-00001{end}, not {name}"),
        )),
    }
}

/// Whether all tensors are there.
pub(super) fn check(file: &Gguf) -> Result<(), GgufError> {
    match file.count("split.tensors.count")? {
        Some(count) if count != file.tensors.len() => {
            Err(file.expected("split.tensors.count", &format!("the {} tensors of all parts", file.tensors.len())))
        }
        _ => Ok(()),
    }
}
