//! `pgsoak report`: what a run came to.

use crate::args::{Format, ReportArgs};
use crate::exit;
use crate::verbs;
use crate::verbs::submit;
use pgsoak_proto::wire;

pub async fn run(args: ReportArgs) -> anyhow::Result<u8> {
    let format = match (args.json, args.format) {
        (true, _) | (_, Format::Json) => wire::ReportFormat::Json,
        (_, Format::Md) => wire::ReportFormat::Markdown,
        (_, Format::Html) => wire::ReportFormat::Html,
        (_, Format::Junit) => wire::ReportFormat::Junit,
    };
    let text = verbs::with_control(&args.at, async |control| {
        let run = verbs::run_named(control, &args.run).await?;
        submit::report_text(control, &run, format, args.replay).await
    })
    .await?;
    verbs::print(&format!("{}\n", text.trim_end()))?;
    Ok(exit::PASS)
}
