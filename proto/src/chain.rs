//! An error with its causes, as it is printed where it is handled: every crate to the right says it with this.

/// The error and its causes on one line: `a: b: c`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open the spool")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_in_order() {
        let error = Outer(std::io::Error::other("no space left"));
        assert_eq!(chain(&error), "open the spool: no space left");
        assert_eq!(chain(&std::fmt::Error), std::fmt::Error.to_string());
    }
}
