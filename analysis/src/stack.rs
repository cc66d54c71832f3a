//! Stacks made comparable: names without addresses, hashes and long generics; fingerprints; and whose code a stack is.
//!
//! `identity` says what counts for a fingerprint, which names a call path over builds, releases, hosts and tools.

mod identity;

pub use identity::{Identity, fingerprint, fingerprint_of};

use crate::result::Owner;
use pgsoak_proto::evidence::StackFrame;

/// Frames of a stack that are shown; deeper ones are the server's own entry path.
const SHOWN_DEPTH: usize = 40;

/// Longest function name that is kept, in characters.
const LONGEST_NAME: usize = 160;

/// Longest content of one pair of angle brackets that is kept, in characters.
const LONGEST_GENERIC: usize = 48;

/// Which shared objects belong to the extension under test.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExtensionImage {
    /// Names without `.so`, e.g. `pg_tviews`.
    names: Vec<String>,
}

impl ExtensionImage {
    /// From the names of extensions and preloaded libraries (`pg_tviews`, `$libdir/pg_tviews`, `pg_tviews.so`).
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<String> = names
            .into_iter()
            .map(|name| name.rsplit('/').next().unwrap_or(name))
            .map(|name| name.strip_suffix(".so").unwrap_or(name).to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        names.dedup();
        Self { names }
    }

    /// Whether the module (file name of an object) is the extension's: `NAME.so`, or `NAME-1.2.so` as versioned libraries are called.
    pub fn owns_module(&self, module: &str) -> bool {
        self.names.iter().any(|name| {
            module
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest == ".so" || rest.starts_with("-") && rest.ends_with(".so"))
        })
    }

    /// Whether the frame lies in the extension's shared object.
    ///
    /// Where the tool gave no module, a Rust path that starts with the crate's name tells it as well.
    pub fn owns(&self, frame: &StackFrame) -> bool {
        if !frame.module.is_empty() {
            return self.owns_module(&frame.module);
        }
        self.names.iter().any(|name| {
            frame
                .function
                .trim_start_matches('<')
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.starts_with("::"))
        })
    }
}

/// Demangles Rust symbols (legacy and v0) and drops their hash; other names come back as they are.
pub fn demangle(symbol: &str) -> String {
    match rustc_demangle::try_demangle(symbol) {
        Ok(name) => format!("{name:#}"),
        Err(_) => without_hash(symbol).to_owned(),
    }
}

/// A function's name without what differs between builds of one source: hashes, clone and version suffixes, long generics.
pub fn normal_function(function: &str) -> String {
    let name = demangle(function);
    let name = name.split("@@").next().unwrap_or(&name);
    let name = match name.split_once('@') {
        Some((before, version)) if version.starts_with("GLIBC") => before,
        _ => name,
    };
    let name = short_generics(without_clone_suffix(without_hash(name)));
    if name.chars().count() <= LONGEST_NAME {
        return name;
    }
    name.chars().take(LONGEST_NAME).chain(['…']).collect()
}

/// One line per frame, `function (module)`, innermost first; repeated frames of a recursion stand once.
pub fn normal_stack(stack: &[StackFrame]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for frame in stack.iter().take(SHOWN_DEPTH) {
        let function = if frame.function.is_empty() {
            "???".to_owned()
        } else {
            normal_function(&frame.function)
        };
        let line = if frame.module.is_empty() {
            function
        } else {
            format!("{function} ({})", frame.module)
        };
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Whose memory a stack allocates: the extension's when any frame is its own, else the innermost frame that is no allocator decides.
pub fn owner(stack: &[StackFrame], image: &ExtensionImage) -> Owner {
    if stack.iter().any(|frame| image.owns(frame)) {
        return Owner::Extension;
    }
    let first = stack.iter().find(|frame| !is_allocator(frame));
    match first {
        None => Owner::Unknown,
        Some(frame) if frame.module == "postgres" => Owner::Postgres,
        Some(frame) if frame.module.is_empty() => Owner::Unknown,
        Some(_) if stack.iter().any(|frame| frame.module == "postgres") => {
            // libc, libxml, libssl … called by the server: PostgreSQL asked for it.
            Owner::Postgres
        }
        Some(_) => Owner::Library,
    }
}

/// The function that a reader should look at: the extension's innermost own code, else the innermost that is no allocator.
pub fn telling_frame<'a>(
    stack: &'a [StackFrame],
    image: &ExtensionImage,
) -> Option<&'a StackFrame> {
    let own = || stack.iter().filter(|frame| image.owns(frame));
    own()
        .find(|frame| {
            // A function that stands in a header was inlined into the one to look at.
            !is_rust_library(&normal_function(&frame.function))
                && !is_dependency(&frame.file)
                && !frame.file.ends_with(".h")
        })
        .or_else(|| own().next())
        .or_else(|| stack.iter().find(|frame| !is_allocator(frame)))
        .or_else(|| stack.first())
}

