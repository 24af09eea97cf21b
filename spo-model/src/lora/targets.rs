//! Which layers get an adapter.

use super::projection_names;
use crate::layout::Layout;
use crate::{ModelError, ModelSpec};
use regex_lite::Regex;

/// A choice of projections, with PEFT's meaning of `target_modules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer of the decoder blocks.
    AllLinear,
    /// Names, each the end of a module path: `q_proj`, `mlp.up_proj`, `layers.0.self_attn.q_proj`. With
    /// `*`, `?` or `[…]` in it, a glob over the same ends, whose `*` also crosses dots.
    Names(Vec<String>),
    /// A regular expression for whole module paths, such as `model.layers.0.self_attn.q_proj`.
    Pattern(String),
}

/// The module path that PEFT knows a module by: the checkpoint's.
pub(super) fn module_path(layout: &Layout, path: &str) -> String {
    layout.name(&format!("{path}.weight")).trim_end_matches(".weight").to_string()
}

impl Targets {
    /// The paths of the projections of a model that are chosen, in their order, such as
    /// `layers.0.self_attn.q_proj`.
    ///
    /// # Errors
    /// A name or pattern that no projection has, or a pattern that is not a regular expression.
    pub fn select(&self, spec: &ModelSpec) -> Result<Vec<String>, ModelError> {
        let (chosen, unknown) = self.chosen(spec).map_err(refuse)?;
        match unknown {
            None => Ok(chosen),
            Some(name) => {
                let mut known: Vec<String> =
                    projection_names(spec).iter().map(|path| spec.layout.last_name(path)).collect();
                known.sort_unstable();
                known.dedup();
                Err(refuse(format!("no projection is called `{name}`; there are {}", known.join(", "))))
            }
        }
    }

    /// As [`select`](Self::select), where names that no projection has do not matter, as in PEFT.
    pub(super) fn matching(&self, spec: &ModelSpec) -> Result<Vec<String>, String> {
        Ok(self.chosen(spec)?.0)
    }

    /// The projections that are chosen, and the first name that none has.
    fn chosen(&self, spec: &ModelSpec) -> Result<(Vec<String>, Option<&str>), String> {
        let all = projection_names(spec);
        let names = match self {
            Self::AllLinear => return Ok((all, None)),
            Self::Pattern(pattern) => vec![(pattern, format!("^(?:{pattern})$"))],
            Self::Names(names) => names.iter().map(|name| (name, end_of_path(name))).collect(),
        };
        let (mut chosen, mut unknown) = (vec![false; all.len()], None);
        for (name, expression) in names {
            let expression = Regex::new(&expression).map_err(|e| format!("target `{name}`: {e}"))?;
            let matches: Vec<bool> =
                all.iter().map(|path| expression.is_match(&module_path(spec.layout, path))).collect();
            chosen.iter_mut().zip(&matches).for_each(|(chosen, matches)| *chosen |= matches);
            if !matches.contains(&true) {
                unknown = unknown.or(Some(name.as_str()));
            }
        }
        Ok((all.into_iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(path, _)| path).collect(), unknown))
    }
}

fn refuse(reason: String) -> ModelError {
    ModelError::Adapter { file: "lora.targets".into(), reason }
}

/// The expression for paths that end in `name`, a name or glob.
fn end_of_path(name: &str) -> String {
    let mut expression = String::from(r"^(?:.*\.)?");
    for c in name.chars() {
        match c {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' | ']' | '-' => expression.push(c),
            other => expression.push_str(&regex_lite::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    expression
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ModelSpec {
        ModelSpec::from_json(
            r#"{"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 12, "num_attention_heads": 4, "max_position_embeddings": 64}"#,
        )
        .expect("a whole configuration")
    }

    fn names(names: &[&str]) -> Vec<String> {
        Targets::Names(names.iter().map(|name| name.to_string()).collect()).select(&spec()).expect("they exist")
    }

    #[test]
    fn names_are_ends_of_paths() {
        assert_eq!(Targets::AllLinear.select(&spec()).expect("all").len(), 84);
        assert_eq!(names(&["q_proj", "v_proj"]).len(), 24);
        assert_eq!(names(&["self_attn.q_proj"]).len(), 12);
        assert_eq!(names(&["model.layers.1.self_attn.q_proj"]), ["layers.1.self_attn.q_proj"]);
        // Not the end of a name: `proj` alone matches nothing, layer 1 is not layer 11.
        assert!(Targets::Names(vec!["proj".into()]).select(&spec()).is_err());
        assert_eq!(names(&["1.self_attn.q_proj"]), ["layers.1.self_attn.q_proj"]);
    }

    #[test]
    fn globs_and_expressions() {
        assert_eq!(names(&["mlp.*"]).len(), 36);
        assert_eq!(names(&["layers.[0-3].*.?_proj"]).len(), 16);
        let pattern = |text: &str| Targets::Pattern(text.into()).select(&spec());
        assert_eq!(pattern(r".*\.(q|v)_proj").expect("matches").len(), 24);
        assert_eq!(pattern(r"model\.layers\.(0|1)\.mlp\.down_proj").expect("matches").len(), 2);
        // As `re.fullmatch`: the whole path.
        assert!(pattern("q_proj").is_err());
        assert!(pattern("(").expect_err("not an expression").to_string().contains("target `(`"));
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones() {
        let error = Targets::Names(vec!["query".into()]).select(&spec()).expect_err("no such name");
        assert!(error.to_string().contains("down_proj, gate_proj, k_proj"), "{error}");
    }
}
