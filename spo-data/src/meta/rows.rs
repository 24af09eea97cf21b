//! From a row to the rows that ask.

use std::collections::BTreeMap;

use super::{ASKED, ASKED_NOTHING, ASKED_SHUFFLED, AskedBy, MetaPrompts, MetaRows, TAG_ASKED, TAG_ASKED_BY};
use crate::Preference;
use crate::example::{SourceRow, pair_of};
use crate::record::Record;

impl MetaPrompts {
    /// The rows that a row stands for; none where it says nothing along any dimension that is asked for.
    pub(crate) fn rows(&self, record: &Record) -> Vec<Record> {
        let source = SourceRow {
            prompt: number(&[&record.prompt.to_json().to_string(), record.system.as_deref().unwrap_or_default()]),
            row: number(&[&record.id]),
        };
        let record = Record { source: Some(source), ..record.clone() };
        match &self.layout.rows {
            MetaRows::Trained { shuffled, nothing } => self.trained(&record, *shuffled, *nothing),
            MetaRows::HeldOut => self.held_out(&record),
            MetaRows::Behind(text) => vec![self.put(record, Some(text))],
        }
    }

    fn trained(&self, record: &Record, shuffled: bool, nothing: bool) -> Vec<Record> {
        let (mut rows, all) = (vec![], self.texts.values().flatten().collect::<Vec<_>>());
        for (dimension, own) in self.texts.keys().filter_map(|name| Some((name, along(record, name)?))) {
            let text = self.drawn(record, dimension);
            rows.push(self.asked(&own, ASKED, dimension, Some(&text)));
            if shuffled {
                let text = all[self.draw(record, &["shuffled", dimension], all.len())];
                rows.push(self.asked(&own, ASKED_SHUFFLED, &format!("{dimension}/shuffled"), Some(text)));
            }
            if nothing {
                rows.push(self.asked(&own, ASKED_NOTHING, &format!("{dimension}/nothing"), None));
            }
        }
        let share = self.draw(record, &["neutral"], 1 << 32) as f64 / (1u64 << 32) as f64;
        let first = self.priority.iter().find_map(|name| along(record, name)).filter(|_| share < self.neutral);
        rows.extend(first.map(|own| {
            // The controls have it as well.
            let names = [(ASKED, true), (ASKED_SHUFFLED, shuffled), (ASKED_NOTHING, nothing)];
            let names = names.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name);
            let neutral = self.asked(&own, ASKED, "neutral", None);
            let labels = names.clone().filter_map(|name| Some((name.to_owned(), *neutral.labels.get(ASKED)?)));
            let scores = names.clone().filter_map(|name| Some((name.to_owned(), neutral.scores.get(ASKED)?.clone())));
            Record { labels: labels.collect(), scores: scores.collect(), ..neutral }
        }));
        rows
    }

    /// A row of [`along`] under a name for its label, with a text before it.
    fn asked(&self, own: &Record, name: &str, suffix: &str, text: Option<&str>) -> Record {
        let renamed = |from: &str| if from == ASKED { name.to_owned() } else { from.to_owned() };
        let labels = own.labels.iter().map(|(from, label)| (renamed(from), *label)).collect();
        let scores = own.scores.iter().map(|(from, scores)| (renamed(from), scores.clone())).collect();
        let id = format!("{}/{suffix}", own.id);
        self.put(Record { id, labels, scores, ..own.clone() }, text)
    }

    fn held_out(&self, record: &Record) -> Vec<Record> {
        let judged: Vec<&str> = self.dimensions().into_iter().filter(|name| along(record, name).is_some()).collect();
        let mut rows = vec![];
        if judged.is_empty() {
            return rows;
        }
        let mut push = |asked: Option<&str>, by: AskedBy, suffix: String, text: Option<&str>| {
            let mut row = Record { id: format!("{}/{suffix}", record.id), ..record.clone() };
            row.labels.remove(ASKED);
            if let (Some(asked), AskedBy::Trained) = (asked, by) {
                row.labels.extend(record.labels.get(asked).map(|label| (ASKED.to_owned(), *label)));
                row.scores.extend(record.scores.get(asked).map(|scores| (ASKED.to_owned(), scores.clone())));
            }
            row.tags.extend(asked.map(|asked| (TAG_ASKED.to_owned(), asked.to_owned())));
            row.tags.insert(TAG_ASKED_BY.to_owned(), by.name().to_owned());
            rows.push(self.put(row, text));
        };
        for (dimension, texts) in &self.texts {
            let text = &texts[self.draw(record, &["text", dimension], texts.len())];
            push(Some(dimension), AskedBy::Trained, dimension.clone(), Some(text));
        }
        push(None, AskedBy::Nothing, "neutral".into(), None);
        for (dimension, texts) in &self.held_out {
            let text = &texts[self.draw(record, &["held-out", dimension], texts.len())];
            push(Some(dimension), AskedBy::HeldOut, format!("{dimension}/held-out"), Some(text));
        }
        for (first, second) in self.opposed(record) {
            let texts = self.combined.len();
            let text = self.filled(self.draw(record, &["combined", first, second], texts.max(1)), first, second);
            if let Some(text) = text {
                push(Some(first), AskedBy::Combined, format!("{first}/before/{second}"), Some(&text));
            }
        }
        rows
    }

    /// The text that asks for a dimension: one of its own, or one that puts it before another which wants the other answer.
    fn drawn(&self, record: &Record, dimension: &str) -> String {
        let texts = &self.texts[dimension];
        let others: Vec<&str> =
            self.opposed(record).into_iter().filter(|(first, _)| *first == dimension).map(|(_, other)| other).collect();
        let combined = if others.is_empty() { 0 } else { self.combined.len() };
        let place = self.draw(record, &["text", dimension], texts.len() + combined);
        match place.checked_sub(texts.len()) {
            None => texts[place].clone(),
            Some(place) => {
                let other = others[self.draw(record, &["other", dimension], others.len())];
                self.filled(place, dimension, other).expect("there are so many")
            }
        }
    }

    fn filled(&self, place: usize, first: &str, second: &str) -> Option<String> {
        Some(self.combined.get(place)?.replace("{first}", first).replace("{second}", second))
    }

    /// The dimensions of `texts` whose pairs of the row are each other's opposite, both ways round.
    fn opposed(&self, record: &Record) -> Vec<(&str, &str)> {
        let pair = |name: &String| pair_of(record.answers.len(), record.labels.get(name), record.scores.get(name));
        let pairs: Vec<(&str, (usize, usize))> =
            self.texts.keys().filter_map(|name| Some((name.as_str(), pair(name)?))).collect();
        let mut opposed = vec![];
        for &(first, (chosen, rejected)) in &pairs {
            let others = pairs.iter().filter(|(_, pair)| *pair == (rejected, chosen));
            opposed.extend(others.map(|(second, _)| (first, *second)));
        }
        opposed
    }

    fn put(&self, record: Record, text: Option<&str>) -> Record {
        let Some(text) = text else { return record };
        let system = record.system.clone().or_else(|| self.layout.system.clone());
        let (prompt, system) = self.place.put(text, record.prompt.clone(), system);
        Record { prompt, system, ..record }
    }

    /// One of `choices`, drawn by seed, row and what it is for.
    fn draw(&self, record: &Record, purpose: &[&str], choices: usize) -> usize {
        let seed = self.layout.seed.to_string();
        (number(&[&[seed.as_str(), &record.id], purpose].concat()) % choices as u64) as usize
    }
}

