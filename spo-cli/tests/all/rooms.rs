//! Imports inside a crate run downwards: `docs/rooms.txt` has the order of each crate's rooms, from the top down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Source files below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| match path.is_dir() {
        true => sources(&path),
        false => vec![path],
    };
    entries.flat_map(below).filter(|path| path.extension().is_some_and(|ending| ending == "rs")).collect()
}

/// The code of a file without its line comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The first word of some code.
fn word(code: &str) -> &str {
    let code = code.trim_start();
    &code[..code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len())]
}

/// The heads of a `{...}` list that starts here: what stands after its brace and each of its own commas.
fn heads(list: &str) -> Vec<&str> {
    let (mut depth, mut found) = (0, vec![]);
    for (index, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(letter, '{' | ',') {
            found.push(word(&list[index + 1..]));
        }
    }
    found.retain(|head| !head.is_empty());
    found
}

/// What a file names behind `crate::`.
fn imports(code: &str) -> BTreeSet<&str> {
    let behind = code.match_indices("crate::").map(|(index, found)| (index, &code[index + found.len()..]));
    let own =
        behind.filter(|(index, _)| !code[..*index].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$'));
    own.flat_map(|(_, rest)| if rest.starts_with('{') { heads(rest) } else { vec![word(rest)] }).collect()
}

/// Names that `lib.rs` takes from its rooms.
fn exported(code: &str) -> BTreeMap<&str, &str> {
    let lines = code.split("pub use ").skip(1).filter_map(|rest| rest.split_once(';')).map(|(path, _)| path);
    let names = lines.flat_map(|path| {
        let room = word(path);
        path.split(|c: char| !c.is_alphanumeric() && c != '_').map(move |name| (name, room))
    });
    names.filter(|(name, room)| !name.is_empty() && name != room).collect()
}

#[test]
fn imports_run_downwards() {
    let orders = std::fs::read_to_string(root().join("docs/rooms.txt")).unwrap();
    let mut wrong = vec![];
    for line in orders.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, order) = line.split_once(": ").unwrap();
        let order: Vec<&str> = order.split(' ').collect();
        let src = root().join(name).join("src");
        let lib = code(&src.join("lib.rs"));
        let exported = exported(&lib);
        for path in sources(&src) {
            let below = path.strip_prefix(&src).unwrap();
            let room = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            if matches!(room, "lib" | "main") {
                continue;
            }
            let floor = |room: &str| order.iter().position(|other| *other == room);
            let Some(own) = floor(room) else {
                wrong.push(format!("{name}: docs/rooms.txt lacks the room `{room}`"));
                continue;
            };
            let text = code(&path);
            for import in imports(&text) {
                let target = exported.get(import).copied().unwrap_or(import);
                match floor(target) {
                    Some(floor) if floor >= own => {}
                    Some(_) => wrong.push(format!("{name}/src/{}: imports `{target}` from above", below.display())),
                    None => wrong.push(format!("{name}/src/{}: `{target}` is no room", below.display())),
                }
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_paths_lists_and_exports() {
    let text = "use crate::step::tape;\nuse crate::{TrainError, persist::{a, b}, run};\nlet x = crate::phase::Phase;";
    assert_eq!(imports(text), BTreeSet::from(["TrainError", "persist", "phase", "run", "step"]));
    assert_eq!(imports("my_crate::step::x"), BTreeSet::new());
    let lib = "pub mod run;\npub use error::TrainError;\npub use run::{Prepared, prepare};";
    let expected = [("Prepared", "run"), ("TrainError", "error"), ("prepare", "run")];
    assert_eq!(exported(lib), BTreeMap::from(expected));
}
