//! Where a backend's rounds lie in heaptrack's file.
//!
//! Pure. A loop can have any number of rounds, so the marks of a phase are thinned as they come: every second one goes when there are too
//! many, and the last stays always.

use pgsoak_proto::evidence::{MAX_SITE_MARKS, SiteMark};

/// Marks of one phase that are kept on the way.
const KEPT: usize = 96;

/// Marks of one loop that its digest has: twelve intervals.
const CHOSEN: usize = 13;

/// The marks of one backend: offset into the file, and place in the workload.
#[derive(Debug, Default)]
pub struct Marks {
    all: Vec<(u64, SiteMark)>,
    /// Since the phase's last mark that is kept for good, by which rounds are passed over.
    step: u32,
    is_last_kept: bool,
}

impl Marks {
    /// A reading at rest. Offsets rise.
    pub fn note(&mut self, offset: u64, mark: SiteMark) {
        let is_same_phase = self.all.last().is_some_and(|(_, last)| last.phase == mark.phase);
        if !is_same_phase {
            self.step = 1;
        } else if !self.is_last_kept {
            self.all.pop();
        }
        self.is_last_kept = mark.round.is_multiple_of(self.step.max(1));
        self.all.push((offset, mark));
        let of_phase = |(_, other): &&(u64, SiteMark)| other.phase == mark.phase;
        if self.all.iter().filter(of_phase).count() > KEPT {
            self.step = self.step.saturating_mul(2);
            let step = self.step.max(1);
            self.all.retain(|(_, other)| {
                other.phase != mark.phase || other.round % step == 0 || other.round == mark.round
            });
            self.is_last_kept = mark.round.is_multiple_of(step);
        }
    }

    /// Of once phases both marks; of a loop the last two thirds, at equal distances, the last one with them.
    pub fn chosen(&self) -> Vec<(u64, SiteMark)> {
        let mut chosen: Vec<(u64, SiteMark)> = Vec::new();
        for of_phase in self.all.chunk_by(|(_, a), (_, b)| a.phase == b.phase) {
            let warm = if of_phase.len() > 3 { of_phase.len() / 3 } else { 0 };
            let rest = of_phase.get(warm..).unwrap_or_default();
            let last = rest.len().saturating_sub(1);
            let wanted = CHOSEN.min(rest.len());
            let mut before = None;
            for number in 0..wanted {
                let at = (number * last).checked_div(wanted.saturating_sub(1)).unwrap_or(last);
                if before != Some(at) {
                    chosen.extend(rest.get(at).copied());
                }
                before = Some(at);
            }
        }
        let from = chosen.len().saturating_sub(MAX_SITE_MARKS);
        chosen.split_off(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(phases: &[(u32, u32)]) -> Marks {
        let mut marks = Marks::default();
        let mut offset = 0;
        for (phase, rounds) in phases {
            for round in 0..=*rounds {
                offset += 10;
                let operations = u64::from(round) * 5;
                let mark = SiteMark { phase: *phase, round, operations, live_bytes: 0 };
                marks.note(offset, mark);
            }
        }
        marks
    }

    fn rounds(marks: &Marks, phase: u32) -> Vec<u32> {
        let chosen = marks.chosen();
        assert!(
            chosen.is_sorted_by_key(|(offset, _)| *offset) && chosen.len() <= MAX_SITE_MARKS,
            "{chosen:?}"
        );
        chosen.iter().filter(|(_, m)| m.phase == phase).map(|(_, m)| m.round).collect()
    }

    #[test]
    fn a_loop_is_marked_after_its_warm_up_and_to_its_end() {
        let marks = marks(&[(0, 1), (1, 24), (2, 1)]);
        assert_eq!(rounds(&marks, 0), [0, 1]);
        assert_eq!(rounds(&marks, 1), [8, 9, 10, 12, 13, 14, 16, 17, 18, 20, 21, 22, 24]);
        assert_eq!(rounds(&marks, 2), [0, 1]);
    }

    #[test]
    fn a_day_of_rounds_stays_small_and_keeps_its_last() {
        let marks = marks(&[(0, 1), (1, 86_401)]);
        assert!(marks.all.len() <= KEPT + 3, "{}", marks.all.len());
        let rounds = rounds(&marks, 1);
        assert_eq!((rounds.len(), rounds.last()), (CHOSEN, Some(&86_401)));
        assert!(rounds[0] > 20_000 && rounds[0] < 40_000, "{rounds:?}");
    }

    #[test]
    fn few_rounds_are_all_marked() {
        assert_eq!(rounds(&marks(&[(0, 2)]), 0), [0, 1, 2]);
        assert_eq!(rounds(&marks(&[(0, 0)]), 0), [0]);
        assert!(Marks::default().chosen().is_empty());
    }
}
