//! Who sees whom, as the host tells it to the kernels.

use super::super::Buffer;
use super::tile::TILE;
use cubecl::prelude::*;
use std::ops::Range;

/// Sequences that share a prompt, one after the other: the prompt, then each answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of each answer.
    pub answers: Vec<usize>,
}

/// The keys of every token, and the tiles of keys and rows that have to meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Tokens of all groups.
    pub tokens: usize,
    /// `[tokens, 4]`: start and end of the part of its prompt that a token sees, and of its own sequence's.
    ranges: Vec<u32>,
    /// The tiles of keys that some row of each tile of rows sees.
    keys_of_rows: Lists,
    /// The tiles of rows that see some key of each tile of keys.
    rows_of_keys: Lists,
}

/// A list of tiles for each tile.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lists {
    /// Where in `tiles` each list starts, and the end of the last.
    starts: Vec<u32>,
    tiles: Vec<u32>,
}

/// A plan in the memory of a device.
#[derive(Debug, Clone)]
pub struct DevicePlan {
    pub(super) tokens: usize,
    pub(super) ranges: Buffer,
    pub(super) keys_of_rows: [Buffer; 2],
    pub(super) rows_of_keys: [Buffer; 2],
}

impl Plan {
    /// Tokens of a prompt see the prompt up to themselves; those of an answer the prompt and their answer up to
    /// themselves; of these, the last `window`.
    ///
    /// # Panics
    /// If the groups have more tokens than 32 bits can number, or the window is 0.
    pub fn new(groups: &[Group], window: Option<usize>) -> Self {
        assert_ne!(window, Some(0), "a token sees at least itself");
        let mut ranges = vec![];
        let mut start = 0;
        for group in groups {
            let prompt = start..start + group.prompt;
            let mut own = prompt.end;
            ranges.extend(prompt.clone().map(|token| [0..0, within(prompt.start, token, window)]));
            for answer in &group.answers {
                ranges.extend((own..own + answer).map(|token| answer_ranges(&prompt, own, token, window)));
                own += answer;
            }
            start = own;
        }
        assert!(u32::try_from(start).is_ok(), "{start} tokens");
        let keys_of_rows: Vec<Vec<u32>> = ranges.chunks(TILE).map(tiles_of).collect();
        let mut rows_of_keys = vec![vec![]; keys_of_rows.len()];
        for (rows, keys) in keys_of_rows.iter().enumerate() {
            keys.iter().for_each(|tile| rows_of_keys[*tile as usize].push(rows as u32));
        }
        let numbers = ranges.iter().flatten().flat_map(|range| [range.start as u32, range.end as u32]);
        Self {
            tokens: start,
            ranges: numbers.collect(),
            keys_of_rows: Lists::new(&keys_of_rows),
            rows_of_keys: Lists::new(&rows_of_keys),
        }
    }

    /// Uploads the plan.
    pub fn upload(&self, client: &Client) -> DevicePlan {
        let buffer = |values: &[u32]| Buffer::from_slice(client, values);
        let lists = |lists: &Lists| [buffer(&lists.starts), buffer(&lists.tiles)];
        DevicePlan {
            tokens: self.tokens,
            ranges: buffer(&self.ranges),
            keys_of_rows: lists(&self.keys_of_rows),
            rows_of_keys: lists(&self.rows_of_keys),
        }
    }
}

/// The keys from `start` to a token, as far as its window goes.
fn within(start: usize, token: usize, window: Option<usize>) -> Range<usize> {
    start.max(window.map_or(0, |window| (token + 1).saturating_sub(window)))..token + 1
}

/// What a token sees of its prompt and of its answer, which starts at `own`.
fn answer_ranges(prompt: &Range<usize>, own: usize, token: usize, window: Option<usize>) -> [Range<usize>; 2] {
    // As if the answer followed its prompt at once.
    let position = prompt.end + (token - own);
    let lowest = within(prompt.start, position, window).start.min(prompt.end);
    [lowest..prompt.end, within(own, token, window)]
}

/// The tiles of keys that some of these rows see, in order.
fn tiles_of(rows: &[[Range<usize>; 2]]) -> Vec<u32> {
    let seen = rows.iter().flatten().filter(|range| !range.is_empty());
    let mut tiles: Vec<u32> =
        seen.flat_map(|range| (range.start / TILE) as u32..=((range.end - 1) / TILE) as u32).collect();
    tiles.sort_unstable();
    tiles.dedup();
    tiles
}

impl Lists {
    fn new(lists: &[Vec<u32>]) -> Self {
        let mut starts = vec![0];
        starts.extend(lists.iter().scan(0, |end, list| {
            *end += list.len() as u32;
            Some(*end)
        }));
        Self { starts, tiles: lists.concat() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(groups: &[(usize, &[usize])], window: Option<usize>) -> Plan {
        let group = |(prompt, answers): &(usize, &[usize])| Group { prompt: *prompt, answers: answers.to_vec() };
        Plan::new(&groups.iter().map(group).collect::<Vec<_>>(), window)
    }

    #[test]
    fn tokens_see_their_prompt_and_their_answer() {
        let plan = plan(&[(2, &[1, 2])], None);
        assert_eq!(plan.ranges, [0, 0, 0, 1, 0, 0, 0, 2, 0, 2, 2, 3, 0, 2, 3, 4, 0, 2, 3, 5]);
    }

    #[test]
    fn windows_count_across_the_end_of_a_prompt() {
        let two = plan(&[(3, &[1, 3])], Some(2));
        let expected =
            [[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 1, 3], [2, 3, 3, 4], [2, 3, 4, 5], [3, 3, 4, 6], [3, 3, 5, 7]];
        assert_eq!(two.ranges, expected.concat());
        assert!(plan(&[(40, &[9])], Some(1)).ranges.chunks(4).all(|keys| keys[3] == keys[2] + 1));
    }

    #[test]
    fn only_tiles_that_meet_are_listed() {
        // Two groups, each a prompt of a tile and two answers of a tile.
        let plan = plan(&[(TILE, &[TILE, TILE]), (TILE, &[TILE, TILE])], None);
        assert_eq!(plan.keys_of_rows.starts, [0, 1, 3, 5, 6, 8, 10]);
        assert_eq!(plan.keys_of_rows.tiles, [0, 0, 1, 0, 2, 3, 3, 4, 3, 5]);
        assert_eq!(plan.rows_of_keys.tiles, [0, 1, 2, 1, 2, 3, 4, 5, 4, 5]);
    }
}
