//! Sequence log-probs of frozen policies, or a reward model's rewards, stored by content.
//!
//! One file per scoring policy, named by a hash of its weights, storage type and way of scoring.
//! A record is `answer hash (16 bytes) · log-prob (f64) · tokens (u32) · crc32 of these (u32)`, so a
//! file that ends in the middle of a record, or has a flipped bit, loses that record only: it is
//! computed again.

use crate::TrainError;
use crate::events::Event;
use crate::events::reporter::Reporter;
use crate::persist::durable;
use spo_core::Sides;
use spo_core::logprob::HeadOptions;
use spo_data::{Dataset, Example, Group, PairRef, RowHash, row_hash};
use spo_model::CausalLm;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of a record.
pub(crate) const RECORD: usize = 32;
/// Answers scored between two checks of the stop flag.
const CHUNK: usize = 256;

/// A directory of log-probs.
#[derive(Debug, Clone)]
pub struct LogpCache {
    dir: PathBuf,
}

/// The log-probs of one policy.
#[derive(Debug)]
pub struct PolicyLogps {
    policy: String,
    dir: PathBuf,
    values: HashMap<RowHash, f64>,
}

impl LogpCache {
    /// A cache in this directory, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> Result<Self, TrainError> {
        std::fs::create_dir_all(dir).map_err(|e| TrainError::io(dir, e))?;
        Ok(Self { dir: dir.into() })
    }

    /// What is stored for a policy; `hash` is that of its weights, `policy` its name in messages.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, policy: &str, hash: &str) -> Result<PolicyLogps, TrainError> {
        let values = self.records(hash)?.into_iter().flatten().collect();
        Ok(PolicyLogps { policy: policy.into(), dir: self.dir.clone(), values })
    }

    /// Every record, `None` for one that is damaged.
    fn records(&self, hash: &str) -> Result<Vec<Option<(RowHash, f64)>>, TrainError> {
        let path = self.path(hash);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(bytes.as_chunks::<RECORD>().0.iter().map(decode).collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
            Err(e) => Err(TrainError::io(&path, e)),
        }
    }

    /// Bytes stored for a policy, whole records only: where [`fill`](Self::fill) starts.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn stored(&self, hash: &str) -> Result<u64, TrainError> {
        let path = self.path(hash);
        match path.metadata() {
            Ok(metadata) => Ok(metadata.len() - metadata.len() % RECORD as u64),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(TrainError::io(&path, e)),
        }
    }

    /// Scores the answers of the sets that are not stored yet and returns all log-probs of the
    /// policy. Memory: the model, and one micro-batch without a tape.
    ///
    /// `from` is what [`stored`](Self::stored) said before the filling began. What an interrupted
    /// filling wrote behind it is used again as far as its chunks are whole, so that the log-probs,
    /// which may depend on what is scored together, are those of an uninterrupted one.
    ///
    /// # Errors
    /// A row that does not fit the model, a log-prob that is not finite, a file that cannot be
    /// written, or the user's interruption; what was scored before stays stored.
    #[allow(clippy::too_many_arguments)]
    pub fn fill(
        &self,
        policy: &str,
        hash: &str,
        from: u64,
        model: &CausalLm,
        sets: &[&Dataset],
        token_budget: usize,
        reporter: &mut Reporter,
    ) -> Result<PolicyLogps, TrainError> {
        let started = Instant::now();
        let mut records = self.records(hash)?;
        let behind = records.split_off(records.len().min(from as usize / RECORD));
        let values = records.into_iter().flatten().collect();
        let mut stored = PolicyLogps { policy: policy.into(), dir: self.dir.clone(), values };
        let (total, missing) = stored.missing(sets);
        let cached = total - missing.iter().map(|(_, answers)| answers.len()).sum::<usize>();
        let chunks: Vec<_> = missing.chunks(CHUNK).collect();
        let (mut whole, mut taken) = (0, 0);
        while let Some(records) = chunks.get(whole).and_then(|chunk| written(chunk, &behind[taken..])) {
            (whole, taken) = (whole + 1, taken + records.len());
            stored.values.extend(records);
        }
        let (path, team) = (self.path(hash), reporter.team.clone());
        // Also cuts a half-written record off, so that the next one is aligned.
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.set_len(from + (taken * RECORD) as u64)?;
            Ok(BufWriter::new(file))
        };
        // Before it is cut and written, all who share the run have read it.
        reporter.check_stop()?;
        let mut file = if team.is_root() { Some(open().map_err(|e| TrainError::io(&path, e))?) } else { None };
        let mut done = cached + taken;
        // Each process scores a chunk; rank 0 writes them in their order.
        for wave in chunks[whole..].chunks(team.size()) {
            reporter.check_stop()?;
            let own = wave.get(team.rank()).map_or(Ok(vec![]), |chunk| score(model, chunk, token_budget))?;
            let own: Vec<u8> = own.iter().flat_map(|logp| logp.to_le_bytes()).collect();
            for (chunk, bytes) in wave.iter().zip(team.gather(&own)?) {
                let logps = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
                for ((id, key, tokens), logp) in answers(chunk).zip(logps) {
                    reporter.check_finite(policy, 0, &[("a log-prob", logp)], || vec![id.into()])?;
                    if let Some(file) = &mut file {
                        file.write_all(&encode(&key, logp, tokens)).map_err(|e| TrainError::io(&path, e))?;
                    }
                    stored.values.insert(key, logp);
                    done += 1;
                }
                if let Some(file) = &mut file {
                    file.flush().map_err(|e| TrainError::io(&path, e))?;
                }
                reporter.emit(Event::Scoring { policy: policy.into(), done, total })?;
            }
        }
        if let Some(file) = &file {
            file.get_ref().sync_data().map_err(|e| TrainError::io(&path, e))?;
        }
        let tokens = missing.iter().map(|row| group(row).tokens() as u64).sum();
        let seconds = started.elapsed().as_secs_f64();
        reporter.emit(Event::Scored { policy: policy.into(), answers: total, cached, tokens, seconds })?;
        Ok(stored)
    }

    /// Takes a policy's log-probs over from the one of other caches that has most, if this one has none.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn adopt(&self, from: impl Iterator<Item = PathBuf>, hash: &str) -> Result<(), TrainError> {
        let own = self.path(hash);
        let theirs = from.map(|dir| Self { dir }.path(hash));
        let most = theirs.filter_map(|path| Some((path.metadata().ok()?.len(), path))).max_by_key(|(bytes, _)| *bytes);
        let Some((_, theirs)) = most.filter(|_| !own.exists()) else { return Ok(()) };
        // A copy: more may be added to either. Each record has its checksum; half of one at the end is left behind.
        let bytes = std::fs::read(&theirs).map_err(|e| TrainError::io(&theirs, e))?;
        durable::write(&own, &bytes[..bytes.len() - bytes.len() % RECORD])
    }

    /// Name of the file of a policy with this hash.
    pub fn file_name(hash: &str) -> String {
        format!("{hash}.logps")
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.dir.join(Self::file_name(hash))
    }
}

