//! Which of two releases is the later one, by their numbers.

use std::cmp::Ordering;

/// A stretch of digits or of letters.
#[derive(Debug, Eq, PartialEq)]
enum Part<'a> {
    /// By size, however many digits; leading zeros do not count.
    Number(&'a str),
    Word(&'a str),
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let kind = |byte: &u8| match byte {
            b'0'..=b'9' => 0,
            b'.' | b'-' | b'_' | b'+' => 1,
            _ => 2,
        };
        let of = kind(byte);
        let end = bytes
            .iter()
            .skip(at)
            .position(|other| kind(other) != of)
            .map_or(bytes.len(), |length| at + length);
        let piece = text.get(at..end).unwrap_or_default();
        match of {
            0 => parts.push(Part::Number(piece.trim_start_matches('0'))),
            2 => parts.push(Part::Word(piece)),
            _ => {}
        }
        at = end;
    }
    parts
}

/// Orders releases as semantic versions are, and others alike: numbers by size, `1.2-beta.3` before `1.2`, `1.2` before
/// `1.2.1`. Any two texts have an order, and only equal ones are equal.
pub fn release_order(a: &str, b: &str) -> Ordering {
    let split = |text: &'_ str| -> (String, Option<String>) {
        // What follows a `+` says how it was built.
        let text = text.split('+').next().unwrap_or_default();
        match text.split_once('-') {
            Some((core, pre)) => (core.to_owned(), Some(pre.to_owned())),
            None => (text.to_owned(), None),
        }
    };
    let ((a_core, a_pre), (b_core, b_pre)) = (split(a), split(b));
    by_parts(&a_core, &b_core)
        .then_with(|| match (&a_pre, &b_pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => by_parts(a, b),
        })
        .then_with(|| a.cmp(b))
}

fn by_parts(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    for (a, b) in a.iter().zip(&b) {
        let order = match (a, b) {
            (Part::Number(a), Part::Number(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            (Part::Word(a), Part::Word(b)) => a.cmp(b),
            // As semantic versions have it: numbers before words.
            (Part::Number(_), Part::Word(_)) => Ordering::Less,
            (Part::Word(_), Part::Number(_)) => Ordering::Greater,
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// Extension and release of a build that has them.
pub fn release_of(build: &str) -> Option<(&str, &str)> {
    build.split_once('@')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn releases_stand_as_their_authors_mean_them() {
        let rising = [
            "0.1.0-alpha.9",
            "0.1.0-beta.2",
            "0.1.0-beta.20",
            "0.1.0-beta.34",
            "0.1.0-rc.1",
            "0.1.0",
            "0.1.0.1",
            "0.2",
            "0.10",
            "1",
            "1.0",
            "2024.12.31",
        ];
        for (index, a) in rising.iter().enumerate() {
            for b in rising.iter().skip(index + 1) {
                assert_eq!(release_order(a, b), Ordering::Less, "{a} {b}");
            }
        }
        assert_eq!(release_of("pg_tviews@0.1.0"), Some(("pg_tviews", "0.1.0")));
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-9a-c.+é-]{0,8}", b in "[0-9a-c.+-]{0,8}", c in "[0-9a-c.+-]{0,8}") {
            prop_assert_eq!(release_order(&a, &b), release_order(&b, &a).reverse());
            prop_assert_eq!(release_order(&a, &b) == Ordering::Equal, a == b);
            if release_order(&a, &b).is_le() && release_order(&b, &c).is_le() {
                prop_assert!(release_order(&a, &c).is_le(), "{} {} {}", a, b, c);
            }
        }
    }
}
