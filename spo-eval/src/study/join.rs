//! Parts of a study that were run apart, as one.

use super::{StudyHold, StudyPoint, StudyPrompt, StudySummary, prompts};
use crate::EvalError;

impl StudySummary {
    /// One study of parts that are each of other seeds, with what is known of their prompts; every comparison is computed
    /// anew over all runs.
    ///
    /// # Errors
    /// No part, parts of different designs or dimensions, a run that two of them have, an accuracy that is not finite.
    pub fn joined(parts: &[Self], prompts: &[StudyPrompt]) -> Result<Self, EvalError> {
        let refused = |problem: String| Err(EvalError::StudyParts { problem });
        let Some(first) = parts.first() else { return refused("there are none".to_owned()) };
        for part in parts {
            if part.design != first.design || part.dimensions != first.dimensions {
                return refused(format!("`{}` and `{}` do not compare the same", first.design.name, part.design.name));
            }
        }
        let Self { design, dimensions, .. } = first.clone();
        let mut all = Self { design, dimensions, ..Self::default() };
        for part in parts {
            let own = |point: &&StudyPoint| point.at_kl.is_none();
            let known: Vec<_> = all.points.iter().filter(own).map(run).collect();
            if let Some((order, arm, seed)) = part.points.iter().filter(own).map(run).find(|run| known.contains(run)) {
                return refused(format!("two of them have {arm} with seed {seed} ({order})"));
            }
            all.points.extend(part.points.iter().cloned());
            all.holds.extend(part.holds.iter().cloned());
        }
        // As one study would have them: an order's runs stand together.
        let orders: Vec<String> = all.orders().into_iter().map(str::to_owned).collect();
        let place = |order: &str| orders.iter().position(|known| known == order);
        all.points.sort_by_key(|point: &StudyPoint| place(&point.order));
        all.holds.sort_by_key(|hold: &StudyHold| place(&hold.order));
        all.compare()?;
        prompts::add(&mut all, prompts)?;
        Ok(all)
    }
}

fn run(point: &StudyPoint) -> (&str, &str, u64) {
    (&point.order, &point.arm, point.seed)
}
