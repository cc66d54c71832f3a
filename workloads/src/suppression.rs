//! Suppressions of memcheck, in valgrind's own format: read, checked, and written from a stack.
//!
//! valgrind stops at a file that it does not understand, in the middle of a run; so a plan's are checked when the plan is.

use std::fmt::Write;

/// Most frames of a suppression: valgrind takes 24 at most before it refuses the file.
pub const MOST_FRAMES: usize = 24;

/// Largest text of suppressions that a plan can have, bytes.
pub const LONGEST_TEXT: usize = 256 << 10;

/// One suppression.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Suppression {
    /// Its name, the first line.
    pub name: String,
    /// 1-based line of its name in the text.
    pub line: usize,
    /// `Leak`, `Cond`, `Addr4` …: what it hides.
    pub kind: String,
}

/// What is wrong with a text of suppressions.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line} of the suppressions: {problem}")]
pub struct SuppressionError {
    /// 1-based, in the text.
    pub line: usize,
    /// What, and the way out.
    pub problem: String,
}

/// Reads a text of suppressions. Those of other tools than memcheck are passed over, as valgrind does.
///
/// # Errors
///
/// The first thing that valgrind would refuse, a name that stands twice (counts would be of both), or a suppression that hides everything.
pub fn suppressions(text: &str) -> Result<Vec<Suppression>, SuppressionError> {
    let mut found: Vec<Suppression> = Vec::new();
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let bad = |line: usize, problem: &str| SuppressionError { line, problem: problem.to_owned() };
    if text.len() > LONGEST_TEXT {
        return Err(bad(1, "the text is longer than 256 KiB"));
    }
    while let Some((opened, line)) = lines.next() {
        if line != "{" {
            return Err(bad(opened, "a suppression begins with a line '{'"));
        }
        let open = || bad(opened, "the suppression that begins here has no '}'");
        let (line, name) = lines.next().ok_or_else(open)?;
        if name == "}" || name.contains(['{', '}']) {
            return Err(bad(line, "the first line of a suppression is its name"));
        }
        let (kind_line, kind) = lines.next().ok_or_else(open)?;
        let Some((tools, kind)) = kind.split_once(':') else {
            return Err(bad(kind_line, "the second line says tool and kind: 'Memcheck:Leak'"));
        };
        let mut places = 0;
        let mut tells = false;
        loop {
            let (line, text) = lines.next().ok_or_else(open)?;
            match text {
                "}" => break,
                "..." => {}
                place
                    if place.starts_with("fun:")
                        || place.starts_with("obj:")
                        || place.starts_with("src:") =>
                {
                    places += 1;
                    tells |= place.bytes().skip(4).any(|byte| !b"*?".contains(&byte));
                }
                // `match-leak-kinds: …`, and the parameter's name of a system call.
                _ if places == 0 => {}
                _ => {
                    return Err(bad(
                        line,
                        "a frame is 'fun:NAME', 'obj:NAME', 'src:FILE:LINE' or '...'",
                    ));
                }
            }
        }
        if places > MOST_FRAMES {
            return Err(bad(opened, "the suppression has more than 24 frames"));
        }
        if !tools.split(',').any(|tool| tool.trim() == "Memcheck") {
            continue;
        }
        if !tells {
            return Err(bad(
                opened,
                "the suppression names no function or object: it would hide everything",
            ));
        }
        if found.iter().any(|known| known.name == name) {
            return Err(bad(
                line,
                "another suppression has this name; its counts could not be told apart",
            ));
        }
        found.push(Suppression { name: name.to_owned(), line, kind: kind.trim().to_owned() });
    }
    Ok(found)
}

/// What a suppression is written from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hides<'a> {
    /// A loss record of this kind: `definite`, `indirect`, `possible`, `reachable`.
    Leak(&'a str),
    /// An error, in memcheck's words.
    Error(&'a str),
}

/// One frame of it: the function as memcheck has it in the symbol table (C) or as it shows it, and the object's file name; either may be empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frame {
    /// Demangled; a Rust name becomes a pattern, since suppressions are matched with mangled names.
    pub function: String,
    /// File name, without folder.
    pub object: String,
}

/// The text of a suppression for a stack, innermost first; `None`: memcheck's words are of no kind that can be suppressed.
pub fn written(name: &str, hides: Hides<'_>, stack: &[Frame]) -> Option<String> {
    let name: String = name.chars().filter(|c| !c.is_control() && !"{}".contains(*c)).collect();
    let mut text = format!("{{\n   {name}\n");
    match hides {
        Hides::Leak(kind) => {
            let _ = writeln!(text, "   Memcheck:Leak\n   match-leak-kinds: {kind}");
        }
        Hides::Error(what) => {
            let (kind, parameter) = kind_of(what)?;
            let _ = writeln!(text, "   Memcheck:{kind}");
            if let Some(parameter) = parameter {
                let _ = writeln!(text, "   {parameter}");
            }
        }
    }
    let mut is_open = false;
    for frame in stack.iter().take(MOST_FRAMES) {
        match pattern(frame) {
            Some(line) => {
                let _ = writeln!(text, "   {line}");
                is_open = false;
            }
            // Inlined frames and unknown ones: whatever stands there.
            None if !is_open => {
                text.push_str("   ...\n");
                is_open = true;
            }
            None => {}
        }
    }
    text.push_str("}\n");
    Some(text)
}