/// Whether the frame is an allocation function of valgrind's, libc's or Rust's.
pub fn is_allocator(frame: &StackFrame) -> bool {
    if frame.module.starts_with("vgpreload_") || frame.module.starts_with("libheaptrack") {
        return true;
    }
    matches!(
        frame.function.as_str(),
        "malloc"
            | "calloc"
            | "realloc"
            | "memalign"
            | "aligned_alloc"
            | "posix_memalign"
            | "strdup"
            | "strndup"
            | "__rust_alloc"
            | "__rust_realloc"
            | "__rust_alloc_zeroed"
            | "__rdl_alloc"
            | "__rdl_realloc"
            | "__rdl_alloc_zeroed"
    )
}

/// Whether a function of PostgreSQL's gives out memory of contexts, or takes blocks for them from malloc: `AllocSetAlloc`, `palloc0`. Every backend calls
/// some before its first statement.
pub fn allocates_in_contexts(function: &str) -> bool {
    ["AllocSet", "Slab", "Generation", "Bump", "MemoryContext", "palloc", "repalloc"]
        .iter()
        .any(|prefix| function.starts_with(prefix))
}

/// Whether a normalised name is of Rust's own library (std, alloc, core and what they are built of) or of pgrx, which stands between
/// an extension and the server.
pub fn is_rust_library(function: &str) -> bool {
    let path = function.trim_start_matches(['<', '&', '[', '(']);
    // A trait of pgrx's for a type of Rust's own; for one of the extension's it is the extension's code.
    if let Some((of, _)) = path.split_once(" as pgrx::")
        && !of.contains("::")
    {
        return true;
    }
    [
        "alloc::",
        "core::",
        "std::",
        "hashbrown::",
        "__rust_",
        "__rdl_",
        "__rg_",
        "rustc_",
        "pgrx::",
        "pgrx_pg_sys::",
        "pg_guard_ffi_boundary",
        "cee_scape::",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

/// A source file's path without what differs between hosts: `library/alloc/src/vec/mod.rs`, `pgrx-0.17.0/src/spi.rs`, `src/refresh.rs`; else the
/// name alone.
pub fn short_file(path: &str) -> String {
    let after = |part: &str| path.rsplit_once(part).and_then(|(_, rest)| rest.split_once('/'));
    if let Some((_, rest)) = after("/rustc/").or_else(|| after("/registry/src/")) {
        return rest.to_owned();
    }
    if let Some((_, rest)) = path.split_once("/rust/deps/") {
        return rest.to_owned();
    }
    if let Some((before, rest)) = path.rsplit_once("/out/")
        && let Some((_, package)) = before.rsplit_once("/build/")
    {
        let package = package.rsplit_once('-').map_or(package, |(name, _)| name);
        return format!("{package}/out/{rest}");
    }
    let name = || path.rsplit('/').next().unwrap_or_default().to_owned();
    let is_rust = path.ends_with(".rs");
    match path.rsplit_once("/src/") {
        Some((_, rest)) if is_rust => format!("src/{rest}"),
        None if is_rust && path.starts_with("src/") => path.to_owned(),
        _ => name(),
    }
}

/// Whether a file, as [`short_file`] gives it, is of Rust's library or of a crate that was fetched or generated.
pub fn is_dependency(file: &str) -> bool {
    let Some((folder, rest)) = file.split_once('/') else { return is_bindings(file) };
    let version = folder.rsplit('-').next().unwrap_or_default();
    folder == "library"
        || PGRX_GLUE.contains(&file)
        || rest.starts_with("out/")
        || (version.len() < folder.len()
            && version.starts_with(|first: char| first.is_ascii_digit()))
}

/// pgrx's ways into PostgreSQL and out of it, which stand in every stack of an extension in Rust. valgrind gives them as from their own
/// crate's folder, without its name.
const PGRX_GLUE: [&str; 7] = [
    "src/submodules/ffi.rs",
    "src/submodules/panic.rs",
    "src/submodules/thread_check.rs",
    "src/spi/client.rs",
    "src/spi/cursor.rs",
    "src/spi/query.rs",
    "src/spi/tuple.rs",
];

/// `pg18.rs`: pgrx's generated bindings, where a tool gives the file's name alone.
fn is_bindings(file: &str) -> bool {
    file.strip_prefix("pg")
        .and_then(|rest| rest.strip_suffix(".rs"))
        .is_some_and(|major| !major.is_empty() && major.bytes().all(|b| b.is_ascii_digit()))
}

fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash))
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            path
        }
        _ => name,
    }
}

