//! Which finished runs go, by age, number and bytes. Pure: `engine` removes them.
//!
//! Oldest first, and no more than the limits ask for. A run that is pinned, that is a baseline, or that is not finished never
//! goes, whatever the limits say; what it takes counts all the same.

use crate::domain::time::UnixUs;
use pgsoak_proto::id::RunId;
use std::time::Duration;

/// What may stay; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Since the run was over.
    pub max_age: Option<Duration>,
    /// Finished runs.
    pub max_runs: Option<usize>,
    /// Of evidence and raw files of all runs.
    pub max_bytes: Option<u64>,
}

/// A run and what it takes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// Which.
    pub run: RunId,
    /// When it was over; `None`: it is not.
    pub finished_at: Option<UnixUs>,
    /// Of its evidence and raw files.
    pub bytes: u64,
    /// Why it stays whatever the limits say; `None`: it may go.
    pub protected: Option<&'static str>,
}

/// A run that goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Goes {
    /// Which.
    pub run: RunId,
    /// What that gives back.
    pub bytes: u64,
    /// Which limit it is over.
    pub why: &'static str,
}

/// The runs that go, oldest first.
pub fn plan(runs: &[Kept], limits: Limits, now: UnixUs) -> Vec<Goes> {
    let mut count = runs.iter().filter(|run| run.finished_at.is_some()).count();
    let mut bytes: u64 = runs.iter().fold(0, |sum, run| sum.saturating_add(run.bytes));
    let mut may_go: Vec<(UnixUs, &Kept)> = runs
        .iter()
        .filter(|run| run.protected.is_none())
        .filter_map(|run| Some((run.finished_at?, run)))
        .collect();
    may_go.sort_by_key(|(at, run)| (*at, run.run));
    let mut goes = Vec::new();
    for (at, run) in may_go {
        let why = if limits.max_age.is_some_and(|most| now.since(at) > most) {
            "older than is kept"
        } else if limits.max_runs.is_some_and(|most| count > most) {
            "more runs than are kept"
        } else if limits.max_bytes.is_some_and(|most| bytes > most) {
            "more bytes than are kept"
        } else {
            // Whatever is younger is over no limit either.
            break;
        };
        count = count.saturating_sub(1);
        bytes = bytes.saturating_sub(run.bytes);
        goes.push(Goes { run: run.run, bytes: run.bytes, why });
    }
    goes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn kept() -> impl Strategy<Value = Vec<Kept>> {
        let run =
            (any::<u16>(), prop::option::weighted(0.9, 0_u64..1_000), 0_u64..100, any::<bool>());
        prop::collection::vec(run, 0..40).prop_map(|runs| {
            let mut seen = BTreeSet::new();
            runs.into_iter()
                .filter(|(id, ..)| seen.insert(*id))
                .map(|(id, at, bytes, is_protected)| {
                    let mut of = [0; 16];
                    of[..2].copy_from_slice(&id.to_be_bytes());
                    Kept {
                        run: RunId::from_bytes(of),
                        finished_at: at.map(|seconds| UnixUs(seconds * 1_000_000)),
                        bytes,
                        protected: (is_protected && id % 3 == 0).then_some("pinned"),
                    }
                })
                .collect()
        })
    }

    fn limits() -> impl Strategy<Value = Limits> {
        (
            prop::option::of(0_u64..1_200),
            prop::option::of(0_usize..40),
            prop::option::of(0_u64..2_000),
        )
            .prop_map(|(age, max_runs, max_bytes)| Limits {
                max_age: age.map(Duration::from_secs),
                max_runs,
                max_bytes,
            })
    }

    const NOW: UnixUs = UnixUs(1_000_000_000);

    proptest! {
        #[test]
        fn what_is_protected_or_unfinished_never_goes(runs in kept(), limits in limits()) {
            for goes in plan(&runs, limits, NOW) {
                let run = runs.iter().find(|run| run.run == goes.run).unwrap();
                prop_assert!(run.protected.is_none() && run.finished_at.is_some());
                prop_assert_eq!(run.bytes, goes.bytes);
            }
        }

        #[test]
        fn afterwards_the_limits_hold_or_nothing_more_may_go(runs in kept(), limits in limits()) {
            let goes: BTreeSet<RunId> = plan(&runs, limits, NOW).into_iter().map(|of| of.run).collect();
            let left: Vec<Kept> = runs.iter().filter(|run| !goes.contains(&run.run)).cloned().collect();
            let may_go: Vec<&Kept> =
                left.iter().filter(|run| run.protected.is_none() && run.finished_at.is_some()).collect();
            let is_old = |run: &&&Kept| limits.max_age.is_some_and(|most| NOW.since(run.finished_at.unwrap()) > most);
            prop_assert_eq!(may_go.iter().filter(is_old).count(), 0);
            if !may_go.is_empty() {
                let finished = left.iter().filter(|run| run.finished_at.is_some()).count();
                prop_assert!(limits.max_runs.is_none_or(|most| finished <= most));
                prop_assert!(limits.max_bytes.is_none_or(|most| left.iter().map(|run| run.bytes).sum::<u64>() <= most));
            }
            // Asked again it says nothing more.
            prop_assert_eq!(plan(&left, limits, NOW), vec![]);
        }

        #[test]
        fn the_oldest_go_and_no_more_than_need_be(runs in kept(), limits in limits()) {
            let goes = plan(&runs, limits, NOW);
            let gone: BTreeSet<RunId> = goes.iter().map(|of| of.run).collect();
            let at = |run: RunId| runs.iter().find(|of| of.run == run).unwrap().finished_at.unwrap();
            let youngest = goes.last().map(|of| (at(of.run), of.run));
            let stays = runs.iter().filter(|run| run.protected.is_none() && !gone.contains(&run.run));
            let oldest = stays.filter_map(|run| Some((run.finished_at?, run.run))).min();
            if let (Some(youngest), Some(oldest)) = (youngest, oldest) {
                prop_assert!(youngest < oldest);
            }
            // Without the last one that goes, a limit would not hold.
            if let Some(last) = goes.last() {
                let before: Vec<Kept> = runs
                    .iter()
                    .filter(|run| run.run == last.run || !gone.contains(&run.run))
                    .cloned()
                    .collect();
                prop_assert!(!plan(&before, limits, NOW).is_empty());
            }
            let mut shuffled = runs;
            shuffled.reverse();
            prop_assert_eq!(plan(&shuffled, limits, NOW), goes);
        }
    }

    #[test]
    fn without_limits_nothing_goes() {
        let run = Kept {
            run: RunId::issue(),
            finished_at: Some(UnixUs(0)),
            bytes: u64::MAX,
            protected: None,
        };
        assert_eq!(plan(&[run], Limits::default(), NOW), []);
    }
}
