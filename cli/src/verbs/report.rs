//! `pgsoak report`: what a run came to.

use crate::args::{Format, ReportArgs};
use crate::connect;
use crate::exit;
use crate::verbs;
use pgsoak_proto::wire;
use std::io::Write;

pub async fn run(args: ReportArgs) -> anyhow::Result<u8> {
    let format = match (args.json, args.format) {
        (true, _) | (_, Format::Json) => wire::ReportFormat::Json,
        (_, Format::Md) => wire::ReportFormat::Markdown,
        (_, Format::Html) => wire::ReportFormat::Html,
        (_, Format::Junit) => wire::ReportFormat::Junit,
    };
    let report = verbs::with_control(&args.at, async |control| {
        let run = verbs::run_named(control, &args.run).await?;
        let request =
            wire::GetReportRequest { run_id: run, format: format.into(), replay: args.replay };
        let answer =
            control.get_report(request).await.map_err(|status| connect::explain(&status))?;
        Ok(answer.into_inner())
    })
    .await?;
    verbs::print(&format!("{}\n", report.text.trim_end()))?;
    if args.replay {
        let says = match report.replay.as_str() {
            "same" => "judged again: the same result, byte for byte".to_owned(),
            differs => format!("judged again, with a different result: {differs}"),
        };
        writeln!(std::io::stderr(), "{says}")?;
    }
    Ok(exit::PASS)
}
