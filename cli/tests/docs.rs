//! What the documents say exists: every `pgsoak` command in a shell block of README.md and docs/ is a verb with these options, and
//! every plan and workload file shown parses.
#![expect(clippy::unwrap_used, reason = "helpers of a test; a failure here is the report")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    docs.filter(|path| path.extension().is_some_and(|e| e == "md"))
        .chain([root.join("README.md")])
        .collect()
}

/// Code blocks of a language, each with its first line's number.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(word)) if word == language => open = Some((index + 2, String::new())),
            (None, _) => {}
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    found
}

fn help(words: &[&str]) -> Option<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_pgsoak")).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_command_shown_exists_with_its_options() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (at, block) in blocks(&text, "sh").into_iter().chain(blocks(&text, "console")) {
            for (offset, line) in block.lines().enumerate() {
                let line = line.split(" #").next().unwrap();
                for command in line.split([';', '|', '&']).map(str::trim) {
                    let command =
                        command.trim_start_matches("$ ").trim_start_matches("target/release/");
                    let Some(rest) = command.strip_prefix("pgsoak ") else { continue };
                    seen += 1;
                    let place = format!("{}:{}: {command}", document.display(), at + offset);
                    let words: Vec<&str> = rest.split_whitespace().collect();
                    let verbs: Vec<&str> = words
                        .iter()
                        .copied()
                        // A verb of a verb, or an argument, which --help passes over.
                        .take_while(|word| !word.starts_with('-'))
                        .take(2)
                        .collect();
                    let Some(help) = help(&verbs) else {
                        wrong.push(format!("{place}: no such verb"));
                        continue;
                    };
                    for option in words.iter().filter(|word| word.starts_with("--")) {
                        let name = option.split('=').next().unwrap();
                        if !help.contains(name) {
                            wrong.push(format!("{place}: no option {name}"));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(seen > 10, "only {seen} commands were found");
}

#[test]
fn every_plan_and_workload_shown_parses() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (at, block) in blocks(&text, "toml") {
            let shown = format!("{}:{at}", document.display());
            let problems = if block.contains("[[job]]") && block.contains("name") {
                pgsoak_workloads::plan::Plan::parse(&shown, &block).err()
            } else if block.contains("[[phase]]") && block.contains("name =") {
                pgsoak_workloads::workload::Workload::parse(&shown, &block).err()
            } else {
                continue;
            };
            seen += 1;
            wrong.extend(problems.into_iter().flatten().map(|problem| problem.to_string()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(seen > 0, "no file is shown");
}