/// An example with those of its answers that are not stored.
type Missing<'d> = (&'d Example, Vec<usize>);

/// The prompt of such an example with those answers.
fn group<'d>((example, answers): &Missing<'d>) -> Group<'d> {
    let answers = answers.iter().map(|&answer| example.answers[answer].as_slice());
    Group { prompt: &example.prompt, answers: answers.collect() }
}

/// The answers of a chunk: id of the row, hash and number of tokens of each.
fn answers<'d>(chunk: &[Missing<'d>]) -> impl Iterator<Item = (&'d str, RowHash, u32)> {
    chunk.iter().flat_map(|(example, answers)| {
        let example = *example;
        let of_answer = move |&answer: &usize| {
            (example.id.as_str(), example.answer_hash(answer), example.answers[answer].len() as u32)
        };
        answers.iter().map(of_answer)
    })
}

/// Scores the answers of a chunk, in their order.
fn score(model: &CausalLm, chunk: &[Missing], token_budget: usize) -> Result<Vec<f64>, TrainError> {
    let groups: Vec<Group> = chunk.iter().map(group).collect();
    for ((example, _), group) in chunk.iter().zip(&groups) {
        model.spec().check_row(&example.id, group.prompt, &group.answers)?;
    }
    Ok(score_answers(model, &groups, token_budget).concat())
}

/// What a model says of each answer after its prompt: the log-prob of its tokens, or a reward model its reward, behind a
/// critique of its own where it was trained so.
pub(crate) fn score_answers(model: &CausalLm, groups: &[Group], token_budget: usize) -> Vec<Vec<f64>> {
    if let Some(head) = &model.score {
        return match &head.critic {
            Some(critic) => model.rewards_after_critique(groups, 0, critic, token_budget, &mut |_| ()),
            None => model.rewards(groups, 0, token_budget, &mut |_| ()),
        };
    }
    let scored = model.score(groups, token_budget, &HeadOptions::default(), &mut |_| ());
    let sum = |logps: Vec<f32>| logps.into_iter().map(f64::from).sum();
    scored.into_iter().map(|answers| answers.into_iter().map(sum).collect()).collect()
}

