//! SQL with `${n}`, `${worker}`, `${round}` and `${seed}`, compiled once and written out for every operation.
//!
//! Values are replaced as text and are whole numbers, so they need no quoting. Writing an operation into a buffer
//! that is large enough allocates nothing.

use crate::file_error::hint;
use std::fmt::Write;

/// What the variables stand for in one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vars {
    /// `${n}`: the operation.
    pub n: u64,
    /// `${worker}`: 0 main session, 1 and up.
    pub worker: u32,
    /// `${round}`.
    pub round: u32,
    /// `${seed}`: of the plan.
    pub seed: u64,
}

/// SQL with the places of its variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The literal pieces, end to end.
    text: String,
    /// Where in `text` a value goes, rising.
    places: Vec<(usize, Var)>,
}

/// A `${…}` that names no variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the SQL: {problem}")]
pub struct InvalidTemplate {
    /// In the SQL, 1-based.
    pub line: usize,
    /// What is wrong and what to do about it.
    pub problem: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Var {
    N,
    Worker,
    Round,
    Seed,
}

const NAMES: [&str; 4] = ["n", "worker", "round", "seed"];

impl Template {
    /// Compiles the text.
    ///
    /// # Errors
    ///
    /// Names the first `${…}` that is none of the four, and its line.
    pub fn compile(sql: &str) -> Result<Self, InvalidTemplate> {
        let mut text = String::with_capacity(sql.len());
        let mut places = Vec::new();
        let mut rest = sql;
        while let Some((before, after)) = rest.split_once("${") {
            text.push_str(before);
            let line = || 1 + before_of(sql, after).matches('\n').count();
            let Some((name, after)) = after.split_once('}') else {
                let problem = "'${' without its '}'".to_owned();
                return Err(InvalidTemplate { line: line(), problem });
            };
            let var = match name {
                "n" => Var::N,
                "worker" => Var::Worker,
                "round" => Var::Round,
                "seed" => Var::Seed,
                _ => {
                    let short: String = name.chars().take(40).collect();
                    let problem = format!("unknown variable '${{{short}}}'{}", hint(name, NAMES));
                    return Err(InvalidTemplate { line: line(), problem });
                }
            };
            places.push((text.len(), var));
            rest = after;
        }
        text.push_str(rest);
        Ok(Self { text, places })
    }

    /// Whether every operation is the same text.
    pub fn is_constant(&self) -> bool {
        self.places.is_empty()
    }

    /// Appends the text of one operation.
    pub fn render_into(&self, out: &mut String, vars: &Vars) {
        let mut done = 0;
        for (place, var) in &self.places {
            out.push_str(self.text.get(done..*place).unwrap_or(""));
            done = *place;
            let value = match var {
                Var::N => vars.n,
                Var::Worker => u64::from(vars.worker),
                Var::Round => u64::from(vars.round),
                Var::Seed => vars.seed,
            };
            // Writing into a String cannot fail.
            let _ = write!(out, "{value}");
        }
        out.push_str(self.text.get(done..).unwrap_or(""));
    }

    /// The text of one operation.
    pub fn render(&self, vars: &Vars) -> String {
        let mut out = String::with_capacity(self.text.len() + 8 * self.places.len());
        self.render_into(&mut out, vars);
        out
    }
}

/// The text with its variables replaced.
///
/// # Errors
///
/// As [`Template::compile`].
pub fn substitute(text: &str, vars: &Vars) -> Result<String, InvalidTemplate> {
    Ok(Template::compile(text)?.render(vars))
}

/// The part of `whole` before its tail `tail`.
fn before_of<'a>(whole: &'a str, tail: &str) -> &'a str {
    whole.get(..whole.len().saturating_sub(tail.len())).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn variables_are_replaced_as_text() {
        let vars = Vars { n: 7, worker: 2, round: 3, seed: 11 };
        let text = substitute("VALUES ('row-${n}', ${worker}, $${round}$$, ${seed}) $1", &vars);
        assert_eq!(text.as_deref(), Ok("VALUES ('row-7', 2, $3$$, 11) $1"));
        assert!(Template::compile("SELECT 1").unwrap().is_constant());
    }

    #[test]
    fn an_unknown_variable_is_named_with_its_line() {
        let wrong = Template::compile("SELECT\n${rounds}").unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "line 2 of the SQL: unknown variable '${rounds}'; did you mean 'round'?"
        );
        assert_eq!(Template::compile("SELECT ${n").unwrap_err().problem, "'${' without its '}'");
    }

    #[test]
    fn a_buffer_that_fits_is_not_grown() {
        let template = Template::compile("INSERT INTO t VALUES (${n}, ${worker})").unwrap();
        let mut buffer = String::with_capacity(200);
        let before = buffer.as_ptr();
        for n in 0..100 {
            buffer.clear();
            template.render_into(&mut buffer, &Vars { n, ..Vars::default() });
        }
        assert_eq!(buffer, "INSERT INTO t VALUES (99, 0)");
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (before, 200));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s)([${}nworkerudsé\n]|.){0,40}", n in any::<u64>()) {
            if let Ok(out) = substitute(&text, &Vars { n, ..Vars::default() })
                && !text.contains("${")
            {
                prop_assert_eq!(out, text);
            }
        }
    }
}
