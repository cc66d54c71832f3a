//! When a message that did not go out is tried again, and when it is given up. Pure.

use crate::domain::notice::{Notice, NoticeId, Waiting};
use crate::domain::time::UnixUs;
use std::time::Duration;

/// After the first try.
const FIRST: Duration = Duration::from_secs(10);
/// At most.
const LONGEST: Duration = Duration::from_secs(3_600);
/// A message older than this is of no use any more.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 86_400);

/// What becomes of a delivery that failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// Once more.
    Retry(Waiting),
    /// Never again.
    GiveUp,
}

/// After a try that said `problem`.
pub fn after(notice: &Notice, target: &str, problem: String, now: UnixUs) -> Next {
    if now.since(notice.at) >= GIVE_UP_AFTER {
        return Next::GiveUp;
    }
    let tries = notice.waiting.get(target).map_or(0, |waiting| waiting.tries).saturating_add(1);
    Next::Retry(Waiting { tries, next_at: now.plus(pause(notice.id, tries)), problem })
}

/// Doubles with each try, up to [`LONGEST`]; a quarter up or down, so that coordinators that lost the same server do not come
/// back to it at once. The share comes from the message's number: no chance is needed.
fn pause(id: NoticeId, tries: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << tries.saturating_sub(1).min(12)).min(LONGEST);
    // SplitMix64's finalizer.
    let mut bits = id.0.wrapping_add(u64::from(tries).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = u32::try_from((bits ^ (bits >> 31)) % 501).unwrap_or(250);
    doubled.mul_f64(0.75 + f64::from(share) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::notice::{NoticeKind, says};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn notice(tries: u32) -> Notice {
        let waiting = Waiting { tries, ..Waiting::default() };
        Notice {
            id: NoticeId(7),
            at: UnixUs(1_000_000),
            says: says(NoticeKind::Test, "", Vec::new(), None),
            waiting: BTreeMap::from([("a".to_owned(), waiting)]),
        }
    }

    #[test]
    fn an_old_message_is_given_up() {
        let late = UnixUs(1_000_000).plus(GIVE_UP_AFTER);
        assert_eq!(after(&notice(3), "a", String::new(), late), Next::GiveUp);
    }

    proptest! {
        #[test]
        fn the_pause_grows_within_its_bounds(id: u64, tries in 1_u32..10_000) {
            let pause = pause(NoticeId(id), tries);
            prop_assert!(pause >= FIRST.mul_f64(0.74) && pause <= LONGEST.mul_f64(1.26));
            if tries > 12 {
                prop_assert!(pause >= LONGEST.mul_f64(0.74));
            }
        }

        #[test]
        fn a_try_counts_and_lies_in_the_future(tries in 0_u32..100, now in 1_000_000_u64..1_000_000_000) {
            let now = UnixUs(now);
            let Next::Retry(next) = after(&notice(tries), "a", "no".to_owned(), now) else { panic!() };
            prop_assert_eq!(next.tries, tries + 1);
            prop_assert!(next.next_at > now);
        }
    }
}