/// Cuts `.constprop.0`, `.isra.0`, `.part.3`, `.cold`, `.llvm.123` and the like.
fn without_clone_suffix(name: &str) -> &str {
    let cut = [".constprop", ".isra", ".part.", ".cold", ".llvm.", ".lto_priv"]
        .iter()
        .filter_map(|suffix| name.find(suffix))
        .filter(|at| *at > 0)
        .min();
    cut.and_then(|at| name.get(..at)).unwrap_or(name)
}

/// Keeps the outer pair of angle brackets, its content short; what is nested deeper becomes `…`.
fn short_generics(name: &str) -> String {
    if name.contains("operator") {
        return name.to_owned();
    }
    let mut out = String::with_capacity(name.len());
    let mut inner = String::new();
    let mut depth = 0_u32;
    let mut before = ' ';
    for letter in name.chars() {
        let closes = letter == '>' && before != '-' && before != '=';
        match (letter, depth) {
            ('<', 0) => {
                depth = 1;
                out.push('<');
                inner.clear();
            }
            ('<', _) => {
                if depth == 1 {
                    inner.push_str("<…>");
                }
                depth += 1;
            }
            (_, 1) if closes => {
                depth = 0;
                push_short(&mut out, &inner);
                out.push('>');
            }
            (_, 2..) if closes => depth -= 1,
            (_, 0) => out.push(letter),
            (_, 1) => inner.push(letter),
            _ => {}
        }
        before = letter;
    }
    if depth > 0 {
        push_short(&mut out, &inner);
    }
    out
}

