//! Tables and pictures of studies that are over, from what they wrote.

use super::{Study, write, write_prompts};
use crate::TrainError;
use spo_eval::report;
use spo_eval::study::{StudyPrompt, StudySummary};
use std::path::{Path, PathBuf};

impl Study {
    /// Writes the tables and pictures of a study again from its `study.json` alone; all comparisons are computed anew from
    /// the points there.
    ///
    /// # Errors
    /// A file that cannot be read, is no such summary or has an accuracy that is not finite; a directory that cannot be
    /// written.
    pub fn again(json: &Path, out: &Path) -> Result<StudySummary, TrainError> {
        let summary = read(json)?.again()?;
        std::fs::create_dir_all(out).map_err(|e| TrainError::io(out, e))?;
        write(&summary, out)?;
        Ok(summary)
    }

    /// Writes one study of parts that were run apart, each with seeds of its own, from their `study.json` and, where seeds
    /// hold out other prompts, the `study-prompts.csv` beside each.
    ///
    /// # Errors
    /// As [`Study::again`]; parts that are not of one study, or a run that two of them have.
    pub fn joined(parts: &[PathBuf], out: &Path) -> Result<StudySummary, TrainError> {
        let summaries: Vec<StudySummary> = parts.iter().map(|json| read(json)).collect::<Result<_, _>>()?;
        let mut known = vec![];
        for (json, summary) in parts.iter().zip(&summaries) {
            if summary.design.folds.is_some() {
                known.extend(prompts(&json.with_file_name(super::PROMPTS))?);
            }
        }
        let summary = StudySummary::joined(&summaries, &known)?;
        std::fs::create_dir_all(out).map_err(|e| TrainError::io(out, e))?;
        write(&summary, out)?;
        write_prompts(&known, out)?;
        Ok(summary)
    }
}

fn read(json: &Path) -> Result<StudySummary, TrainError> {
    let text = std::fs::read_to_string(json).map_err(|e| TrainError::io(json, e))?;
    serde_json::from_str(&text).map_err(|e| TrainError::Damaged { path: json.into(), reason: e.to_string() })
}

fn prompts(path: &Path) -> Result<Vec<StudyPrompt>, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|e| TrainError::io(path, e))?;
    let damaged = |reason: String| TrainError::Damaged { path: path.into(), reason };
    let mut found = vec![];
    for (number, row) in csv::Reader::from_reader(text.as_bytes()).into_records().enumerate() {
        let row: Vec<String> = row.map_err(|e| damaged(e.to_string()))?.iter().map(str::to_owned).collect();
        let prompt = report::study_prompt_of_row(&row);
        found.push(prompt.ok_or_else(|| damaged(format!("row {} is not of a study", number + 2)))?);
    }
    Ok(found)
}
