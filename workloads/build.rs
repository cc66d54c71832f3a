//! Lists the workload and plan files that come with pgsoak, so that the binary holds them.
//!
//! Only `*.toml` directly in `library`, `faults` and `plans`; a build of the C extension beside them stays out.

use std::{env, error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root = env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&root);
    let mut code = String::new();
    for (constant, folders) in [("WORKLOADS", &["library", "faults"][..]), ("PLANS", &["plans"])] {
        let mut files = Vec::new();
        for folder in folders {
            let folder = root.join(folder);
            println!("cargo:rerun-if-changed={}", folder.display());
            if !folder.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let stem = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
                if let Some(stem) = stem
                    && path.extension().is_some_and(|extension| extension == "toml")
                {
                    println!("cargo:rerun-if-changed={}", path.display());
                    files.push((stem, path));
                }
            }
        }
        files.sort();
        if let Some([(name, first), (_, second)]) =
            files.windows(2).find(|pair| matches!(pair, [a, b] if a.0 == b.0))
        {
            return Err(format!(
                "two files are called {name}: {} and {}",
                first.display(),
                second.display()
            )
            .into());
        }
        writeln!(code, "pub(super) static {constant}: &[(&str, &str)] = &[")?;
        for (name, path) in &files {
            writeln!(code, "    ({name:?}, include_str!({:?})),", path.display().to_string())?;
        }
        writeln!(code, "];")?;
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("files.rs"), code)?;
    Ok(())
}
