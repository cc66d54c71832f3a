//! Secrets stand in files of their own, so that neither a settings file nor `config show` has one: keys, passwords, tokens.

use crate::exit::Coded;
use crate::settings::resolve::Settings;
use pgsoak_coordinator::config::{Role, Token};

/// Fewest characters of a token: what is shorter is guessed.
const SHORTEST: usize = 16;

/// What the file of a setting holds, without blanks around it; `None`: nobody set one.
///
/// # Errors
///
/// Names the setting and the file: it cannot be read, or is empty.
pub fn read(settings: &Settings, path: &str) -> anyhow::Result<Option<String>> {
    let Some(file) = settings.path(path)? else { return Ok(None) };
    let read = std::fs::read_to_string(&file);
    let text = read.map_err(|error| {
        Coded::usage(format!("`{path}`: cannot read {}: {error}", file.display()))
    })?;
    match text.trim() {
        "" => Err(Coded::usage(format!("`{path}`: {} is empty", file.display())).into()),
        text => Ok(Some(text.to_owned())),
    }
}

/// A token that is not to be guessed.
///
/// # Errors
///
/// As for [`read`]; or it is too short, or has characters that no header carries.
pub fn token(settings: &Settings, path: &str) -> anyhow::Result<Option<String>> {
    let Some(secret) = read(settings, path)? else { return Ok(None) };
    anyhow::ensure!(
        secret.len() >= SHORTEST,
        Coded::usage(format!(
            "`{path}`: the token has {} characters; at least {SHORTEST} are wanted (`openssl rand -hex 16` makes one)",
            secret.len()
        ))
    );
    anyhow::ensure!(
        secret.chars().all(|c| c.is_ascii_graphic()),
        Coded::usage(format!(
            "`{path}`: a token is one word of visible ASCII characters (`openssl rand -hex 16` makes one)"
        ))
    );
    Ok(Some(secret))
}

/// The coordinator's tokens.
///
/// # Errors
///
/// As for [`token`]; or two are the same.
pub fn tokens(settings: &Settings) -> anyhow::Result<Vec<Token>> {
    let mut tokens: Vec<Token> = Vec::new();
    for (path, role) in [
        ("tokens.agent_file", Role::Agent),
        ("tokens.approved_agent_file", Role::ApprovedAgent),
        ("tokens.client_file", Role::Client),
    ] {
        let Some(secret) = token(settings, path)? else { continue };
        if let Some(same) = tokens.iter().find(|token| token.secret == secret) {
            let text = format!("`{}` and `{path}` hold the same token", same.name);
            return Err(Coded::usage(text).into());
        }
        tokens.push(Token { name: path.to_owned(), role, secret });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Daemon, resolve};

    #[test]
    fn tokens_are_read_and_bad_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, holds: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, holds).unwrap();
            path.display().to_string()
        };
        let read = |text: &str| {
            let file = Some(("c.toml", text));
            let settings = resolve::resolve(Daemon::Coordinator, file, |_| None, Vec::new());
            tokens(&settings.unwrap())
        };
        let refused = |text: &str| read(text).unwrap_err().to_string();
        let agents = file("agents", " 0123456789abcdef\n");
        let taken = read(&format!("[tokens]\nagent_file = \"{agents}\"\n")).unwrap();
        assert_eq!(
            (taken.len(), taken[0].role, taken[0].secret.as_str()),
            (1, Role::Agent, "0123456789abcdef")
        );
        assert!(!format!("{taken:?}").contains("0123456789abcdef"), "no log shows it");
        let short = file("short", "short");
        assert!(
            refused(&format!("[tokens]\nclient_file = \"{short}\"\n"))
                .contains("`tokens.client_file`: the token has 5 characters")
        );
        let words = file("words", "a token of several words");
        assert!(refused(&format!("[tokens]\nclient_file = \"{words}\"\n")).contains("one word"));
        let both = format!("[tokens]\nagent_file = \"{agents}\"\nclient_file = \"{agents}\"\n");
        assert!(refused(&both).contains("hold the same token"), "each opens its own door");
        assert!(refused("[tokens]\nagent_file = \"/no/such\"\n").contains("cannot read /no/such"));
    }
}