/// The records of a chunk, if all of them stand at the start of `records`.
fn written(chunk: &[Missing], records: &[Option<(RowHash, f64)>]) -> Option<Vec<(RowHash, f64)>> {
    let keys = chunk.iter().flat_map(|(example, answers)| answers.iter().map(|&answer| example.answer_hash(answer)));
    let mut records = records.iter();
    keys.map(|key| records.next().copied().flatten().filter(|(found, _)| *found == key)).collect()
}

impl PolicyLogps {
    /// The number of answers in the sets, and those that are not stored. Similar lengths stand together, the longest
    /// first, so that memory runs out now or never.
    fn missing<'d>(&self, sets: &[&'d Dataset]) -> (usize, Vec<Missing<'d>>) {
        let (mut total, mut missing) = (0, vec![]);
        for example in sets.iter().flat_map(|set| &set.examples) {
            total += example.answers.len();
            let absent = |answer: &usize| !self.values.contains_key(&example.answer_hash(*answer));
            let absent: Vec<usize> = (0..example.answers.len()).filter(absent).collect();
            if !absent.is_empty() {
                missing.push((example, absent));
            }
        }
        missing.sort_by_key(|(example, _)| std::cmp::Reverse(example.tokens()));
        (total, missing)
    }

    /// Log-probs that are not stored, of the policy called `policy` in messages.
    pub(crate) fn of(policy: &str, values: HashMap<RowHash, f64>) -> Self {
        Self { policy: policy.into(), dir: PathBuf::new(), values }
    }

    /// The log-prob of an answer to a prompt; `id` names the row in messages.
    ///
    /// # Errors
    /// [`TrainError::CacheMiss`]
    pub fn logp(&self, id: &str, prompt: &[u32], answer: &[u32]) -> Result<f64, TrainError> {
        if answer.is_empty() {
            return Ok(0.0);
        }
        self.values.get(&row_hash(prompt, answer)).copied().ok_or_else(|| TrainError::CacheMiss {
            dir: self.dir.clone(),
            policy: self.policy.clone(),
            id: id.into(),
        })
    }

    /// The log-probs of pairs, chosen and rejected, each `[pairs]`. Pairs for which `needed` says no
    /// get NaN, which no objective accepts.
    ///
    /// # Errors
    /// [`TrainError::CacheMiss`]
    pub fn sides(
        &self,
        dataset: &Dataset,
        pairs: &[PairRef],
        needed: impl Fn(usize) -> bool,
    ) -> Result<Sides<Vec<f64>>, TrainError> {
        let look_up = |index: usize, example: usize, answer: usize| {
            if !needed(index) {
                return Ok(f64::NAN);
            }
            let example = &dataset.examples[example];
            self.logp(&example.id, &example.prompt, &example.answers[answer])
        };
        let side = |answer: fn(&PairRef) -> usize| {
            let values = pairs.iter().enumerate().map(|(index, pair)| look_up(index, pair.example, answer(pair)));
            values.collect::<Result<Vec<f64>, TrainError>>()
        };
        Ok(Sides { chosen: side(|pair| pair.chosen)?, rejected: side(|pair| pair.rejected)? })
    }
}

fn encode(key: &RowHash, logp: f64, tokens: u32) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..16].copy_from_slice(key);
    record[16..24].copy_from_slice(&logp.to_le_bytes());
    record[24..28].copy_from_slice(&tokens.to_le_bytes());
    let crc = crc32fast::hash(&record[..28]);
    record[28..].copy_from_slice(&crc.to_le_bytes());
    record
}

fn decode(record: &[u8; RECORD]) -> Option<(RowHash, f64)> {
    let (body, crc) = record.split_at(28);
    let key = body[..16].try_into().ok()?;
    let logp = f64::from_le_bytes(body[16..24].try_into().ok()?);
    (crc == crc32fast::hash(body).to_le_bytes()).then_some((key, logp))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(key: [u8; 16], logp in -1e5f64..0.0, tokens: u32, bit in 0usize..RECORD * 8) {
            let mut record = encode(&key, logp, tokens);
            prop_assert_eq!(decode(&record), Some((key, logp)));
            record[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&record), None);
        }
    }
}
