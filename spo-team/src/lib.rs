//! Several processes, the ranks of a [`Team`], that walk through one run together: each executes the same program on the
//! same inputs, and they meet where one needs what the others have.
//!
//! Every exchange begins with a word of each rank: which exchange it is about to make, of how many numbers, and whether it
//! has failed. So ranks that are out of step are noticed before anything is added up, and an error on one of them ends all.
//! Sums are of f32 in a balanced binary tree over the ranks ([`tree`]), whatever the library underneath would do: the same
//! bits for any number of ranks that divides the shards by a power of two.
//!
//! ```
//! use spo_team::Team;
//!
//! let ranks = Team::threads(2).into_iter().map(|rank| std::thread::spawn(move || {
//!     let team = rank.team();
//!     let mut values = vec![1.0 + team.rank() as f32, 10.0];
//!     team.sum(0, &mut values)?;
//!     Ok::<_, spo_team::TeamError>(values)
//! }));
//! for rank in ranks.collect::<Vec<_>>() {
//!     assert_eq!(rank.join().unwrap().unwrap(), [3.0, 20.0]);
//! }
//! ```

mod error;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod rendezvous;
mod team;
mod threads;
mod transport;
pub mod tree;
#[cfg(any(feature = "mpi", feature = "nccl"))]
mod waiting;
pub mod world;

pub use error::TeamError;
pub use team::{Spent, Team, ThreadTeam, layout_of};
pub use transport::Voice;
pub use world::{Mode, Started, start};
