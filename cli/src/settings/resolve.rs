//! What is in force, and from where: flags, then the environment, then the file, then the defaults.

use crate::exit::Coded;
use crate::plan_files;
use crate::settings::file;
use crate::settings::kind::Value;
use crate::settings::{Daemon, Default, Key, Reload};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where a value comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The table of settings.
    Default,
    /// A line of the file.
    File {
        /// As it was named.
        file: String,
        /// 1-based.
        line: usize,
    },
    /// A variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

/// A value that is in force.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its line of the table.
    pub key: &'static Key,
    /// `None`: nothing, or what the daemon chooses.
    pub value: Option<Value>,
    /// From where.
    pub origin: Origin,
}

/// A flag that was given: the setting, the flag's name, its text.
pub type Flag = (&'static str, &'static str, String);

/// Everything in force, by path.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose.
    pub daemon: Daemon,
    /// The file that was read.
    pub file: Option<PathBuf>,
    settings: BTreeMap<String, Setting>,
    flags: Vec<Flag>,
}

/// One setting that a reload found changed.
#[derive(Debug, Eq, PartialEq)]
pub struct Change {
    /// Its path.
    pub path: String,
    /// Whether it needs a restart.
    pub reload: Reload,
}

/// Where a daemon's file is looked for when nobody names one.
pub fn default_file(daemon: Daemon) -> PathBuf {
    Path::new("/etc/pgsoak").join(daemon.label()).with_extension("toml")
}

/// Reads everything: `named`, or the default place where there is a file, the environment of this process, and `flags`.
///
/// # Errors
///
/// Wrong usage, with every problem on a line of its own.
pub fn settings(
    daemon: Daemon,
    named: Option<&Path>,
    flags: Vec<Flag>,
) -> anyhow::Result<Settings> {
    let file = match named {
        Some(path) => Some(path.to_owned()),
        None => Some(default_file(daemon)).filter(|path| path.exists()),
    };
    let text = file.as_deref().map(read_text).transpose()?;
    let shown = file.as_deref().map(|path| path.display().to_string());
    let texts = shown.as_deref().zip(text.as_deref());
    let variable = |name: &str| std::env::var(name).ok();
    let settings = resolve(daemon, texts, variable, flags)?;
    Ok(Settings { file, ..settings })
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).map_err(|error| {
        let way_out = match error.kind() {
            io::ErrorKind::NotFound => "; `pgsoak config example` prints one to begin with",
            _ => "",
        };
        Coded::usage(format!("cannot read the settings {}: {error}{way_out}", path.display()))
            .into()
    })
}

/// The same from texts alone.
///
/// # Errors
///
/// As [`settings`].
pub fn resolve(
    daemon: Daemon,
    file: Option<(&str, &str)>,
    variable: impl Fn(&str) -> Option<String>,
    flags: Vec<Flag>,
) -> anyhow::Result<Settings> {
    let keys = daemon.keys();
    let mut settings: BTreeMap<String, Setting> = BTreeMap::new();
    let mut problems = Vec::new();
    let read = match file {
        Some((name, text)) => {
            file::read(name, text, keys).map_err(|problems| plan_files::usage(&problems))?
        }
        None => Vec::new(),
    };
    // Every setting has its default, below each chosen name as well.
    let chosen: BTreeSet<(String, String)> = read
        .iter()
        .filter(|read| read.key.name.contains('*'))
        .filter_map(|read| {
            let mut parts = read.path.split('.');
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        })
        .collect();
    for key in keys {
        let value = match key.default {
            Default::Fixed(text) => Some(key.kind.of_text(text).map_err(|problem| {
                anyhow::anyhow!("the default of `{}` is none: {problem}", key.name)
            })?),
            Default::Chosen { .. } | Default::Required { .. } => None,
        };
        let setting = Setting { key, value, origin: Origin::Default };
        if key.name.contains('*') {
            let table = key.name.split('.').next().unwrap_or_default();
            for (_, name) in chosen.iter().filter(|(of, _)| of == table) {
                settings.insert(key.name.replacen('*', name, 1), setting.clone());
            }
        } else {
            settings.insert(key.name.to_owned(), setting);
        }
    }
    for read in read {
        let origin = Origin::File {
            file: file.map_or_else(String::new, |(name, _)| name.to_owned()),
            line: read.line,
        };
        settings.insert(read.path, Setting { key: read.key, value: Some(read.value), origin });
    }
    for key in keys {
        let Some(name) = key.environment() else { continue };
        let Some(text) = variable(&name).filter(|text| !text.is_empty()) else { continue };
        match key.kind.of_text(&text) {
            Ok(value) => {
                let setting =
                    Setting { key, value: Some(value), origin: Origin::Environment(name) };
                settings.insert(key.name.to_owned(), setting);
            }
            Err(problem) => problems.push(format!("variable {name}: {problem}")),
        }
    }
    for (path, flag, text) in &flags {
        let Some(setting) = settings.get_mut(*path) else {
            anyhow::bail!("{flag} stands for no setting '{path}'");
        };
        match setting.key.kind.of_text(text) {
            Ok(value) => (setting.value, setting.origin) = (Some(value), Origin::Flag(flag)),
            Err(problem) => problems.push(format!("{flag}: {problem}")),
        }
    }
    if !problems.is_empty() {
        return Err(Coded::usage(problems.join("\n")).into());
    }
    Ok(Settings { daemon, file: None, settings, flags })
}

