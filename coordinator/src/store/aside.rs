//! Damaged evidence is moved out of the way, never thrown away.

use crate::store::open::sync_folder;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Moves the folder out of the way, under a name that is free, durably.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut number = 1_u32;
    loop {
        let aside = path.with_file_name(format!("{name}.damaged-{number}"));
        if !aside.exists() {
            fs::rename(path, &aside)?;
            if let Some(parent) = path.parent() {
                sync_folder(parent)?;
            }
            return Ok(aside);
        }
        number += 1;
    }
}

/// A database that was begun afresh earlier stays one that lacks something: a sentence for it.
pub(super) fn set_aside_before(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let aside = path.with_file_name(format!("{name}.damaged-1"));
    aside.exists().then(|| {
        format!(
            "its stored evidence was damaged earlier and set aside as {}; agents were asked for it again",
            aside.display()
        )
    })
}
