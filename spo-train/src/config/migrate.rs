//! Run files of older schemas: one step from each schema to the next.

use super::SCHEMA;
use super::document::{Content, Document};
use crate::error::ConfigError;

/// Renames and recomputes what another schema wrote in another way.
type Migration = fn(&mut Document);

/// The step from schema `n` to `n + 1` is at index `n − 1`: a new schema does not compile without its step.
const MIGRATIONS: [Migration; SCHEMA as usize - 1] = [];

/// Makes a run file of any schema so far one of this version. Another layout would only give misleading errors about
/// its keys, so this comes before they are looked at.
///
/// # Errors
/// A schema that this version does not know.
pub(crate) fn migrate(document: &mut Document) -> Result<(), ConfigError> {
    step_by_step(document, &MIGRATIONS)
}

fn step_by_step(document: &mut Document, migrations: &[Migration]) -> Result<(), ConfigError> {
    let supported = migrations.len() as u32 + 1;
    let Some(node) = document.root.get("schema") else { return Ok(()) };
    let Content::Integer(found) = node.content else { return Ok(()) };
    if !(1..=i64::from(supported)).contains(&found) {
        return Err(ConfigError::UnsupportedSchema { at: document.place(&node.source), found, supported });
    }
    migrations[found as usize - 1..].iter().for_each(|migration| migration(document));
    if let Some(node) = document.root.get_mut("schema") {
        node.content = Content::Integer(supported.into());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rename(document: &mut Document, from: &str, to: &str) {
        let Content::Table(root) = &mut document.root.content else { return };
        if let Some(entry) = root.remove(from) {
            root.insert(to.to_owned(), entry);
        }
    }

    #[test]
    fn old_files_take_every_step_and_new_ones_none() {
        let steps: [Migration; 2] = [|file| rename(file, "one", "two"), |file| rename(file, "two", "three")];
        for (text, expected) in [
            ("schema = 1\none = 5", Ok("three")),
            ("schema = 2\ntwo = 5", Ok("three")),
            ("schema = 3\none = 5", Ok("one")),
            ("schema = 4", Err("update spo")),
            ("schema = 0", Err("set `schema = 3`")),
        ] {
            let mut document = Document::parse("run.toml", text).unwrap();
            match (step_by_step(&mut document, &steps), expected) {
                (Ok(()), Ok(key)) => {
                    assert!(document.root.get(key).is_some(), "{text}");
                    assert!(matches!(document.root.get("schema").unwrap().content, Content::Integer(3)), "{text}");
                }
                (Err(error), Err(hint)) => {
                    assert!(error.hint().unwrap().contains(hint), "{error}: {:?}", error.hint());
                    assert_eq!(error.place().unwrap().line, Some(1));
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