/// `Invalid read of size 8` → `Addr8`.
fn kind_of(what: &str) -> Option<(String, Option<String>)> {
    let size = |rest: &str| rest.trim().parse::<u32>().ok().map(|size| size.min(32));
    if let Some(rest) = what
        .strip_prefix("Invalid read of size")
        .or_else(|| what.strip_prefix("Invalid write of size"))
    {
        return Some((format!("Addr{}", size(rest)?), None));
    }
    if let Some(rest) = what.strip_prefix("Use of uninitialised value of size") {
        return Some((format!("Value{}", size(rest)?), None));
    }
    if let Some(rest) = what.strip_prefix("Syscall param ") {
        let (parameter, _) = rest.split_once(' ')?;
        return Some(("Param".to_owned(), Some(parameter.to_owned())));
    }
    [
        ("Conditional jump", "Cond"),
        ("Invalid free", "Free"),
        ("Mismatched free", "Free"),
        ("Source and destination overlap", "Overlap"),
        ("Jump to the invalid address", "Jump"),
        ("Illegal memory pool", "Addr1"),
    ]
    .iter()
    .find(|(words, _)| what.starts_with(words))
    .map(|(_, kind)| ((*kind).to_owned(), None))
}

fn pattern(frame: &Frame) -> Option<String> {
    if frame.function.is_empty() || frame.function.starts_with("???") {
        return (!frame.object.is_empty()).then(|| format!("obj:*/{}", frame.object));
    }
    // Suppressions are matched with the symbol's own name; a path is in it as its last part, in both manglings.
    if frame.function.contains("::") || frame.function.contains('<') {
        let last = frame
            .function
            .rsplit("::")
            .map(|part| part.split(['<', '>', '{', '(']).next().unwrap_or_default().trim())
            .find(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            })?;
        return Some(format!("fun:*{}{last}*", last.len()));
    }
    let plain = frame.function.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.$@*?".contains(&b));
    plain.then(|| format!("fun:{}", frame.function))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# known\n{\n   one\n   Memcheck:Leak\n   match-leak-kinds: definite\n   fun:malloc\n   fun:lose\n}\n{\n two\n Memcheck:Param\n write(buf)\n ...\n obj:*/x.so\n}\n{\n three\n Helgrind:Race\n fun:x\n}\n";

    #[test]
    fn names_lines_and_kinds_are_read() {
        let found = suppressions(GOOD).unwrap();
        let told: Vec<_> =
            found.iter().map(|s| (s.name.as_str(), s.line, s.kind.as_str())).collect();
        assert_eq!(told, [("one", 3, "Leak"), ("two", 10, "Param")]);
        assert!(suppressions("").unwrap().is_empty());
    }

    #[test]
    fn what_valgrind_would_refuse_is_named_with_its_line() {
        for (text, line) in [
            ("one\n", 1),
            ("{\n one\n Memcheck\n fun:x\n}\n", 3),
            ("{\n one\n Memcheck:Leak\n fun:x\n", 1),
            ("{\n one\n Memcheck:Leak\n fun:x\n nonsense\n}\n", 5),
            ("{\n one\n Memcheck:Leak\n fun:*\n}\n", 1),
            ("{\n one\n Memcheck:Leak\n}\n", 1),
            ("{\n a\n Memcheck:Leak\n fun:x\n}\n{\n a\n Memcheck:Leak\n fun:y\n}\n", 7),
        ] {
            assert_eq!(suppressions(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let frame = |function: &str, object: &str| Frame {
            function: function.into(),
            object: object.into(),
        };
        let stack = [
            frame("malloc", "vgpreload_memcheck-amd64-linux.so"),
            frame("<alloc::vec::Vec<u8> as e::T>::push", "e.so"),
            frame("", "postgres"),
            frame("", ""),
            frame("main", "postgres"),
        ];
        let text = written("e: push", Hides::Leak("definite"), &stack).unwrap();
        assert_eq!(
            text,
            "{\n   e: push\n   Memcheck:Leak\n   match-leak-kinds: definite\n   fun:malloc\n   fun:*4push*\n   obj:*/postgres\n   ...\n   fun:main\n}\n"
        );
        assert_eq!(suppressions(&text).unwrap().len(), 1);
        let text = written("r", Hides::Error("Invalid read of size 8"), &stack).unwrap();
        assert_eq!(suppressions(&text).unwrap()[0].kind, "Addr8");
        let what = "Syscall param write(buf) points to uninitialised byte(s)";
        let text = written("r", Hides::Error(what), &stack).unwrap();
        assert!(text.contains("Memcheck:Param\n   write(buf)\n"));
        assert!(written("r", Hides::Error("Process terminating"), &stack).is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in "([{}]\n|[ a-zA-Z:*.]{0,20}\n){0,20}") {
            let _ = suppressions(&text);
        }
    }
}
