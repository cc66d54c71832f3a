//! Judges folders and files of series: one line of JSON each, in order. What `pgsoak judge` does, without the rest.

use pgsoak_analysis::judge::judge_path;
use std::{
    env,
    error::Error,
    io::{self, Write},
    path::Path,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for path in env::args_os().skip(1) {
        let judged = judge_path(Path::new(&path))?;
        writeln!(out, "{}", serde_json::to_string(&judged)?)?;
    }
    Ok(())
}
