//! The rows of a comparison of sets → one answer and one line.

use crate::compare::sets::{Set, SetRow};
use crate::result::Compared;

/// The worst row decides: worse, else better, else can't tell, else same. Better is can't tell while a figure that is not decided lies beyond
/// its margin on the bad side; same while one lies beyond its margin on either, or is not known. Nothing decided is can't tell.
pub(super) fn verdict(rows: &[SetRow], before: &Set, after: &Set) -> (Compared, String) {
    let number = |answer: Compared| rows.iter().filter(|row| row.answer == answer).count();
    let (worse, better, same, open) = (
        number(Compared::Worse),
        number(Compared::Better),
        number(Compared::Same),
        number(Compared::CantTell),
    );
    let suspect = rows.iter().find(|row| {
        let middle = row.low.zip(row.high).map(|(low, high)| f64::midpoint(low, high));
        row.answer == Compared::CantTell
            && middle.zip(row.margin).is_some_and(|(middle, margin)| middle > margin)
    });
    // Levels and peaks of one run each decide nothing; where they lie within their margins they do not contradict what does.
    let is_within = |row: &SetRow| {
        let middle = row.low.zip(row.high).map(|(low, high)| f64::midpoint(low, high));
        middle.zip(row.margin).is_some_and(|(middle, margin)| middle.abs() <= margin)
    };
    let undisputed = rows.iter().filter(|row| row.answer == Compared::CantTell).all(is_within);
    let answer = match (worse, better, same, open) {
        (1.., ..) => Compared::Worse,
        (_, 1.., ..) if suspect.is_none() => Compared::Better,
        (_, 0, 1.., _) if undisputed => Compared::Same,
        _ => Compared::CantTell,
    };
    let names = format!("{} against {}", after.label, before.label);
    let named = |row: &SetRow| {
        let place = match row.phase.as_str() {
            "" => row.workload.clone(),
            phase => format!("{}/{phase}", row.workload),
        };
        let what = match (row.what.as_str(), row.subject.as_str()) {
            ("outcome", _) => "the outcome".to_owned(),
            (what, "") => what.to_owned(),
            ("level", subject) => format!("level of {subject}"),
            (_, subject) => subject.to_owned(),
        };
        format!("{what} in {place}")
    };
    let first = |answer: Compared| rows.iter().find(|row| row.answer == answer).map(named);
    let mut counted: Vec<String> = Vec::new();
    for (count, word) in [(worse, "worse"), (better, "better"), (same, "the same"), (open, "open")]
    {
        if count > 0 {
            counted.push(format!("{count} {word}"));
        }
    }
    let counted = match counted.is_empty() {
        true => "nothing could be compared".to_owned(),
        false => format!("of {} figures {}", rows.len(), counted.join(", ")),
    };
    let sentence = match answer {
        Compared::Worse => {
            format!("worse: {names}: {} ({counted})", first(answer).unwrap_or_default())
        }
        Compared::Better => {
            format!("better: {names}: {} ({counted})", first(answer).unwrap_or_default())
        }
        Compared::Same if open > 0 => format!(
            "same: {names}: {counted}; the open ones lie within their margins, and more runs would decide them"
        ),
        Compared::Same => format!("same: {names}: {counted}"),
        Compared::CantTell => {
            let hint = match suspect {
                Some(row) => format!("; {} may be worse", named(row)),
                None if same > 0 => "; nothing is worse as far as it can be told".to_owned(),
                None => String::new(),
            };
            format!("can't tell: {names}: {counted}{hint}")
        }
    };
    (answer, sentence)
}
