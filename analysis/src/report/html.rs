//! One page that needs nothing else: no script, no font, no image from anywhere. With the run's evidence it has charts.

use crate::evidence::RunEvidence;
use crate::figures::capital;
use crate::report::charts::charts;
use crate::report::memory::{CAPTURES, LEDGER, LEDGER_WORDS};
use crate::report::{
    HOLDERS, SUPPRESSIONS, Table, UNSEEN, attributions, budgets, captures, comparisons, detects,
    environment, findings, holders, horizon, jobs, ledgers, matter, parameters, place,
    suppressions, unseen, word,
};
use crate::result::{Finding, RunResult, Verdict};

/// Most different lists of settings that are shown.
const MOST_SETTINGS: usize = 20;

const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#fff;--card:#f7f8fa;--ink:#1c1e21;--soft:#5c636b;--line:#dde1e6;--fail:#b3261e;--invalid:#8a4b00;--inconclusive:#6b5b00;--pass:#1b6e37;\
--candidate:#1f5fd0;--baseline:#c2560a;--control:#7a828b;--w0:#1f5fd0;--w1:#c2560a;--w2:#198a5c;--w3:#8a3fc4;--w4:#b81f66;--w5:#7d6a00}
@media(prefers-color-scheme:dark){:root{--ground:#15181c;--card:#1c2026;--ink:#e8eaed;--soft:#a2a9b1;--line:#343a41;--fail:#ff8a80;--invalid:#ffb866;--inconclusive:#e6d366;--pass:#7ddc9b;\
--candidate:#7fb0ff;--baseline:#ffa25c;--control:#98a1ab;--w0:#7fb0ff;--w1:#ffa25c;--w2:#5fd3a1;--w3:#c79bff;--w4:#ff8fbb;--w5:#d9c95a}}
@media print{:root{--ground:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb}body{max-width:none;padding:0}figure,tr,li,h2,h3{break-inside:avoid}h2,h3{break-after:avoid}.charts{display:block}figure{margin-bottom:10px}details:not([open])>*{display:block}}
*{box-sizing:border-box}body{background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1180px;padding:24px}
.verdict{border-left:6px solid currentColor;padding:2px 0 2px 16px;margin-bottom:16px}.verdict p{color:var(--ink);margin:4px 0}
h1{font-size:26px;line-height:1.25;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px;padding-bottom:4px;border-bottom:1px solid var(--line)}h3{font-size:16px;margin:20px 0 4px}
.fail{color:var(--fail)}.invalid{color:var(--invalid)}.inconclusive{color:var(--inconclusive)}.pass{color:var(--pass)}
.soft,.verdict p.soft{color:var(--soft)}.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;width:100%;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid var(--line);padding:4px 12px 4px 0;text-align:left;vertical-align:top}th{color:var(--soft);font-weight:600;white-space:nowrap}
pre{background:var(--card);border:1px solid var(--line);overflow-x:auto;padding:8px 12px;font-size:12px;border-radius:6px}
ol{padding-left:22px}ol li{margin-bottom:10px}summary{cursor:pointer;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(500px,100%),1fr));gap:16px}
figure{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:0;padding:12px 14px;min-width:0}
figure p{font-size:12px;margin:6px 0 0;line-height:1.4}figcaption{font-size:13px}figure>svg{display:block;width:100%;height:auto}
.key{display:inline-flex;align-items:center;gap:5px;margin-right:14px;color:var(--soft);font-size:12px}.key svg{width:22px;height:8px}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg text.note{font-size:10px}
.grid{stroke:var(--line);fill:none}.axis{stroke:var(--soft);fill:none}.band{fill:var(--ink);opacity:.035}.band.loop{opacity:.075}.band.warm{fill:var(--inconclusive);opacity:.14}
.line{fill:none;stroke:var(--soft);stroke-width:1.8;stroke-linejoin:round}.line.thin{stroke-width:1;opacity:.35}.line:hover{stroke-width:3.2;opacity:1}.line.server{stroke-width:1;opacity:.55}.line.main{stroke:var(--ink);stroke-width:1.2}
.line.candidate{stroke:var(--candidate)}.line.baseline{stroke:var(--baseline)}.line.control{stroke:var(--control)}.line.fit{stroke:var(--ink);stroke-width:1.3;stroke-dasharray:5 4}
.area.interval{fill:var(--candidate);opacity:.2}.area.stack-rest{fill:var(--control);opacity:.45}.area.stack-0{fill:var(--w0);opacity:.65}.area.stack-1{fill:var(--w2);opacity:.65}.area.stack-2{fill:var(--w3);opacity:.65}\
.area.stack-malloc{fill:var(--w1);opacity:.7}.area.stack-slack{fill:var(--w5);opacity:.5}.area.stack-unknown{fill:var(--soft);opacity:.28}.line.key-stack-rest{stroke:var(--control);stroke-width:7}.line.key-stack-0{stroke:var(--w0);stroke-width:7}\
.line.key-stack-1{stroke:var(--w2);stroke-width:7}.line.key-stack-2{stroke:var(--w3);stroke-width:7}.line.key-stack-malloc{stroke:var(--w1);stroke-width:7}.line.key-stack-slack{stroke:var(--w5);stroke-width:7;opacity:.6}.line.key-stack-unknown{stroke:var(--soft);stroke-width:7;opacity:.4}.line.w0{stroke:var(--w0)}.line.w1{stroke:var(--w1)}.line.w2{stroke:var(--w2)}.line.w3{stroke:var(--w3)}.line.w4{stroke:var(--w4)}.line.w5{stroke:var(--w5)}";

