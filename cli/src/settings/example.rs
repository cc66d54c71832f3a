//! The example file of a daemon: every setting with what it does, its form, its default and its variable. Tested to be what
//! stands in `deploy/`.

use crate::settings::{Daemon, Default, Key, Reload};

/// Columns of a comment.
const WIDTH: usize = 110;

/// The file. Every setting is commented out, so the file as it is changes nothing.
pub fn text(daemon: Daemon) -> String {
    let label = daemon.label();
    let mut out = String::new();
    let about = format!(
        "Settings of the pgsoak {label}, each with its default; remove the # of what you change. Read from \
         /etc/pgsoak/{label}.toml or --config. A flag wins over the variable, it over this file, it over the default. \
         `pgsoak config show {label}` prints what is in force and from where. \
         \"Reload\" means that SIGHUP applies a change; the others need a restart."
    );
    comment(&mut out, &about);
    let mut section = String::new();
    for key in daemon.keys() {
        let (table, last) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        let table = table.replace('*', "name");
        if table != section {
            out.push_str(&format!("\n#[{table}]\n"));
            if key.name.contains('*') {
                comment(
                    &mut out,
                    "As many of these as you want, each with a name of its own in place of `name`.",
                );
            }
            section = table;
        }
        out.push('\n');
        comment(&mut out, &described(key));
        out.push_str(&format!("#{last} = {}\n", sample(key)));
    }
    out
}

fn described(key: &Key) -> String {
    let mut text = format!("{} Form: {}.", key.about, key.kind.words());
    match key.default {
        Default::Fixed(_) => {}
        Default::Chosen { words, .. } => text.push_str(&format!(" Default: {words}.")),
        Default::Required { .. } => text.push_str(" Required."),
    }
    if let Some(variable) = key.environment() {
        text.push_str(&format!(" Variable: {variable}."));
    }
    if key.reload == Reload::Live {
        text.push_str(" Reload.");
    }
    text
}

fn sample(key: &Key) -> String {
    let (Default::Fixed(text)
    | Default::Chosen { sample: text, .. }
    | Default::Required { sample: text }) = key.default;
    key.kind.of_text(text).map_or_else(|problem| problem, |value| value.to_string())
}

/// Wrapped at [`WIDTH`], each line after `# `.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + word.len() + 1 > WIDTH {
            out.push_str(&line);
            out.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::file;
    use std::{collections::BTreeSet, fs, path::Path};

    /// The example with every setting in force: lines that look like one lose their `#`.
    fn uncommented(text: &str) -> String {
        text.lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn the_examples_in_deploy_are_what_the_code_says() {
        for daemon in [Daemon::Coordinator, Daemon::Agent] {
            let name = format!("deploy/{}.toml", daemon.label());
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&name);
            let stored = fs::read_to_string(path).unwrap();
            assert_eq!(
                stored,
                text(daemon),
                "{name} is old: pgsoak config example {} > {name}",
                daemon.label()
            );
        }
    }

    #[test]
    fn every_setting_stands_in_the_example_with_its_default() {
        for daemon in [Daemon::Coordinator, Daemon::Agent] {
            let example = text(daemon);
            assert!(file::read("as it is", &example, daemon.keys()).unwrap().is_empty());
            let read = file::read("example", &uncommented(&example), daemon.keys()).unwrap();
            let shown: BTreeSet<_> = read.iter().map(|read| read.key.name).collect();
            let known: BTreeSet<_> = daemon.keys().iter().map(|key| key.name).collect();
            assert_eq!(shown, known);
            for read in read {
                if let Default::Fixed(default) = read.key.default {
                    assert_eq!(Ok(read.value), read.key.kind.of_text(default), "{}", read.path);
                }
            }
        }
    }

    #[test]
    fn names_and_variables_are_used_once_and_documented() {
        for daemon in [Daemon::Coordinator, Daemon::Agent] {
            let mut names = BTreeSet::new();
            let mut variables = BTreeSet::new();
            for key in daemon.keys() {
                assert!(names.insert(key.name), "{} stands twice", key.name);
                assert!(key.about.ends_with('.') && key.about.len() > 10, "{}", key.name);
                if let Some(variable) = key.environment() {
                    assert!(variables.insert(variable), "{}", key.name);
                }
            }
        }
    }
}
