//! The log on standard error, with a filter that can be changed while the program runs.

use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::{
    EnvFilter, Registry, fmt,
    layer::SubscriberExt as _,
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins logging: by `filter`, else by PGSOAK_LOG, else by `default`. Called once.
pub fn begin(filter: Option<&str>, default: &str) {
    let variable = std::env::var("PGSOAK_LOG").ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::new(filter.or(variable.as_deref()).unwrap_or(default));
    let (filter, handle) = reload::Layer::new(filter);
    let lines =
        fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second subscriber cannot be there: this is called once.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    let _ = FILTER.set(handle);
}

/// From now on by this filter.
///
/// # Errors
///
/// When it is none.
pub fn change(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    if let Some(handle) = FILTER.get() {
        handle.reload(filter)?;
    }
    Ok(())
}
