//! SQL text cut into statements at its top-level semicolons.
//!
//! Knows what hides a semicolon: quotes, `E''` strings, dollar quotes, comments (block comments nest), parentheses, and the bodies of
//! SQL-standard functions (`BEGIN ATOMIC … END`), found as psql finds them. Assumes `standard_conforming_strings = on`.
//! Does not parse SQL otherwise.

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Without the semicolon and without blanks and comments around it.
    pub text: String,
    /// Line of its first word in the whole text, 1-based.
    pub line: usize,
}

/// Something that was opened and never closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the SQL: {what} is never closed")]
pub struct Unclosed {
    /// Line of the opening in the whole text, 1-based.
    pub line: usize,
    /// What was opened.
    pub what: &'static str,
}

/// The statements of a text, in order; empty ones are left out. What is left open at the end belongs to the last one, for the
/// server to complain about.
pub fn statements(sql: &str) -> Vec<Statement> {
    scan(sql).0
}

/// Whether every quote, comment and parenthesis is closed.
///
/// # Errors
///
/// Names the last thing that stays open and its line.
pub fn closed(sql: &str) -> Result<(), Unclosed> {
    scan(sql).1.map_or(Ok(()), Err)
}

/// The first words of a statement: enough to see `CREATE OR REPLACE FUNCTION`.
#[derive(Default)]
struct Opening {
    words: usize,
    create: bool,
    routine: bool,
    begin_depth: usize,
}

impl Opening {
    fn word(&mut self, word: &str) {
        let is = |other: &str| word.eq_ignore_ascii_case(other);
        match self.words {
            0 => self.create = is("create"),
            1..=3 if is("function") || is("procedure") => self.routine = self.create,
            _ => {}
        }
        self.words += 1;
        if self.routine {
            if is("begin") || (is("case") && self.begin_depth > 0) {
                self.begin_depth += 1;
            } else if is("end") {
                self.begin_depth = self.begin_depth.saturating_sub(1);
            }
        }
    }
}

fn scan(sql: &str) -> (Vec<Statement>, Option<Unclosed>) {
    let bytes = sql.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let mut found = Vec::new();
    let mut unclosed = None;
    // Span of the statement so far: first and one past its last token.
    let mut span: Option<(usize, usize)> = None;
    let mut line_at = Lines::default();
    let mut opening = Opening::default();
    let mut parens: Vec<usize> = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let start = i;
        let mut open = None;
        let mut counts = true;
        match at(i) {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                i += 1;
                counts = false;
            }
            b'-' if at(i + 1) == b'-' => {
                i = find(bytes, i, b"\n").unwrap_or(bytes.len());
                counts = false;
            }
            b'/' if at(i + 1) == b'*' => {
                (i, open) = block_comment(bytes, i);
                counts = false;
            }
            b'\'' => (i, open) = quoted(bytes, i, false),
            b'"' => (i, open) = quoted(bytes, i, false),
            b'$' => (i, open) = dollar(bytes, i),
            b';' if parens.is_empty() && opening.begin_depth == 0 => {
                push(&mut found, sql, span.take(), &mut line_at);
                opening = Opening::default();
                i += 1;
                counts = false;
            }
            b'(' => {
                parens.push(i);
                i += 1;
            }
            b')' => {
                parens.pop();
                i += 1;
            }
            byte if starts_word(byte) => {
                while starts_word(at(i)) || at(i).is_ascii_digit() || at(i) == b'$' {
                    i += 1;
                }
                let word = sql.get(start..i).unwrap_or("");
                if word.eq_ignore_ascii_case("e") && at(i) == b'\'' {
                    (i, open) = quoted(bytes, i, true);
                } else {
                    opening.word(word);
                }
            }
            _ => i += 1,
        }
        if counts {
            span = Some((span.map_or(start, |(first, _)| first), i));
        }
        if let Some(what) = open {
            unclosed = Some(Unclosed { line: line_of(sql, start), what });
        }
    }
    if unclosed.is_none()
        && let Some(first) = parens.first()
    {
        unclosed = Some(Unclosed { line: line_of(sql, *first), what: "a parenthesis" });
    }
    push(&mut found, sql, span, &mut line_at);
    (found, unclosed)
}

fn push(found: &mut Vec<Statement>, sql: &str, span: Option<(usize, usize)>, line_at: &mut Lines) {
    if let Some((from, to)) = span
        && let Some(text) = sql.get(from..to)
    {
        found.push(Statement { text: text.to_owned(), line: line_at.of(sql, from) });
    }
}

/// Counts lines as the scan goes forward, so that many statements stay linear.
#[derive(Default)]
struct Lines {
    counted: usize,
    newlines: usize,
}

impl Lines {
    fn of(&mut self, sql: &str, offset: usize) -> usize {
        let between = sql.as_bytes().get(self.counted..offset).unwrap_or(&[]);
        self.newlines += between.iter().filter(|byte| **byte == b'\n').count();
        self.counted = self.counted.max(offset);
        self.newlines + 1
    }
}

fn line_of(sql: &str, offset: usize) -> usize {
    Lines::default().of(sql, offset)
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(what.len()).position(|window| window == what).map(|found| from + found)
}

