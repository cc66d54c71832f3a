//! Addresses to functions, files and lines, from the modules' own symbols and debug information.
//!
//! Looks for split debug files under `/usr/lib/debug/.build-id`. Inlined frames are kept. heaptrack records the address of the call, not of
//! the return, so addresses are looked up as they are.

use crate::stack;
use object::Object;
use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
};

/// One frame as people read it. Empty texts and line 0 are unknown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Demangled.
    pub function: String,
    /// Source file.
    pub file: String,
    /// 1-based.
    pub line: u32,
}

/// The symbols of all modules that were asked for, so that files of one server share them.
#[derive(Default)]
pub struct SymbolCache {
    modules: HashMap<String, Symbols>,
}

impl fmt::Debug for SymbolCache {
    /// Symbols themselves are too many to show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.modules.keys()).finish()
    }
}

impl SymbolCache {
    /// The frames at `offset` from the base of the module at `path`, innermost first; empty: unknown.
    pub(crate) fn places(&mut self, path: &str, offset: u64) -> Vec<Place> {
        if !self.modules.contains_key(path) {
            self.modules.insert(path.to_owned(), Symbols::of(Path::new(path)));
        }
        self.modules.get(path).map(|symbols| symbols.places(offset)).unwrap_or_default()
    }
}

/// The symbols of one module.
struct Symbols {
    own: Option<addr2line::Loader>,
    split: Option<addr2line::Loader>,
}

impl Symbols {
    /// Of the object at `path`; a missing or unreadable one knows nothing.
    fn of(path: &Path) -> Self {
        // A damaged file can name anything, a device included.
        if !path.is_file() {
            return Self { own: None, split: None };
        }
        let split = split_debug(path).and_then(|path| addr2line::Loader::new(path).ok());
        Self { own: addr2line::Loader::new(path).ok(), split }
    }

    /// The frames at `offset` from the module's base, innermost first; empty: unknown.
    fn places(&self, offset: u64) -> Vec<Place> {
        let mut places = Vec::new();
        for loader in [&self.split, &self.own].into_iter().flatten() {
            let Ok(mut frames) = loader.find_frames(offset) else { continue };
            while let Ok(Some(frame)) = frames.next() {
                let function = frame
                    .function
                    .as_ref()
                    .and_then(|name| name.raw_name().ok().map(|raw| demangled(&raw)));
                let location = frame.location;
                places.push(Place {
                    function: function.unwrap_or_default(),
                    file: location.as_ref().and_then(|l| l.file).unwrap_or_default().to_owned(),
                    line: location.and_then(|l| l.line).unwrap_or(0),
                });
            }
            // Line tables alone do not name functions: the outermost frame takes the symbol's name.
            if let Some(last) = places.last_mut() {
                if last.function.is_empty() {
                    last.function = loader.find_symbol(offset).map(demangled).unwrap_or_default();
                }
                return places;
            }
        }
        let symbol = [&self.split, &self.own]
            .into_iter()
            .flatten()
            .find_map(|loader| loader.find_symbol(offset).map(demangled));
        symbol.map(|function| vec![Place { function, ..Place::default() }]).unwrap_or_default()
    }
}

/// Rust and C++ names as people read them; others as they are.
pub fn demangled(symbol: &str) -> String {
    if symbol.starts_with("_Z")
        && rustc_demangle::try_demangle(symbol).is_err()
        && let Ok(name) = cpp_demangle::Symbol::new(symbol)
        && let Ok(text) = name.demangle()
    {
        return text;
    }
    stack::demangle(symbol)
}

fn split_debug(path: &Path) -> Option<PathBuf> {
    let data = fs::read(path).ok()?;
    let id = object::File::parse(&*data).ok()?.build_id().ok()??.to_vec();
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hex.split_at_checked(2)?;
    let path = Path::new("/usr/lib/debug/.build-id").join(first).join(format!("{rest}.debug"));
    path.is_file().then_some(path)
}
