//! Teams of threads: every exchange, and what happens when a rank is not where the others are.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use spo_team::{Team, TeamError, tree};
use std::time::Duration;

/// What each of so many ranks comes to.
fn each<T: Send>(size: usize, rank: impl Fn(Team) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = Team::threads(size)
            .into_iter()
            .map(|seed| {
                let rank = &rank;
                scope.spawn(move || rank(seed.team()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn all_hear_the_same() {
    for size in 1..5 {
        let found = each(size, |team| {
            let rank = team.rank();
            let flags = team.agree(10 + rank as u64).unwrap();
            let texts = team.gather("x".repeat(rank).as_bytes()).unwrap();
            let root = team.root(|| Ok::<_, TeamError>((team.rank(), 0.1f64)));
            (flags, texts, root)
        });
        for (flags, texts, root) in found {
            assert_eq!(flags, (10..10 + size as u64).collect::<Vec<_>>());
            assert_eq!(texts, (0..size).map(|rank| vec![b'x'; rank]).collect::<Vec<_>>());
            assert_eq!(root, Ok((0, 0.1)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn sums_are_those_of_the_tree(
        size in 1usize..6, length in 0usize..40, seed in prop::collection::vec(-1e4f32..1e4, 240)
    ) {
        let of = |rank: usize| seed[rank * length..][..length].to_vec();
        let expected: Vec<u32> = (0..length)
            .map(|index| tree::sum((0..size).map(|rank| of(rank)[index]), |a, b| a + b).unwrap().to_bits())
            .collect();
        let found = each(size, |team| {
            let mut values = of(team.rank());
            team.sum(7, &mut values).unwrap();
            values.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        });
        for sums in found {
            prop_assert_eq!(&sums, &expected);
        }
    }
}

#[test]
fn dealt_work_comes_back_in_the_order_of_its_pieces() {
    for (size, pieces) in [(1, 5), (2, 5), (3, 2), (4, 0), (4, 9)] {
        let found = each(size, |team| {
            let mut done = vec![];
            let all = team.deal(pieces, |piece| {
                done.push(piece);
                Ok::<_, TeamError>((piece, if piece == 1 { f64::INFINITY } else { 0.1 / (piece as f64 + 3.0) }))
            });
            (team.rank(), done, all.unwrap(), team.share(team.rank()).unwrap())
        });
        for (rank, done, all, ranks) in found {
            assert_eq!(done, (rank..pieces).step_by(size).collect::<Vec<_>>(), "each piece is done once");
            assert_eq!(all.len(), pieces);
            for (piece, (number, value)) in all.into_iter().enumerate() {
                let expected = if piece == 1 { f64::INFINITY } else { 0.1 / (piece as f64 + 3.0) };
                assert_eq!((number, value.to_bits()), (piece, expected.to_bits()));
            }
            assert_eq!(ranks, (0..size).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_piece_that_fails_ends_all() {
    let found = each(2, |team| {
        let failed = |piece| TeamError::Library { call: "piece", text: format!("{piece}") };
        let done = team.deal(4, |piece| if piece == 3 { Err(failed(piece)) } else { Ok(piece) });
        if let Err(error) = &done {
            team.fail(&error.to_string(), 4);
        }
        done
    });
    assert_eq!(found[0], Err(TeamError::Elsewhere { rank: 1, text: "piece: 3".into(), code: 4 }));
    assert!(matches!(found[1], Err(TeamError::Library { .. })));
}

#[test]
fn ranks_out_of_step_are_refused() {
    let lengths = each(3, |team| team.sum(0, &mut vec![0.0; 4 + team.rank() / 2]));
    let layouts = each(2, |team| team.sum(team.rank() as u64, &mut [0.0]));
    let kinds = each(2, |team| if team.is_root() { team.agree(0).map(drop) } else { team.gather(b"x").map(drop) });
    for found in [lengths, layouts, kinds] {
        assert!(found.iter().all(|error| matches!(error, Err(TeamError::OutOfStep { .. }))), "{found:?}");
    }
}

#[test]
fn a_failure_is_heard_by_all_where_they_meet_next() {
    for failing in 0..3 {
        let found = each(3, |team| {
            let exchanged = team.agree(0);
            if team.rank() == failing {
                team.fail("no such number", 9);
                return Err(TeamError::Over);
            }
            exchanged?;
            let heard = team.sum(0, &mut [1.0, 2.0]);
            assert_eq!(team.agree(0), Err(TeamError::Over));
            team.fail("heard of it", 1);
            heard
        });
        let told = TeamError::Elsewhere { rank: failing, text: "no such number".into(), code: 9 };
        for (rank, heard) in found.into_iter().enumerate() {
            assert_eq!(heard, Err(if rank == failing { TeamError::Over } else { told.clone() }));
        }
    }
}

#[test]
fn work_of_rank_0_that_fails_is_heard_of_too() {
    let found = each(2, |team| {
        let done = team.root(|| Err::<(), _>(TeamError::Library { call: "write", text: "full".into() }));
        if team.is_root() {
            team.fail("full", 1);
        }
        done
    });
    assert!(matches!(found[0], Err(TeamError::Library { .. })));
    assert_eq!(found[1], Err(TeamError::Elsewhere { rank: 0, text: "full".into(), code: 1 }));
}

#[test]
fn a_silent_rank_is_named() {
    let found = each(2, |team| {
        team.wait_at_most(Some(Duration::from_millis(50)));
        if team.is_root() {
            team.agree(0).map(drop)
        } else {
            std::thread::sleep(Duration::from_millis(400));
            Ok(())
        }
    });
    assert!(found[0].as_ref().is_err_and(|error| error.to_string().contains("no answer from rank 1")), "{found:?}");
}
