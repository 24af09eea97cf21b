//! The ways of splitting text before the merges that llama.cpp knows by name (`tokenizer.ggml.pre`).

use serde_json::{Value, json};

/// A way of splitting.
#[derive(Debug)]
pub struct Split {
    /// Its names, that which is written first.
    pub names: &'static [&'static str],
    /// How it splits.
    pub steps: Steps,
    /// A word that is a token is not merged from its letters; such tokenizers begin with BOS where the file does not say.
    pub whole_words: bool,
    /// The tokenizers of this name compose letters first, which llama.cpp leaves out.
    pub nfc: bool,
}

/// How text is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// By the expression of GPT-2.
    Gpt2,
    /// Every digit alone, then by the expression of GPT-2.
    DigitsGpt2,
    /// By this expression.
    Regex(&'static str),
}

/// How Llama 3 and many after it split text.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// All that are known.
pub const SPLITS: &[Split] = &[
    Split { names: &["gpt-2", "phi-2", "mpt"], steps: Steps::Gpt2, whole_words: false, nfc: false },
    Split {
        names: &["smollm", "starcoder", "refact", "command-r"],
        steps: Steps::DigitsGpt2,
        whole_words: false,
        nfc: false,
    },
    Split { names: &["llama-bpe", "llama3", "llama-v3"], steps: Steps::Regex(LLAMA_3), whole_words: true, nfc: false },
    Split { names: &["dbrx", "smaug-bpe"], steps: Steps::Regex(LLAMA_3), whole_words: false, nfc: false },
    Split { names: &["qwen2", "deepseek-r1-qwen"], steps: Steps::Regex(QWEN_2), whole_words: false, nfc: true },
    Split { names: &["tekken"], steps: Steps::Regex(TEKKEN), whole_words: true, nfc: false },
];

impl Split {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SPLITS.iter().find(|split| split.names.contains(&name))
    }

    /// The `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn pre_tokenizer(&self) -> Value {
        let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
        let steps = match self.steps {
            Steps::Gpt2 => return bytes(true),
            Steps::DigitsGpt2 => vec![json!({ "type": "Digits", "individual_digits": true }), bytes(true)],
            Steps::Regex(regex) => vec![
                json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false }),
                bytes(false),
            ],
        };
        json!({ "type": "Sequence", "pretokenizers": steps })
    }
}

/// Why the way in which a `tokenizer.json` splits has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed<'a> {
    /// It does not split.
    No,
    /// Its steps are none of the known ones.
    Steps,
    /// It splits by this expression.
    Expression(&'a str),
}

impl Steps {
    /// How a `tokenizer.json` splits.
    ///
    /// # Errors
    /// Why that has no name.
    pub fn of_json(tokenizer: &Value) -> Result<Self, Unnamed<'_>> {
        let pre = &tokenizer["pre_tokenizer"];
        let steps: Vec<&Value> = pre["pretokenizers"].as_array().map_or(vec![pre], |steps| steps.iter().collect());
        let splits = |step: &Value| step["type"] == "ByteLevel" && step["use_regex"] != false;
        let digits = |step: &Value| step["type"] == "Digits" && step["individual_digits"] == true;
        let expression = steps.iter().find_map(|step| step["pattern"]["Regex"].as_str());
        match (steps.as_slice(), expression) {
            ([one], None) if splits(one) => Ok(Self::Gpt2),
            ([first, second], None) if digits(first) && splits(second) => Ok(Self::DigitsGpt2),
            ([_], Some(regex)) | ([_, _], Some(regex)) if !steps.iter().any(|step| splits(step) || digits(step)) => {
                let known = SPLITS
                    .iter()
                    .map(|split| split.steps)
                    .find(|steps| matches!(steps, Self::Regex(known) if *known == regex));
                known.ok_or(Unnamed::Expression(regex))
            }
            (steps, None) if !steps.iter().any(|step| splits(step) || digits(step)) => Err(Unnamed::No),
            _ => Err(Unnamed::Steps),
        }
    }
}
