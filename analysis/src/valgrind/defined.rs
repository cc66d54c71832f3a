//! Which of some shared objects defines a function: gives frames a module that valgrind names by their source alone.
//!
//! An address tells it better, but only while the process lives and somebody has read its mappings: a worker that lives for one query is gone before.

use crate::stack::demangle;
use object::{Object, ObjectSymbol};
use pgsoak_proto::evidence::StackFrame;
use std::{collections::HashMap, fs, path::Path};

/// Largest object that is read, bytes: with all its debug information an extension in Rust comes to some hundred megabytes.
const LARGEST: u64 = 1 << 30;

/// Functions of some objects, by name.
#[derive(Clone, Debug, Default)]
pub struct DefinedFunctions {
    /// Demangled name → file name of the object.
    modules: HashMap<String, String>,
}

// === impl DefinedFunctions ===

impl DefinedFunctions {
    /// Reads the symbol tables of objects; one that cannot be read defines nothing. A name that two of them define belongs to neither.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut modules: HashMap<String, String> = HashMap::new();
        for path in paths {
            let Some(module) = path.file_name().and_then(|name| name.to_str()) else { continue };
            for name in functions(path) {
                let known = modules.entry(name).or_insert_with(|| module.to_owned());
                if known != module {
                    known.clear();
                }
            }
        }
        modules.retain(|_, module| !module.is_empty());
        Self { modules }
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// Puts modules into frames that have none and name a source.
    pub fn complete(&self, stack: &mut [StackFrame]) {
        for frame in stack.iter_mut().filter(|f| f.module.is_empty() && !f.file.is_empty()) {
            if let Some(module) = self.modules.get(&frame.function) {
                frame.module.clone_from(module);
            }
        }
    }
}

/// Names of the functions that an object defines, demangled.
fn functions(path: &Path) -> Vec<String> {
    let is_small = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST);
    let Some(data) = is_small.then(|| fs::read(path).ok()).flatten() else { return Vec::new() };
    let Ok(file) = object::File::parse(&*data) else { return Vec::new() };
    file.symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.is_definition() && symbol.kind() == object::SymbolKind::Text)
        .filter_map(|symbol| symbol.name().ok().map(demangle))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_with_a_source_get_the_object_that_defines_them() {
        let this = std::env::current_exe().unwrap();
        let defined = DefinedFunctions::of([this.as_path(), Path::new("/nowhere.so")]);
        assert!(!defined.is_empty());
        let frame = |function: &str, file: &str| StackFrame {
            function: function.into(),
            file: file.into(),
            ..StackFrame::default()
        };
        let mut stack = [frame("main", "x.c"), frame("main", ""), frame("no_such_function", "x.c")];
        defined.complete(&mut stack);
        let name = this.file_name().unwrap().to_str().unwrap();
        assert_eq!(stack.map(|frame| frame.module), [name, "", ""]);
    }
}