/// Whether a row prefers an answer along a dimension, or judges its only one.
pub(crate) fn judges(record: &Record, dimension: &str) -> bool {
    along(record, dimension).is_some()
}

/// What a row says along a dimension, under the name [`ASKED`]: its pair, chosen answer first, or its judged single answer.
fn along(record: &Record, dimension: &str) -> Option<Record> {
    let label = record.labels.get(dimension);
    let asked = |label| BTreeMap::from([(ASKED.to_owned(), label)]);
    if let Some((chosen, rejected)) = pair_of(record.answers.len(), label, record.scores.get(dimension)) {
        let pair = [chosen, rejected];
        let scores = |all: &Vec<f32>| pair.iter().map(|answer| all.get(*answer).copied()).collect::<Option<Vec<_>>>();
        let scores = record.scores.get(dimension).and_then(scores);
        return Some(Record {
            answers: pair.iter().map(|answer| record.answers[*answer].clone()).collect(),
            labels: asked(Preference::First),
            scores: scores.into_iter().map(|scores| (ASKED.to_owned(), scores)).collect(),
            safe: pair.iter().filter_map(|answer| record.safe.get(*answer).copied()).collect(),
            ..record.clone()
        });
    }
    let judged = label.filter(|label| record.answers.len() == 1 && **label != Preference::Tie)?;
    Some(Record { labels: asked(*judged), scores: BTreeMap::new(), ..record.clone() })
}