// === impl Settings ===

impl Settings {
    /// Reads file and environment again, with the flags of the start.
    ///
    /// # Errors
    ///
    /// As [`settings`]; what was in force stays in force.
    pub fn again(&self) -> anyhow::Result<Self> {
        settings(self.daemon, self.file.as_deref(), self.flags.clone())
    }

    /// By path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.settings.iter().map(|(path, setting)| (path.as_str(), setting))
    }

    /// The settings of which the value is not the same in `new`.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let paths: BTreeSet<_> = self.settings.keys().chain(new.settings.keys()).collect();
        let value = |of: &Self, path: &str| of.settings.get(path).and_then(|s| s.value.clone());
        paths
            .into_iter()
            .filter(|path| value(self, path) != value(new, path))
            .filter_map(|path| {
                let key = self.settings.get(path).or_else(|| new.settings.get(path))?.key;
                Some(Change { path: path.clone(), reload: key.reload })
            })
            .collect()
    }

    /// These, with the settings of `new` that apply at once.
    #[must_use]
    pub fn with_live_of(mut self, new: &Self) -> Self {
        self.settings.retain(|_, setting| setting.key.reload == Reload::Restart);
        let live = new.settings.iter().filter(|(_, setting)| setting.key.reload == Reload::Live);
        self.settings.extend(live.map(|(path, setting)| (path.clone(), setting.clone())));
        self
    }

    /// The names that people chose below a table: the NAMEs of `[table.NAME]`.
    pub fn names(&self, table: &str) -> BTreeSet<&str> {
        let below = |path: &'_ str| -> Option<usize> {
            Some(path.strip_prefix(table)?.strip_prefix('.')?.split('.').next()?.len())
        };
        self.settings
            .iter()
            .filter(|(_, setting)| setting.key.name.contains('*'))
            .filter_map(|(path, _)| path.get(table.len() + 1..table.len() + 1 + below(path)?))
            .collect()
    }

    /// Whether nobody chose it.
    pub fn is_default(&self, path: &str) -> bool {
        self.settings.get(path).is_some_and(|setting| setting.origin == Origin::Default)
    }

    fn value(&self, path: &str) -> anyhow::Result<Option<&Value>> {
        let setting = self.settings.get(path);
        let setting = setting.ok_or_else(|| anyhow::anyhow!("there is no setting '{path}'"))?;
        Ok(setting.value.as_ref())
    }

    /// A text, a path, an address as text, a URL or a choice.
    ///
    /// # Errors
    ///
    /// This and all below: when the table has no such setting, or one of another kind.
    pub fn text(&self, path: &str) -> anyhow::Result<Option<&str>> {
        match self.value(path)? {
            Some(Value::Text(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(_) => Err(other(path)),
        }
    }

    /// A path.
    pub fn path(&self, path: &str) -> anyhow::Result<Option<PathBuf>> {
        Ok(self.text(path)?.map(PathBuf::from))
    }

    /// An address; `None`: off.
    pub fn address(&self, path: &str) -> anyhow::Result<Option<SocketAddr>> {
        let text = self.text(path)?.filter(|text| *text != "off");
        Ok(text.map(str::parse).transpose()?)
    }

    /// A number.
    pub fn whole(&self, path: &str) -> anyhow::Result<Option<u64>> {
        match self.value(path)? {
            Some(Value::Whole(number)) => Ok(Some(*number)),
            None => Ok(None),
            Some(_) => Err(other(path)),
        }
    }

    /// Yes or no; nothing is no.
    #[allow(dead_code, reason = "no setting has it yet")]
    pub fn flag(&self, path: &str) -> anyhow::Result<bool> {
        match self.value(path)? {
            Some(Value::Flag(flag)) => Ok(*flag),
            None => Ok(false),
            Some(_) => Err(other(path)),
        }
    }

    /// A time.
    pub fn time(&self, path: &str) -> anyhow::Result<Option<Duration>> {
        match self.value(path)? {
            Some(Value::Time(time)) => Ok(Some(*time)),
            None => Ok(None),
            Some(_) => Err(other(path)),
        }
    }

    /// Bytes.
    pub fn size(&self, path: &str) -> anyhow::Result<Option<u64>> {
        match self.value(path)? {
            Some(Value::Size(bytes)) => Ok(Some(*bytes)),
            None => Ok(None),
            Some(_) => Err(other(path)),
        }
    }

    /// A list; nothing is an empty one.
    pub fn texts(&self, path: &str) -> anyhow::Result<Vec<String>> {
        match self.value(path)? {
            Some(Value::Texts(texts)) => Ok(texts.clone()),
            None => Ok(Vec::new()),
            Some(_) => Err(other(path)),
        }
    }

    /// A table; nothing is an empty one.
    pub fn map(&self, path: &str) -> anyhow::Result<BTreeMap<String, String>> {
        match self.value(path)? {
            Some(Value::Map(map)) => Ok(map.clone()),
            None => Ok(BTreeMap::new()),
            Some(_) => Err(other(path)),
        }
    }
}

fn other(path: &str) -> anyhow::Error {
    anyhow::anyhow!("the setting '{path}' is of another kind")
}

// === impl Setting ===

impl Setting {
    /// The value for people: as TOML. Secrets stand in files, of which the name is shown.
    pub fn shown(&self) -> String {
        match (&self.value, self.key.default) {
            (Some(value), _) => value.to_string(),
            (None, Default::Chosen { words, .. }) => format!("({words})"),
            (None, _) => "(none)".to_owned(),
        }
    }
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: (&str, &str) =
        ("c.toml", "listen = \"127.0.0.1:1\"\nlease_ttl = \"1m\"\nheartbeat_every = \"2s\"\n");

    fn from(
        file: Option<(&str, &str)>,
        variables: &[(&str, &str)],
        flags: Vec<Flag>,
    ) -> anyhow::Result<Settings> {
        let variable = |name: &str| {
            variables.iter().find(|(of, _)| *of == name).map(|(_, text)| (*text).to_owned())
        };
        resolve(Daemon::Coordinator, file, variable, flags)
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_the_default() {
        let variables = [("PGSOAK_LISTEN", "127.0.0.1:2"), ("PGSOAK_LEASE_TTL", "2m")];
        let flags = vec![("listen", "--listen", "127.0.0.1:3".to_owned())];
        let settings = from(Some(FILE), &variables, flags).unwrap();
        let origin = |path: &str| settings.settings[path].origin.to_string();
        assert_eq!(settings.text("listen").unwrap(), Some("127.0.0.1:3"));
        assert_eq!(origin("listen"), "--listen");
        assert_eq!(settings.time("lease_ttl").unwrap(), Some(Duration::from_secs(120)));
        assert_eq!(origin("lease_ttl"), "PGSOAK_LEASE_TTL");
        assert_eq!(settings.time("heartbeat_every").unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(origin("heartbeat_every"), "c.toml:3");
        assert_eq!(origin("http.listen"), "default");
    }

    #[test]
    fn an_empty_variable_says_nothing_and_a_wrong_one_is_named() {
        let settings = from(None, &[("PGSOAK_LISTEN", "")], Vec::new()).unwrap();
        assert_eq!(settings.settings["listen"].origin, Origin::Default);
        let said = from(None, &[("PGSOAK_LISTEN", "x")], Vec::new()).unwrap_err().to_string();
        assert!(said.starts_with("variable PGSOAK_LISTEN: must be HOST:PORT"), "{said}");
    }

    #[test]
    fn a_reload_tells_what_needs_a_restart() {
        let old = from(Some(FILE), &[], Vec::new()).unwrap();
        let text = "listen = \"127.0.0.1:9\"\nlease_ttl = \"1m\"\nheartbeat_every = \"2s\"\nlog = \"debug\"\n";
        let new = from(Some(("c.toml", text)), &[], Vec::new()).unwrap();
        let changes: Vec<_> =
            old.changes(&new).into_iter().map(|change| (change.path, change.reload)).collect();
        assert_eq!(
            changes,
            [("listen".to_owned(), Reload::Restart), ("log".to_owned(), Reload::Live)]
        );
    }
}
