//! One row to several records: weights repeat or skip rows, conversations give a record per turn.

use crate::record::{AnswerText, PromptText, Record};
use crate::spec::Supervise;

/// How often the `index`-th row of a file with this weight counts.
///
/// Copies are spread evenly and depend on the row's place only, so appended rows change no earlier one.
pub(crate) fn copies(weight: f64, index: usize) -> usize {
    let until = |rows: usize| (rows as f64 * weight).floor();
    (until(index + 1) - until(index)) as usize
}

/// The records that a row stands for.
pub(crate) fn expand(record: Record, copies: usize, supervise: Supervise) -> Vec<Record> {
    let turns = match supervise {
        Supervise::LastTurn => vec![record],
        Supervise::EveryTurn => every_turn(record),
    };
    let mut records = Vec::with_capacity(turns.len() * copies);
    for copy in 1..=copies {
        records.extend(turns.iter().cloned().map(|mut record| {
            if copy > 1 {
                record.id += &format!("#{copy}");
            }
            record
        }));
    }
    records
}

/// A conversation with one answer becomes one record per assistant turn, each with what precedes it.
fn every_turn(record: Record) -> Vec<Record> {
    let (PromptText::Messages(messages), [_]) = (&record.prompt, record.answers.as_slice()) else {
        return vec![record];
    };
    let earlier = messages.iter().enumerate().filter(|(index, turn)| *index > 0 && turn.role == "assistant");
    let mut records: Vec<Record> = earlier
        .map(|(index, turn)| Record {
            id: format!("{}/turn{}", record.id, index + 1),
            prompt: PromptText::Messages(messages[..index].to_vec()),
            answers: vec![AnswerText::Messages(vec![turn.clone()])],
            ..record.clone()
        })
        .collect();
    records.push(record);
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    #[test]
    fn weights_spread_evenly() {
        let counts = |weight| (0..6).map(|index| copies(weight, index)).collect::<Vec<_>>();
        assert_eq!(counts(1.0), [1; 6]);
        assert_eq!(counts(0.5), [0, 1, 0, 1, 0, 1]);
        assert_eq!(counts(2.5), [2, 3, 2, 3, 2, 3]);
        assert_eq!(counts(0.0), [0; 6]);
    }

    #[test]
    fn every_assistant_turn_is_an_answer() {
        let turn = |role: &str, text: &str| Message::new(role, text);
        let record = Record {
            id: "a".into(),
            system: None,
            prompt: PromptText::Messages(vec![turn("user", "1"), turn("assistant", "2"), turn("user", "3")]),
            answers: vec![AnswerText::Messages(vec![turn("assistant", "4")])],
            labels: Default::default(),
            scores: Default::default(),
            safe: Default::default(),
            tags: Default::default(),
            tools: None,
            variables: Default::default(),
            source: None,
        };
        let all = expand(record.clone(), 2, Supervise::EveryTurn);
        let ids: Vec<&str> = all.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(ids, ["a/turn2", "a", "a/turn2#2", "a#2"]);
        assert_eq!(all[0].answers, [AnswerText::Messages(vec![turn("assistant", "2")])]);
        assert_eq!(all[0].prompt, PromptText::Messages(vec![turn("user", "1")]));
        assert_eq!(expand(record.clone(), 1, Supervise::LastTurn), [record]);
    }
}
