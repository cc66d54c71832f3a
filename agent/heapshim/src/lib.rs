//! Preload library for a PostgreSQL server: starts heaptrack anew in every process that it forks.
//!
//! heaptrack mutes itself in forked children, and every backend is one. So the server does not run under heaptrack at all; this library
//! registers a handler for forks (`pthread_atfork`), which in the child loads heaptrack's library for running processes and has it write to
//! `$PGSOAK_HEAPTRACK_FOLDER/ht.<pid>.raw`. The postmaster itself is not profiled. Any other program that inherits the preload (a shell that the
//! server calls) is left alone, and so are grandchildren. Nothing here allocates before a fork but the two paths, and nothing panics.
//!
//! No dependency: the library goes into somebody else's process, and four functions of libc are all it needs.

#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_void},
    os::unix::{ffi::OsStrExt, process::parent_id},
    path::Path,
    process,
    sync::OnceLock,
};

/// Path of `libheaptrack_inject.so`.
const INJECT: &str = "PGSOAK_HEAPTRACK_INJECT";
/// Where the raw files go.
const FOLDER: &str = "PGSOAK_HEAPTRACK_FOLDER";
/// File name of the only program whose children are profiled.
const PROGRAM: &str = "postgres";

/// `RTLD_NOW` of Linux's `<dlfcn.h>`: symbols that are missing show at once.
const RTLD_NOW: c_int = 2;

/// `heaptrack_inject` of heaptrack's `libheaptrack.h`: hooks the allocator of the running process.
type Inject = unsafe extern "C" fn(output: *const c_char);

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
    fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Read once, before PostgreSQL overwrites its environment to show its process title.
struct Settings {
    postmaster: u32,
    inject: CString,
    folder: Vec<u8>,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

// SAFETY: the loader calls the functions of this section once, in the process's only thread, after this library and those it needs
// are relocated; the entry has the type that the loader expects and never unwinds.
#[unsafe(link_section = ".init_array")]
#[used]
static CONSTRUCTOR: extern "C" fn() = register;

extern "C" fn register() {
    let Some(settings) = settings() else { return };
    if SETTINGS.set(settings).is_err() {
        return;
    }
    // SAFETY: `in_child` is a function of this library, which is never unloaded (a preload), and the other two are absent. A failure
    // (out of memory) means that nothing is profiled, which the tool's coverage shows.
    let _ = unsafe { pthread_atfork(None, None, Some(in_child)) };
}

/// `None`: this process is no server, or nobody asked.
fn settings() -> Option<Settings> {
    let program = env::current_exe().ok()?;
    if program.file_name() != Path::new(PROGRAM).file_name() {
        return None;
    }
    Some(Settings {
        postmaster: process::id(),
        inject: CString::new(env::var_os(INJECT)?.as_bytes()).ok()?,
        folder: env::var_os(FOLDER)?.as_bytes().to_vec(),
    })
}

/// Runs in every forked child before it does anything of its own.
extern "C" fn in_child() {
    let Some(settings) = SETTINGS.get() else { return };
    // A grandchild: heaptrack runs in its parent, and a second start in the copy would mix two files.
    if parent_id() != settings.postmaster {
        return;
    }
    let mut output = settings.folder.clone();
    output.extend_from_slice(format!("/ht.{}.raw", process::id()).as_bytes());
    let Ok(output) = CString::new(output) else { return };
    if let Some(inject) = load(&settings.inject) {
        // SAFETY: the function is heaptrack's own with this signature; it copies the path before it returns. The child has one
        // thread, so no allocation is under way while its hooks are put in place.
        unsafe { inject(output.as_ptr()) };
    }
}

/// heaptrack's entry; `None`: not there, or another library.
fn load(path: &CStr) -> Option<Inject> {
    // SAFETY: the path is a valid C string. The library's own constructors do nothing before `heaptrack_inject` is called; glibc makes its
    // loader usable in a forked child of a process with one thread, as the postmaster is.
    let library = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
    if library.is_null() {
        return None;
    }
    // SAFETY: the handle is a live one from `dlopen`, and the name is a valid C string.
    let symbol = unsafe { dlsym(library, c"heaptrack_inject".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: a symbol of this name is heaptrack's function of type `Inject` (libheaptrack.h, since 1.0), and pointers to functions
    // and to data have the same size and form on Linux.
    Some(unsafe { std::mem::transmute::<*mut c_void, Inject>(symbol) })
}
