//! The figures of a run as TensorBoard event files, one directory per phase, so that TensorBoard overlays the phases.
//!
//! A file is a list of records `length (u64) · masked crc32c of the length (u32) · data · masked crc32c of the data
//! (u32)`, little-endian (TFRecord). The data is the protocol buffer `Event { 1: wall_time (double), 2: step (int64),
//! 3: file_version (string), 5: summary }`, `Summary { 1: value }`, `Value { 1: tag (string), 2: simple_value (float) }`
//! (TensorFlow, core/util/event.proto and core/framework/summary.proto).

use crate::TrainError;
use crate::events::{Event, Sink};
use spo_eval::Subset;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one event file per phase.
#[derive(Debug)]
pub struct TensorBoard {
    dir: PathBuf,
    /// Seconds since 1970 at the start of the run.
    epoch: f64,
    files: BTreeMap<String, (PathBuf, BufWriter<File>)>,
}

impl TensorBoard {
    /// A writer into `out/tensorboard`. What is there is removed: the files are made from the run's events alone.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(out: &Path, seconds: f64) -> Result<Self, TrainError> {
        let dir = out.join("tensorboard");
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(TrainError::io(&dir, e)),
            _ => {}
        }
        std::fs::create_dir_all(&dir).map_err(|e| TrainError::io(&dir, e))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Ok(Self { dir, epoch: now - seconds, files: BTreeMap::new() })
    }

    fn write(&mut self, seconds: f64, phase: &str, step: u64, values: &[(String, f64)]) -> Result<(), TrainError> {
        let time = self.epoch + seconds;
        if !self.files.contains_key(phase) {
            let dir = self.dir.join(phase);
            let path = dir.join(format!("events.out.tfevents.{:010}.spo", self.epoch as u64));
            let created = std::fs::create_dir_all(&dir).and_then(|()| File::create(&path));
            let mut file = BufWriter::new(created.map_err(|e| TrainError::io(&path, e))?);
            let head = [double(1, time), bytes(3, b"brain.Event:2")].concat();
            file.write_all(&record(&head)).map_err(|e| TrainError::io(&path, e))?;
            self.files.insert(phase.into(), (path, file));
        }
        let (path, file) = self.files.get_mut(phase).expect("it was just put there");
        let summary: Vec<u8> = values
            .iter()
            .flat_map(|(tag, value)| bytes(1, &[bytes(1, tag.as_bytes()), float(2, *value as f32)].concat()))
            .collect();
        let data = [double(1, time), integer(2, step), bytes(5, &summary)].concat();
        file.write_all(&record(&data)).and_then(|()| file.flush()).map_err(|e| TrainError::io(path, e))
    }
}

impl Sink for TensorBoard {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        let tagged = |tag: &str, value: f64| (tag.to_owned(), value);
        match event {
            Event::Step(figures) => {
                let mut values = vec![
                    tagged("train/loss", figures.loss),
                    tagged("train/grad-norm", figures.grad_norm),
                    tagged("train/learning-rate", figures.learning_rate),
                    tagged("train/epoch", figures.epoch),
                ];
                let optional = [
                    ("train/accuracy", figures.accuracy),
                    ("train/margin", figures.margin),
                    ("train/chosen-log-ratio", figures.chosen_log_ratio),
                    ("train/rejected-log-ratio", figures.rejected_log_ratio),
                    ("train/margin-offset", figures.margin_offset),
                    ("train/kl", figures.kl),
                    ("train/degree-accuracy", figures.degree_accuracy),
                    ("train/degree-loss", figures.degree_loss),
                    ("train/signal-to-noise", figures.signal_to_noise),
                    ("train/score", figures.score),
                    ("train/answer-tokens", figures.answer_tokens),
                    (
                        "speed/tokens-per-second",
                        (figures.seconds > 0.0).then(|| figures.tokens as f64 / figures.seconds),
                    ),
                    ("speed/memory-bytes", (figures.memory_bytes > 0).then_some(figures.memory_bytes as f64)),
                ];
                values.extend(optional.into_iter().filter_map(|(tag, value)| Some(tagged(tag, value?))));
                let replayed = figures.replayed.iter().map(|of| (format!("replayed/loss/{}", of.dimension), of.loss));
                values.extend(replayed);
                self.write(seconds, &figures.phase, figures.step, &values)
            }
            Event::HeldOut(found) => {
                let of_dimension = found.dimensions.iter().flat_map(|of| {
                    let tag = |what: &str, value: f64| (format!("held-out/{what}/{}", of.dimension), value);
                    [tag("accuracy", of.accuracy), tag("margin", of.margin)]
                });
                let own = std::iter::once(tagged("held-out/loss", found.loss));
                let degrees = found.degree_accuracy.map(|accuracy| tagged("held-out/degree-accuracy", accuracy));
                let score = found.score.map(|score| tagged("held-out/score", score));
                let values: Vec<_> = own.chain(degrees).chain(score).chain(of_dimension).collect();
                self.write(seconds, &found.phase, found.step, &values)
            }
            Event::Gradients(gram) => {
                let name = |at: usize| gram.dimensions[at].as_str();
                let cosine = |(a, b)| Some((format!("gradients/cosine/{}/{}", name(a), name(b)), gram.cosine(a, b)?));
                self.write(seconds, &gram.phase, gram.step, &gram.pairs().filter_map(cosine).collect::<Vec<_>>())
            }
            Event::Evaluated { policy, step, scores, .. } => {
                let shown = scores.iter().filter(|score| score.kind.is_main());
                let values = shown.flat_map(|score| {
                    let tally = score.tally(Subset::All);
                    let of = |what: &str, value: f64| (format!("held-out/{what}/{}", score.dimension), value);
                    tally
                        .into_iter()
                        .flat_map(move |tally| [of("accuracy", tally.accuracy), of("margin", tally.mean_margin)])
                });
                self.write(seconds, policy, *step, &values.collect::<Vec<_>>())
            }
            _ => Ok(()),
        }
    }

    fn earlier(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.event(seconds, event)
    }
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()].concat()
}

/// Checksums are stored rotated and shifted, so that the checksum of data with a checksum in it is not degenerate.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

fn float(field: u64, value: f32) -> Vec<u8> {
    [varint(field << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

fn integer(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_tensorflow_writes() {
        // The first record of a file that PyPI's tensorboard 2.21 wrote at the time 1.5 s.
        let head = [double(1, 1.5), bytes(3, b"brain.Event:2")].concat();
        let expected = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";
        let hex: String = record(&head).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
