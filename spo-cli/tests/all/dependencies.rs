//! Every dependency that a crate lists is used by its code, but for those whose line says that they are not.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The code of a directory and what is below it.
fn code(dir: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(dir) else { return String::new() };
    let of = |path: PathBuf| match path.is_dir() {
        true => code(&path),
        false if path.extension().is_some_and(|ending| ending == "rs") => std::fs::read_to_string(path).unwrap(),
        false => String::new(),
    };
    entries.map(|entry| of(entry.unwrap().path())).collect()
}

/// Whether the code names a crate.
fn names(code: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| !code[..at].ends_with(word) && !code[at + name.len()..].starts_with(word))
}

/// The dependencies of a section of a manifest that nothing before the line says to be unused.
fn listed<'m>(manifest: &'m str, section: &str) -> Vec<&'m str> {
    let Some((_, rest)) = manifest.split_once(&format!("\n[{section}]\n")) else { return vec![] };
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    let (mut found, mut excused) = (vec![], false);
    for line in lines.filter(|line| !line.is_empty()) {
        match line.strip_prefix('#') {
            Some(comment) => excused |= comment.contains("Not used"),
            None => {
                let name = line.split(['.', ' ', '=']).next().unwrap();
                found.extend((!std::mem::take(&mut excused)).then_some(name));
            }
        }
    }
    found
}

#[test]
fn every_listed_dependency_is_used() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let members: Vec<&str> = members.split(',').map(|name| name.trim().trim_matches('"')).collect();
    assert!(members.len() > 6);
    let mut unused = vec![];
    let mut everywhere = String::new();
    for member in members {
        let dir = root().join(member);
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        let own = code(&dir.join("src")) + &code(&dir.join("benches"));
        let all = code(&dir.join("tests")) + &code(&dir.join("examples")) + &code(&root().join("examples")) + &own;
        for (section, code) in [("dependencies", &own), ("dev-dependencies", &all)] {
            let dependencies = listed(&manifest, section);
            let lacking = dependencies.iter().filter(|name| !names(code, &name.replace('-', "_")));
            unused.extend(lacking.map(|name| format!("{member}: {name} of [{section}]")));
        }
        everywhere += &manifest;
    }
    let shared = listed(&workspace, "workspace.dependencies");
    unused.extend(shared.iter().filter(|name| !names(&everywhere, name)).map(|name| format!("the workspace: {name}")));
    assert!(unused.is_empty(), "not used:\n{}", unused.join("\n"));
}

#[test]
fn the_check_sees_what_is_listed() {
    let manifest =
        "\n[dependencies]\nburn.workspace = true\n# Not used: features.\nciborium.workspace = true\nx = \"1\"\n\n[y]\n";
    assert_eq!(listed(manifest, "dependencies"), ["burn", "x"]);
    assert!(names("use burn::x;", "burn") && !names("use burn_nn::x;", "burn"));
}
