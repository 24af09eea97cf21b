//! Fits a tokenised row into its length: one budget for a prompt and all its answers.

use crate::report::Reason;
use crate::spec::{Overflow, TextSpec};

/// Cuts in place. `keep_first` protects a leading BOS when the prompt's beginning goes.
///
/// Returns what was done; a reason that [`Reason::dropped`] means that the row must go.
pub(crate) fn fit(spec: &TextSpec, bos: Option<u32>, prompt: &mut Vec<u32>, answers: &mut [Vec<u32>]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(limit) = spec.max_prompt_length.filter(|limit| prompt.len() > *limit) {
        if spec.overflow == Overflow::Drop {
            return vec![Reason::TooLong];
        }
        cut_beginning(prompt, limit, bos);
        reasons.push(Reason::PromptCut);
    }
    let longest = answers.iter().map(Vec::len).max().unwrap_or(0);
    let Some(limit) = spec.max_length.filter(|limit| prompt.len() + longest > *limit) else {
        return reasons;
    };
    match spec.overflow {
        Overflow::Drop => return vec![Reason::TooLong],
        Overflow::KeepStart => {
            // The answers of such a row are empty, and the caller drops it.
            prompt.truncate(limit);
        }
        Overflow::AnswerFirst => {
            let kept = limit.saturating_sub(longest).max((limit / 4).max(1)).min(prompt.len());
            if kept < prompt.len() {
                cut_beginning(prompt, kept, bos);
                reasons.push(Reason::PromptCut);
            }
        }
    }
    let room = limit - prompt.len();
    if longest > room {
        for answer in answers.iter_mut() {
            answer.truncate(room);
        }
        reasons.push(if room == 0 { Reason::EmptyAnswer } else { Reason::AnswerCut });
    }
    reasons
}

fn cut_beginning(prompt: &mut Vec<u32>, keep: usize, bos: Option<u32>) {
    let cut = prompt.len() - keep;
    // With one token to keep, the text's last one predicts better than a BOS.
    let protected = usize::from(keep > 1 && bos.is_some() && prompt.first().copied() == bos);
    prompt.drain(protected..protected + cut);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(max_length: usize, overflow: Overflow) -> TextSpec {
        TextSpec { max_length: Some(max_length), overflow, ..TextSpec::default() }
    }

    fn row(prompt: u32, answers: &[u32]) -> (Vec<u32>, Vec<Vec<u32>>) {
        ((0..prompt).collect(), answers.iter().map(|len| (100..100 + len).collect()).collect())
    }

    #[test]
    fn the_prompt_is_cut_before_the_answer() {
        let (mut prompt, mut answers) = row(10, &[6, 3]);
        let reasons = fit(&spec(12, Overflow::AnswerFirst), Some(0), &mut prompt, &mut answers);
        assert_eq!(reasons, [Reason::PromptCut]);
        assert_eq!(prompt, [0, 5, 6, 7, 8, 9]);
        assert_eq!((answers[0].len(), answers[1].len()), (6, 3));
    }

    #[test]
    fn a_quarter_stays_for_the_prompt() {
        let (mut prompt, mut answers) = row(10, &[30, 3]);
        let reasons = fit(&spec(12, Overflow::AnswerFirst), None, &mut prompt, &mut answers);
        assert_eq!(reasons, [Reason::PromptCut, Reason::AnswerCut]);
        assert_eq!(prompt, [7, 8, 9]);
        assert_eq!((answers[0].len(), answers[1].len()), (9, 3));
    }

    #[test]
    fn keep_start_can_leave_no_answer() {
        let (mut prompt, mut answers) = row(10, &[4]);
        let reasons = fit(&spec(12, Overflow::KeepStart), None, &mut prompt, &mut answers);
        assert_eq!((reasons, answers[0].len()), (vec![Reason::AnswerCut], 2));
        let (mut prompt, mut answers) = row(12, &[4]);
        let reasons = fit(&spec(12, Overflow::KeepStart), None, &mut prompt, &mut answers);
        assert!(reasons[0].dropped());
    }

    proptest! {
        #[test]
        fn the_budget_holds(
            prompt in 1u32..60, answers in prop::collection::vec(1u32..60, 1..4), limit in 2usize..80, drop: bool, max_prompt in 1usize..60,
        ) {
            let (mut prompt, mut answers) = row(prompt, &answers);
            let before = (prompt.clone(), answers.clone());
            let overflow = if drop { Overflow::Drop } else { Overflow::AnswerFirst };
            let spec = TextSpec { max_prompt_length: Some(max_prompt), ..spec(limit, overflow) };
            let reasons = fit(&spec, Some(0), &mut prompt, &mut answers);
            if reasons.iter().any(|reason| reason.dropped()) {
                prop_assert!(drop);
                return Ok(());
            }
            prop_assert!(!prompt.is_empty() && prompt.len() <= max_prompt);
            prop_assert!(answers.iter().all(|answer| !answer.is_empty() && prompt.len() + answer.len() <= limit));
            prop_assert_eq!(prompt != before.0, reasons.contains(&Reason::PromptCut));
            prop_assert_eq!(answers != before.1, reasons.contains(&Reason::AnswerCut));
        }
    }
}
