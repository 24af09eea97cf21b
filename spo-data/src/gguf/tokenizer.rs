//! A GGUF file's tokenizer as the files that Hugging Face keeps for one.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::{Gguf, GgufError, Split};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";
const TEMPLATE: &str = "tokenizer.chat_template";
/// Names of further templates, each under a key of its own.
const TEMPLATES: &str = "tokenizer.chat_templates";

/// Kinds of tokens.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

/// Letters of the longest token that merges are looked for: real ones have some dozens, and the work grows with the square.
const LONGEST: usize = 256;

/// Names and bytes of `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and, if there is a chat
/// template, `chat_template.jinja`. Nothing for a file without a tokenizer.
///
/// # Errors
/// A kind of tokenizer, or a way of splitting text, that is not known; keys that do not agree.
pub fn tokenizer_files(file: &Gguf) -> Result<BTreeMap<String, Vec<u8>>, GgufError> {
    let mut files = BTreeMap::new();
    let model = match file.text(MODEL)? {
        None | Some("no_vocab" | "none") => return Ok(files),
        Some(model) => model,
    };
    let vocabulary = Vocabulary::read(file)?;
    let tokenizer = match model {
        "gpt2" => byte_level(file, &vocabulary)?,
        "llama" => sentence_piece(file, &vocabulary)?,
        _ => return Err(file.expected(MODEL, "gpt2 (byte-level BPE) or llama (SentencePiece BPE)")),
    };
    let mut put = |name: &str, value: &Value| files.insert(name.to_owned(), value.to_string().into_bytes());
    put("tokenizer.json", &tokenizer);
    let (template, more) = templates(file)?;
    let mut config = vocabulary.config(file)?;
    if !more.is_empty() {
        config["chat_template"] = more.into();
    }
    put("tokenizer_config.json", &config);
    put("generation_config.json", &vocabulary.generation());
    if let Some(template) = template {
        files.insert("chat_template.jinja".into(), template.into());
    }
    Ok(files)
}

/// The chat template where there is one; where there are more, the list that `tokenizer_config.json` has of them.
fn templates(file: &Gguf) -> Result<(Option<&str>, Vec<Value>), GgufError> {
    let (default, names) = (file.text(TEMPLATE)?, file.texts(TEMPLATES)?.unwrap_or_default());
    if names.is_empty() {
        return Ok((default, vec![]));
    }
    let mut all: Vec<Value> =
        default.into_iter().map(|template| json!({ "name": "default", "template": template })).collect();
    for name in names.into_iter().filter(|name| *name != "default") {
        let key = format!("{TEMPLATE}.{name}");
        let template = file.text(&key)?.ok_or_else(|| file.expected(&key, "a chat template"))?;
        all.push(json!({ "name": name, "template": template }));
    }
    Ok((None, all))
}

struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<i64>,
    bos: Option<usize>,
    eos: Option<usize>,
    /// Ends of turns and messages, where they are not the EOS.
    ends: Vec<usize>,
    unknown: Option<usize>,
    padding: Option<usize>,
    add_bos: bool,
    add_eos: bool,
    /// Special tokens that take the spaces after them.
    strips: bool,
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a Gguf) -> Result<Self, GgufError> {
        let tokens = file.texts(TOKENS)?.ok_or_else(|| file.expected(TOKENS, "a list of tokens"))?;
        let kinds = match file.numbers(KINDS)? {
            None => vec![1; tokens.len()],
            Some(kinds) if kinds.len() == tokens.len() => kinds.into_iter().map(|kind| kind as i64).collect(),
            Some(_) => return Err(file.expected(KINDS, &format!("the kinds of {} tokens", tokens.len()))),
        };
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}");
            match file.count(&key)? {
                Some(id) if id >= tokens.len() => Err(file.expected(&key, &format!("one of {} tokens", tokens.len()))),
                id => Ok(id),
            }
        };
        let begins = match file.text(MODEL)? {
            Some("llama") => true,
            _ => file.text(PRE)?.and_then(Split::named).is_some_and(|split| split.whole_words),
        };
        let name = file.text("general.name")?.unwrap_or_default().to_lowercase();
        let ends = [id("eot_token_id")?, id("eom_token_id")?];
        Ok(Self {
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            ends: ends.into_iter().flatten().collect(),
            unknown: id("unknown_token_id")?,
            padding: id("padding_token_id")?,
            add_bos: file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(begins),
            add_eos: file.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            strips: ["phi-3", "phi3"].iter().any(|phi| name.contains(phi)),
            tokens,
            kinds,
        })
    }

    /// Tokens and ids, without those that only fill the table.
    fn vocab(&self) -> Map<String, Value> {
        let used = self.tokens.iter().zip(&self.kinds).enumerate().filter(|(_, (_, kind))| **kind != UNUSED);
        used.map(|(id, (token, _))| ((*token).to_owned(), id.into())).collect()
    }

    /// Tokens that are found in a text before it is split.
    fn added(&self) -> Vec<Value> {
        let kept = ["<unk>", "<s>", "<|endoftext|>"];
        let tokens = self.tokens.iter().zip(&self.kinds).enumerate();
        let added = tokens.filter(|(_, (_, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(*kind));
        added
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "special": *kind != USER_DEFINED, "single_word": false,
                    "lstrip": false, "rstrip": self.strips && !kept.contains(token), "normalized": false,
                })
            })
            .collect()
    }

    /// A `tokenizer.json` with this model; `rest` has what the kind of tokenizer does around it.
    fn json(&self, file: &Gguf, model: Value, rest: Value) -> Result<Value, GgufError> {
        let mut whole = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added() });
        let (mut single, mut special) = (vec![json!({ "Sequence": { "id": "A", "type_id": 0 } })], Map::new());
        for (add, id, first, key) in
            [(self.add_bos, self.bos, true, "bos_token_id"), (self.add_eos, self.eos, false, "eos_token_id")]
        {
            if !add {
                continue;
            }
            let key = format!("tokenizer.ggml.{key}");
            let id = id.ok_or_else(|| file.expected(&key, "the token that is added to texts"))?;
            let token = self.tokens[id];
            let item = json!({ "SpecialToken": { "id": token, "type_id": 0 } });
            single.insert(if first { 0 } else { single.len() }, item);
            special.insert(token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] }));
        }
        let pair: Vec<Value> =
            single.iter().cloned().chain([json!({ "Sequence": { "id": "B", "type_id": 0 } })]).collect();
        whole["post_processor"] =
            json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special });
        whole["model"] = model;
        for (key, value) in rest.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        Ok(whole)
    }

    fn config(&self, file: &Gguf) -> Result<Value, GgufError> {
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
            "add_bos_token": self.add_bos, "add_eos_token": self.add_eos,
        });
        let roles = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unknown),
            ("pad_token", self.padding),
        ];
        for (role, id) in roles {
            if let Some(id) = id {
                config[role] = self.tokens[id].into();
            }
        }
        let context = file.text("general.architecture")?.map(|name| file.count(&format!("{name}.context_length")));
        if let Some(context) = context.transpose()?.flatten() {
            config["model_max_length"] = context.into();
        }
        Ok(config)
    }

    fn generation(&self) -> Value {
        let mut ends: Vec<usize> = self.eos.into_iter().collect();
        for end in &self.ends {
            if !ends.contains(end) {
                ends.push(*end);
            }
        }
        let mut generation = json!({ "eos_token_id": ends });
        for (key, id) in [("bos_token_id", self.bos), ("pad_token_id", self.padding)] {
            if let Some(id) = id {
                generation[key] = id.into();
            }
        }
        generation
    }
}