/// The report; with the evidence that it was judged from, it has charts and the parameters of the jobs.
pub fn to_html(result: &RunResult, evidence: Option<&RunEvidence>) -> String {
    let verdict = word(result.verdict);
    let sentence = result.sentence.split_once(": ").map_or("", |(_, reason)| reason);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{verdict} · {plan}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <div class=\"verdict {verdict}\">\n<h1>{} · {plan}</h1>\n<p>{}</p>\n",
        verdict.to_uppercase(),
        escaped(sentence.trim_start_matches([':', ' '])),
        plan = escaped(&result.plan),
    );
    let detects = detects(result);
    if !detects.is_empty() {
        text.push_str(&format!("<p class=\"soft\">{}</p>\n", escaped(&detects)));
    }
    text.push_str(&format!(
        "<p class=\"soft\">Run <code>{}</code>, judged by engine {}.</p>\n</div>\n",
        result.run, result.engine
    ));
    section_of_matter(&mut text, result);
    if let Some(evidence) = evidence {
        text.push_str(&charts(evidence));
    }
    section(&mut text, "Budgets", &budgets(result));
    section(&mut text, "Memory ahead", &horizon(result));
    section(&mut text, "Release against release", &comparisons(result));
    section(&mut text, "Findings", &findings(result));
    for finding in &result.findings {
        told(&mut text, finding);
    }
    section(&mut text, LEDGER, &attributions(result));
    if !result.attributions.is_empty() {
        text.push_str(&format!("<p class=\"soft\">{}</p>\n", escaped(LEDGER_WORDS)));
    }
    section(&mut text, CAPTURES, &captures(result));
    section(&mut text, HOLDERS, &holders(result));
    section(&mut text, SUPPRESSIONS, &suppressions(result));
    section(&mut text, UNSEEN, &unseen(result));
    section(&mut text, "Jobs", &jobs(result));
    section(&mut text, "Ledger", &ledgers(result));
    section(&mut text, "Environment", &environment(result));
    if let Some(evidence) = evidence {
        section(&mut text, "Parameters", &parameters(evidence));
        server_settings(&mut text, evidence);
    }
    for job in result.jobs.iter().filter(|job| !job.server_log_tail.trim().is_empty()) {
        text.push_str(&format!(
            "<h3>Last words of the server: {}, {}, {}</h3>\n<pre>{}</pre>\n",
            escaped(&job.workload),
            job.tool,
            escaped(&job.build),
            escaped(job.server_log_tail.trim_end())
        ));
    }
    text.push_str("</body>\n</html>\n");
    text
}

/// What each server's settings were, where they differ from their boot values; equal ones once.
fn server_settings(text: &mut String, evidence: &RunEvidence) {
    let mut known: Vec<(String, Vec<String>)> = Vec::new();
    for job in &evidence.jobs {
        let Some(started) = &job.attempt.started else { continue };
        let lines: Vec<String> =
            started.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let settings = lines.join("\n");
        if settings.is_empty() {
            continue;
        }
        let name = format!("{} ({}, {})", job.workload.name, job.spec.tool, job.spec.arm);
        match known.iter_mut().find(|(same, _)| *same == settings) {
            Some((_, names)) => names.push(name),
            None => known.push((settings, vec![name])),
        }
    }
    for (settings, names) in known.iter().take(MOST_SETTINGS) {
        text.push_str(&format!(
            "<details><summary>Settings of the server: {}</summary>\n<pre>{}</pre></details>\n",
            escaped(&names.join(", ")),
            escaped(settings)
        ));
    }
}

fn section_of_matter(text: &mut String, result: &RunResult) {
    let first = matter(result);
    if first.is_empty() {
        return;
    }
    text.push_str("<h2>What matters</h2>\n<ol>\n");
    for finding in first {
        let verdict = word(finding.verdict);
        text.push_str(&format!(
            "<li><strong class=\"{verdict}\">{}: {}</strong> <span class=\"soft\">{}</span><br>{}</li>\n",
            capital(verdict),
            escaped(&finding.subject),
            escaped(&place(finding)),
            escaped(&finding.message)
        ));
    }
    text.push_str("</ol>\n");
}

fn section(text: &mut String, title: &str, table: &Table) {
    if table.rows.is_empty() {
        return;
    }
    text.push_str(&format!("<h2>{title}</h2>\n<div class=\"wide\"><table>\n<tr>"));
    for column in &table.columns {
        text.push_str(&format!("<th>{}</th>", escaped(column)));
    }
    text.push_str("</tr>\n");
    for row in &table.rows {
        text.push_str("<tr>");
        for cell in row {
            let class = match cell.split([' ', ':']).next().unwrap_or_default() {
                "fail" | "OVER" | "WORSE" => " class=\"fail\"",
                "invalid" => " class=\"invalid\"",
                "inconclusive" => " class=\"inconclusive\"",
                "pass" | "within" | "better" => " class=\"pass\"",
                _ => "",
            };
            // "5.00 MB" on one line.
            let short = if cell.chars().count() <= 12 { " nowrap" } else { "" };
            text.push_str(&format!("<td{class}{short}>{}</td>", escaped(cell)));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</table></div>\n");
}

fn told(text: &mut String, finding: &Finding) {
    if finding.verdict == Verdict::Pass && finding.stack.is_empty() {
        return;
    }
    let verdict = word(finding.verdict);
    text.push_str(&format!(
        "<h3><span class=\"{verdict}\">{}</span>: {}</h3>\n<p class=\"soft\">{}</p>\n<p>{}</p>\n",
        capital(verdict),
        escaped(&finding.subject),
        escaped(&place(finding)),
        escaped(&finding.message)
    ));
    if !finding.stack.is_empty() {
        text.push_str(&format!("<pre>{}</pre>\n", escaped(&finding.stack.join("\n"))));
    }
}

pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            letter => out.push(letter),
        }
    }
    out
}
