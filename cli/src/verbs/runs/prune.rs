//! `pgsoak runs prune`: removes finished runs that are over an age, a number or a size.

use crate::args::Where;
use crate::connect;
use crate::exit::{self, Coded};
use crate::show::words;
use crate::verbs;
use clap::Args;
use comfy_table::{Table, presets};
use pgsoak_proto::wire;
use std::time::Duration;

/// `runs prune`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak runs prune --older-than 90d --dry-run\n  pgsoak runs prune --keep 1000 --max-bytes 50GB\n\nThe oldest go first, and no more than the limits ask for. Pinned runs, baselines that somebody set, and runs that are not\nfinished never go. What the history learnt of leak signatures stays."
)]
pub struct PruneArgs {
    /// Runs that have been over for longer than this.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,
    /// The oldest, until so many finished ones are left.
    #[arg(long, value_name = "RUNS")]
    pub keep: Option<u64>,
    /// The oldest, until all runs together take no more than this (50GB, 512MB).
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_bytes: Option<u64>,
    /// Only say which.
    #[arg(long)]
    pub dry_run: bool,
    /// For programs: a line a run.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// Bytes, in decimal units.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000_u64,
        other => return Err(format!("'{other}' is none of B, KB, MB, GB, TB")),
    };
    let number: u64 =
        digits.trim().parse().map_err(|_| format!("'{text}' is no size such as 50GB"))?;
    number.checked_mul(unit).ok_or_else(|| format!("'{text}' is too large"))
}

pub async fn run(args: PruneArgs) -> anyhow::Result<u8> {
    if args.older_than.is_none() && args.keep.is_none() && args.max_bytes.is_none() {
        return Err(Coded::usage("say what may stay: --older-than, --keep or --max-bytes").into());
    }
    let request = wire::PruneRequest {
        max_age_seconds: args.older_than.map(|age| age.as_secs()),
        max_runs: args.keep,
        max_bytes: args.max_bytes,
        dry_run: args.dry_run,
    };
    let found = verbs::with_channel(&args.at, async |channel| {
        let answer = connect::history(channel).prune(request).await;
        Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
    })
    .await?;
    if args.json {
        for of in &found.runs {
            verbs::print_json(&serde_json::json!({
                "run": of.run_id, "plan": of.plan, "why": of.why, "bytes": of.bytes,
                "submitted_at_unix_us": of.submitted_at_unix_us, "is_removed": !args.dry_run,
            }))?;
        }
        return Ok(exit::PASS);
    }
    if !found.runs.is_empty() {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "Run",
            "Plan",
            "Submitted",
            "Takes",
            "Why",
        ]);
        for of in &found.runs {
            table.add_row([
                of.run_id.clone(),
                of.plan.clone(),
                words::time(of.submitted_at_unix_us),
                bytes(of.bytes),
                of.why.clone(),
            ]);
        }
        verbs::print(&format!("{table}\n"))?;
    }
    let gone: u64 = found.runs.iter().map(|of| of.bytes).sum();
    let word = if args.dry_run { "would go" } else { "gone" };
    verbs::print(&format!(
        "{} of {} runs {word} ({} of {}); {} are pinned or baselines\n",
        found.runs.len(),
        found.total,
        bytes(gone),
        bytes(found.total_bytes),
        found.protected
    ))?;
    Ok(exit::PASS)
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn bytes(bytes: u64) -> String {
    words::bytes(bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_taken_as_people_write_them() {
        assert_eq!(size("50GB").unwrap(), 50_000_000_000);
        assert_eq!(size("512mb").unwrap(), 512_000_000);
        assert_eq!(size("7").unwrap(), 7);
        for bad in ["", "GB", "5XB", "99999999999TB", "-1GB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