/// BPE on bytes, as GPT-2 has it.
fn byte_level(file: &Gguf, vocabulary: &Vocabulary) -> Result<Value, GgufError> {
    let merges = file.texts(MERGES)?.ok_or_else(|| file.expected(MERGES, "a list of merges"))?;
    let pairs: Option<Vec<(&str, &str)>> = merges.into_iter().map(pair).collect();
    let pairs = pairs.ok_or_else(|| file.expected(MERGES, "two tokens with a space between them in each merge"))?;
    let split = file.text(PRE)?.and_then(Split::named).ok_or_else(|| {
        let names: Vec<&str> = super::SPLITS.iter().flat_map(|split| split.names).copied().collect();
        file.expected(PRE, &format!("a way of splitting text that is known here: {}", names.join(", ")))
    })?;
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": split.whole_words, "vocab": vocabulary.vocab(), "merges": pairs,
    });
    let normalizer = if split.nfc { json!({ "type": "NFC" }) } else { Value::Null };
    let rest = json!({
        "normalizer": normalizer, "pre_tokenizer": split.pre_tokenizer(),
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
    });
    vocabulary.json(file, model, rest)
}

/// The two sides of a merge. Neither is empty, so that the left one may begin with a space.
fn pair(merge: &str) -> Option<(&str, &str)> {
    let first = merge.chars().next()?.len_utf8();
    let space = first + merge[first..].find(' ')?;
    Some((&merge[..space], &merge[space + 1..])).filter(|(_, right)| !right.is_empty())
}

/// BPE on letters with scores, as SentencePiece has it.
fn sentence_piece(file: &Gguf, vocabulary: &Vocabulary) -> Result<Value, GgufError> {
    let scores = file.numbers(SCORES)?.filter(|scores| scores.len() == vocabulary.tokens.len());
    let scores =
        scores.ok_or_else(|| file.expected(SCORES, &format!("the scores of {} tokens", vocabulary.tokens.len())))?;
    if let Some(long) = vocabulary.tokens.iter().position(|token| token.chars().count() > LONGEST) {
        return Err(file.error(format!("key `{TOKENS}`"), format!("token {long} has more than {LONGEST} letters")));
    }
    let prefix = file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let bytes = vocabulary.kinds.contains(&BYTE);
    let unknown = vocabulary.unknown.or_else(|| vocabulary.kinds.iter().position(|kind| *kind == UNKNOWN));
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown.map(|id| vocabulary.tokens[id]),
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": bytes,
        "ignore_merges": false, "vocab": vocabulary.vocab(), "merges": merges(vocabulary, &scores),
    });
    let space = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
    let mut normalizers = vec![space(" ", "▁")];
    let mut decoders = vec![space("▁", " "), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
    if prefix {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let rest = json!({
        "normalizer": { "type": "Sequence", "normalizers": normalizers }, "pre_tokenizer": null,
        "decoder": { "type": "Sequence", "decoders": decoders },
    });
    vocabulary.json(file, model, rest)
}

/// Every way to put a token together from two others, those of high scores first: SentencePiece joins the two neighbours
/// whose union scores highest.
fn merges<'a>(vocabulary: &Vocabulary<'a>, scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let joins = |kind: i64| ![UNKNOWN, CONTROL, UNUSED, BYTE].contains(&kind);
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).enumerate();
    let ids: HashMap<&str, usize> =
        tokens.filter(|(_, (_, kind))| joins(**kind)).map(|(id, (token, _))| (*token, id)).collect();
    let mut tokens: Vec<(usize, &'a str)> = ids.iter().map(|(token, id)| (*id, *token)).collect();
    tokens.sort_unstable();
    let mut merges = vec![];
    for (id, token) in tokens {
        let ways = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut ways: Vec<_> = ways.filter_map(|(l, r)| Some((*ids.get(l)?, *ids.get(r)?, (l, r)))).collect();
        ways.sort_unstable_by_key(|(left, right, _)| (*left, *right));
        merges.extend(ways.into_iter().map(|(.., (left, right))| (scores[id], left, right)));
    }
    // Equal scores as transformers orders them.
    let lengths = |left: &str, right: &str| (left.chars().count(), right.chars().count());
    merges.sort_by(|(a, al, ar), (b, bl, br)| b.total_cmp(a).then_with(|| lengths(bl, br).cmp(&lengths(al, ar))));
    merges.into_iter().map(|(_, left, right)| (left, right)).collect()
}