/// A number of texts, the same on every machine.
fn number(texts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("spo-data meta-prompts v1");
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::prompts;
    use super::super::{MetaLayout, MetaPlace};
    use super::*;
    use crate::record::{AnswerText, PromptText};
    use std::collections::BTreeSet;

    fn row(id: &str, labels: &[(&str, Preference)]) -> Record {
        Record {
            id: id.into(),
            prompt: PromptText::Text("Why?".into()),
            answers: ["one", "two"].map(|text| AnswerText::Text(text.into())).to_vec(),
            labels: labels.iter().map(|(name, label)| ((*name).to_owned(), *label)).collect(),
            ..Record::default()
        }
    }

    fn conflict(id: &str) -> Record {
        row(id, &[("honest", Preference::First), ("helpful", Preference::Second), ("brief", Preference::First)])
    }

    fn made(rows: MetaRows) -> MetaPrompts {
        MetaPrompts { layout: MetaLayout { seed: 4, system: None, rows }, ..prompts() }
    }

    fn trained() -> MetaPrompts {
        made(MetaRows::Trained { shuffled: false, nothing: false })
    }

    fn texts(row: &Record) -> Vec<&str> {
        let text = |answer: &AnswerText| if let AnswerText::Text(text) = answer { text.clone() } else { String::new() };
        row.answers.iter().map(|answer| if text(answer) == "one" { "one" } else { "two" }).collect()
    }

    #[test]
    fn a_conflict_becomes_a_contrast_and_a_tie_nothing() {
        let none = MetaPrompts { neutral: 0.0, ..trained() };
        let rows = none.rows(&conflict("a"));
        let found: Vec<_> = rows.iter().map(|row| (row.id.as_str(), texts(row), row.labels[ASKED])).collect();
        let first = Preference::First;
        assert_eq!(found, [("a/helpful", vec!["two", "one"], first), ("a/honest", vec!["one", "two"], first)]);
        assert!(prompts().texts["helpful"].contains(rows[0].system.as_ref().unwrap()));
        assert!(prompts().texts["honest"].contains(rows[1].system.as_ref().unwrap()));
        assert!(rows.iter().all(|row| row.labels.len() == 1 && row.source == rows[0].source));
        let other = none.rows(&conflict("b"))[0].source.unwrap();
        assert_eq!(other.prompt, rows[0].source.unwrap().prompt);
        assert_ne!(other.row, rows[0].source.unwrap().row);
        let tied = row("a", &[("honest", Preference::Tie), ("helpful", Preference::First)]);
        assert_eq!(none.rows(&tied).len(), 1);
        assert!(none.rows(&row("a", &[("brief", Preference::First)])).is_empty(), "never trained");
    }

    #[test]
    fn draws_are_of_seed_and_row_and_reach_every_text() {
        let (all, other) = (trained(), MetaPrompts { layout: MetaLayout { seed: 5, ..trained().layout }, ..trained() });
        let drawn = |all: &MetaPrompts| -> Vec<String> {
            (0..400).flat_map(|id| all.rows(&conflict(&id.to_string()))).filter_map(|row| row.system).collect()
        };
        assert_eq!(drawn(&all), drawn(&all));
        assert_ne!(drawn(&all), drawn(&other));
        let seen: BTreeSet<String> = drawn(&all).into_iter().collect();
        assert_eq!(seen, all.texts.values().flatten().cloned().collect());
        let neutral = (0..400).filter(|id| all.rows(&conflict(&id.to_string())).len() == 3).count();
        assert!((20..=65).contains(&neutral), "a tenth of 400: {neutral}");
        let plain: Vec<Record> = (0..400).flat_map(|id| all.rows(&conflict(&id.to_string()))).collect();
        let plain: Vec<&Record> = plain.iter().filter(|row| row.system.is_none()).collect();
        assert!(plain.iter().all(|row| texts(row) == ["one", "two"]), "what is honest comes first");
    }

    #[test]
    fn shuffled_texts_do_not_depend_on_the_label() {
        let all = made(MetaRows::Trained { shuffled: true, nothing: true });
        let (mut own, mut count) = (0, 0);
        for id in 0..1000 {
            let rows = all.rows(&conflict(&id.to_string()));
            let of =
                |name: &'static str| rows.iter().filter(move |row| row.labels.contains_key(name)).collect::<Vec<_>>();
            let (shuffled, nothing) = (of(ASKED_SHUFFLED), of(ASKED_NOTHING));
            assert_eq!((of(ASKED).len(), nothing.len()), (shuffled.len(), shuffled.len()));
            assert!(nothing.iter().all(|row| row.system.is_none()));
            for row in shuffled.iter().filter(|row| row.system.is_some()) {
                let dimension = if row.id.contains("honest") { "honest" } else { "helpful" };
                own += usize::from(all.texts[dimension].contains(row.system.as_ref().unwrap()));
                count += 1;
            }
        }
        // Four standard deviations of a fair coin.
        assert!((own as f64 - count as f64 / 2.0).abs() < 2.0 * f64::from(count).sqrt(), "{own} of {count}");
    }

    #[test]
    fn combined_texts_put_the_asked_dimension_first() {
        let all = MetaPrompts { combined: vec!["{first} before {second}".into()], neutral: 0.0, ..trained() };
        let rows = |record: &dyn Fn(&str) -> Record| -> Vec<Record> {
            (0..200).flat_map(|id| all.rows(&record(&id.to_string()))).collect()
        };
        let found = rows(&conflict);
        let combined = |row: &&Record| row.system.as_ref().unwrap().contains("before");
        assert!(found.iter().filter(combined).count() > 60);
        for row in found.iter().filter(combined) {
            let (first, second) = if row.id.contains("honest") { ("honest", "helpful") } else { ("helpful", "honest") };
            assert_eq!(row.system.as_deref(), Some(format!("{first} before {second}").as_str()));
        }
        let agree = |id: &str| row(id, &[("honest", Preference::First), ("helpful", Preference::First)]);
        assert!(!rows(&agree).iter().any(|row| combined(&row)));
    }

    #[test]
    fn held_out_rows_are_asked_in_every_way_with_all_labels() {
        let all = MetaPrompts { combined: vec!["{first} before {second}".into()], ..made(MetaRows::HeldOut) };
        let rows = all.rows(&conflict("a"));
        let told = |row: &Record| {
            let tag = |name: &str| row.tags.get(name).cloned().unwrap_or_default();
            (tag(TAG_ASKED), tag(TAG_ASKED_BY), row.labels.get(ASKED).copied(), row.system.clone())
        };
        let told: Vec<_> = rows.iter().map(told).collect();
        let (first, second) = (Some(Preference::First), Some(Preference::Second));
        let ways: Vec<_> = told.iter().map(|(asked, by, label, _)| (asked.as_str(), by.as_str(), *label)).collect();
        assert_eq!(
            ways,
            [
                ("helpful", "trained texts", second),
                ("honest", "trained texts", first),
                ("", "no text", None),
                ("brief", "held-out texts", None),
                ("honest", "held-out texts", None),
                ("helpful", "combined texts", None),
                ("honest", "combined texts", None),
            ]
        );
        assert_eq!((told[2].3.clone(), told[3].3.as_deref()), (None, Some("Be brief.")));
        assert_eq!(told[6].3.as_deref(), Some("honest before helpful"));
        assert!(rows.iter().all(|row| row.labels["brief"] == Preference::First && texts(row) == ["one", "two"]));
        assert!(all.rows(&row("b", &[("other", Preference::First)])).is_empty());
    }

    #[test]
    fn lists_and_single_answers_are_asked_for_too() {
        let mut list = row("a", &[]);
        list.answers.push(AnswerText::Text("two".into()));
        list.scores = [("honest".to_owned(), vec![2.0, 1.0, 5.0]), ("helpful".to_owned(), vec![3.0, 3.0, 3.0])].into();
        list.safe = vec![true, false, true];
        let rows = MetaPrompts { neutral: 1.0, ..trained() }.rows(&list);
        assert_eq!(rows.len(), 2, "one that asks, one that does not");
        for row in &rows {
            assert_eq!(
                (texts(row), &row.scores[ASKED], &row.safe),
                (vec!["two", "two"], &vec![5.0, 1.0], &vec![true, false])
            );
        }
        let mut single = row("a", &[("honest", Preference::Second)]);
        single.answers.truncate(1);
        let user = MetaPrompts { neutral: 0.0, place: MetaPlace::User, ..trained() };
        let [only] = user.rows(&single).try_into().unwrap();
        assert_eq!(only.labels[ASKED], Preference::Second);
        let PromptText::Text(prompt) = &only.prompt else { panic!("{:?}", only.prompt) };
        assert!(prompt.ends_with("\n\nWhy?") && only.system.is_none(), "{prompt}");
    }
}