/// Past a quoted text that starts at `from`; a doubled quote is part of it.
fn quoted(bytes: &[u8], from: usize, escapes: bool) -> (usize, Option<&'static str>) {
    let quote = bytes.get(from).copied().unwrap_or(b'\'');
    let mut i = from + 1;
    while let Some(byte) = bytes.get(i) {
        if escapes && *byte == b'\\' {
            i += 2;
        } else if *byte != quote {
            i += 1;
        } else if bytes.get(i + 1) == Some(&quote) {
            i += 2;
        } else {
            return (i + 1, None);
        }
    }
    (bytes.len(), Some(if quote == b'"' { "a quoted name" } else { "a quoted text" }))
}

fn block_comment(bytes: &[u8], from: usize) -> (usize, Option<&'static str>) {
    let mut depth = 0_usize;
    let mut i = from;
    while i < bytes.len() {
        match (bytes.get(i), bytes.get(i + 1)) {
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                i += 2;
            }
            (Some(b'*'), Some(b'/')) => {
                depth = depth.saturating_sub(1);
                i += 2;
                if depth == 0 {
                    return (i, None);
                }
            }
            _ => i += 1,
        }
    }
    (bytes.len(), Some("a comment"))
}

/// Past `$tag$ … $tag$`, or past the `$` when it opens none (a parameter, a variable).
fn dollar(bytes: &[u8], from: usize) -> (usize, Option<&'static str>) {
    let tag = bytes.get(from + 1..).unwrap_or(&[]);
    let length = tag
        .iter()
        .enumerate()
        .take_while(|(i, byte)| starts_word(**byte) || (*i > 0 && byte.is_ascii_digit()))
        .count();
    if tag.get(length) != Some(&b'$') {
        return (from + 1, None);
    }
    let end = from + length + 2;
    let fence = bytes.get(from..end).unwrap_or(b"$$");
    match find(bytes, end, fence) {
        Some(found) => (found + fence.len(), None),
        None => (bytes.len(), Some("a dollar-quoted text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(sql: &str) -> Vec<String> {
        statements(sql).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_end_statements_and_lines_are_counted() {
        let found = statements("-- first\nSELECT 1;\n\n  /* two */ SELECT\n 2 ;;\n");
        assert_eq!(
            found,
            [
                Statement { text: "SELECT 1".into(), line: 2 },
                Statement { text: "SELECT\n 2".into(), line: 4 },
            ]
        );
    }

    #[test]
    fn quotes_and_comments_hide_semicolons() {
        assert_eq!(texts("SELECT ';', 'it''s;'; SELECT 2"), ["SELECT ';', 'it''s;'", "SELECT 2"]);
        assert_eq!(texts(r"SELECT E'\';', e'\\'; SELECT 2"), [r"SELECT E'\';', e'\\'", "SELECT 2"]);
        assert_eq!(texts(r#"SELECT ";""x;" ; b"#), [r#"SELECT ";""x;""#, "b"]);
        assert_eq!(texts("SELECT 1 /* ; /* ; */ ; */ ; b"), ["SELECT 1", "b"]);
        assert_eq!(texts("SELECT 1 -- ;\n + 1; b"), ["SELECT 1 -- ;\n + 1", "b"]);
        assert_eq!(texts("DO $$ BEGIN x; END $$; DO $a$ ; $$ ; $a$; b").len(), 3);
        assert_eq!(texts("SELECT $1; SELECT a$b$c; SELECT 3").len(), 3);
        assert_eq!(texts("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); b").len(), 2);
        assert_eq!(texts("INSERT INTO t VALUES ('${n}'); SELECT ${n}").len(), 2);
    }

    #[test]
    fn bodies_of_standard_functions_stay_whole() {
        let sql = "CREATE OR REPLACE FUNCTION f(a int) RETURNS int BEGIN ATOMIC
            SELECT CASE WHEN a > 1 THEN 2 ELSE 3 END; SELECT 2; END; SELECT f(1);
            CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1; END; BEGIN; SELECT 1; COMMIT";
        assert_eq!(texts(sql).len(), 6);
        assert_eq!(texts("BEGIN; SELECT 1; END; SELECT 2").len(), 4);
    }

    #[test]
    fn what_stays_open_is_named_with_its_line() {
        let wrong = |sql: &str| closed(sql).unwrap_err();
        assert_eq!(wrong("SELECT 1;\nSELECT 'x").line, 2);
        assert_eq!(wrong("SELECT (1").what, "a parenthesis");
        assert_eq!(wrong("/* /* */").what, "a comment");
        assert_eq!(wrong("DO $x$ $$").what, "a dollar-quoted text");
        assert_eq!(closed("SELECT ('a')"), Ok(()));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_nothing_is_invented(sql in "(?s)[ a-z;'\"$()/*\\-\n\\\\é]{0,60}|.{0,60}") {
            for statement in statements(&sql) {
                prop_assert!(sql.contains(&statement.text));
                prop_assert!(statement.line <= sql.lines().count().max(1));
            }
        }
    }
}