fn push_short(out: &mut String, inner: &str) {
    if inner.chars().count() <= LONGEST_GENERIC || inner.contains(" as ") {
        out.push_str(inner);
    } else {
        out.extend(inner.chars().take(LONGEST_GENERIC));
        out.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str) -> StackFrame {
        StackFrame { function: function.into(), module: module.into(), ..StackFrame::default() }
    }

    #[test]
    fn files_lose_what_differs_between_hosts() {
        for (path, short, is_foreign) in [
            ("/rustc/59807616e1fa/library/alloc/src/alloc.rs", "library/alloc/src/alloc.rs", true),
            (
                "/root/.cargo/registry/src/index-1/pgrx-0.17.0/src/spi.rs",
                "pgrx-0.17.0/src/spi.rs",
                true,
            ),
            ("/rust/deps/hashbrown-0.16.1/src/raw.rs", "hashbrown-0.16.1/src/raw.rs", true),
            ("/c/release/build/pgrx-pg-sys-d28793/out/pg18.rs", "pgrx-pg-sys/out/pg18.rs", true),
            ("/home/x/pg_tviews/src/refresh/main.rs", "src/refresh/main.rs", false),
            ("src/lib.rs", "src/lib.rs", false),
            ("pg18.rs", "pg18.rs", true),
            ("pg_tviews.rs", "pg_tviews.rs", false),
            ("./build/../src/backend/utils/mmgr/aset.c", "aset.c", false),
            ("", "", false),
        ] {
            assert_eq!(short_file(path), short);
            assert_eq!(is_dependency(short), is_foreign, "{short}");
        }
    }

    #[test]
    fn names_lose_what_differs_between_builds() {
        assert_eq!(
            normal_function("_ZN9pg_tviews7refresh4main17h0123456789abcdefE"),
            "pg_tviews::refresh::main"
        );
        assert_eq!(normal_function("_RNvCs6DXkGYLi8lr_9pg_tviews7refresh"), "pg_tviews::refresh");
        assert_eq!(
            normal_function("pg_tviews::refresh::main::h0123456789abcdef"),
            "pg_tviews::refresh::main"
        );
        assert_eq!(normal_function("puts@@GLIBC_2.2.5"), "puts");
        assert_eq!(normal_function("ExecScan.constprop.0"), "ExecScan");
        assert_eq!(normal_function("f<A<B<C>>>::g"), "f<A<…>>::g");
        assert_eq!(normal_function("<fn() -> u8 as T>::call"), "<fn() -> u8 as T>::call");
    }

    #[test]
    fn line_numbers_and_recursion_do_not_change_a_fingerprint() {
        let mut stack =
            vec![frame("malloc", "x.so"), frame("walk", "x.so"), frame("main", "postgres")];
        let first = fingerprint(&stack);
        stack[1].line = 17;
        stack.insert(1, frame("walk", "x.so"));
        assert_eq!(fingerprint(&stack), first);
        stack[1].function = "other".into();
        assert_ne!(fingerprint(&stack), first);
    }

    #[test]
    fn a_frame_of_the_extension_makes_the_stack_its_own() {
        let image = ExtensionImage::new(["$libdir/pg_tviews", "pg_tviews"]);
        let theirs =
            [frame("malloc", "vgpreload_memcheck-amd64-linux.so"), frame("palloc", "postgres")];
        assert_eq!(owner(&theirs, &image), Owner::Postgres);
        let ours = [frame("malloc", ""), frame("palloc", "postgres"), frame("x", "pg_tviews.so")];
        assert_eq!(owner(&ours, &image), Owner::Extension);
        assert!(!image.owns_module("pg_tviews_extra.so"));
        assert!(image.owns_module("pg_tviews-1.0.so"));
        assert!(image.owns(&frame("pg_tviews::queue::push", "")));
        assert!(!image.owns(&frame("pg_tviews_other::queue::push", "")));
        assert_eq!(owner(&[frame("malloc", "")], &image), Owner::Unknown);
        assert_eq!(owner(&[frame("xmlNew", "libxml2.so.2")], &image), Owner::Library);
    }

    #[test]
    fn the_telling_frame_is_the_extensions_own_code() {
        let image = ExtensionImage::new(["e"]);
        let stack = [
            frame("malloc", "vgpreload_memcheck-amd64-linux.so"),
            frame("alloc::vec::Vec<u8>::push", "e.so"),
            frame("e::cache::insert", "e.so"),
            frame("ExecMakeFunctionResult", "postgres"),
        ];
        assert_eq!(telling_frame(&stack, &image).unwrap().function, "e::cache::insert");
    }

    #[test]
    fn the_way_through_pgrx_tells_nothing() {
        let image = ExtensionImage::new(["pg_tviews"]);
        let at = |function: &str, file: &str| StackFrame {
            file: file.to_owned(),
            ..frame(function, "pg_tviews.so")
        };
        // As valgrind gives it: files as from their own crate's folder, inlined functions without their paths.
        let stack = [
            frame("malloc", "vgpreload_memcheck-amd64-linux.so"),
            frame("SPI_prepare_cursor", "postgres"),
            at("{closure#0}", "pg18.rs"),
            at(
                "{closure#0}<*mut pgrx_pg_sys::include::pg18::_SPI_plan, x>",
                "src/submodules/ffi.rs",
            ),
            at("cee_scape::asm_based::call_with_sigsetjmp", "src/asm_based.rs"),
            at("pg_guard_ffi_boundary<*mut pgrx_pg_sys::include::pg18::_SPI_plan, x>", "ffi.rs"),
            at("SPI_prepare", "pg18.rs"),
            at("pgrx::spi::query::prepare", "src/spi/query.rs"),
            at("<&str as pgrx::spi::query::PreparableQuery>::prepare_mut", "query.rs"),
            at("prepare_mut<&str>", "src/spi/client.rs"),
            at("pg_tviews::utils::spi::statement", "src/utils/spi.rs"),
        ];
        let told = telling_frame(&stack, &image).unwrap();
        assert_eq!(told.function, "pg_tviews::utils::spi::statement");
        assert!(!is_rust_library("<pg_tviews::Cache as pgrx::shmem::PGRXSharedMemory>::grow"));
    }

    proptest::proptest! {
        #[test]
        fn no_name_breaks_it(name in ".{0,300}") {
            let once = normal_function(&name);
            proptest::prop_assert!(once.chars().count() <= LONGEST_NAME + 1);
        }
    }
}
