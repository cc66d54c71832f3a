//! One page that needs nothing else: no script, no font, no image from anywhere.

use crate::report::{
    HOLDERS, Table, budgets, comparisons, detects, environment, findings, holders, jobs, matter,
    place, word,
};
use crate::result::{Finding, RunResult, Verdict};

const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#fff;--ink:#1c1e21;--soft:#5c636b;--line:#d9dde2;--fail:#b3261e;--invalid:#8a4b00;--inconclusive:#6b5b00;--pass:#1b6e37}
@media(prefers-color-scheme:dark){:root{--ground:#15181c;--ink:#e8eaed;--soft:#a2a9b1;--line:#343a41;--fail:#ff8a80;--invalid:#ffb866;--inconclusive:#e6d366;--pass:#7ddc9b}}
body{background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:24px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:32px 0 8px;border-bottom:1px solid var(--line)}h3{font-size:16px;margin:20px 0 4px}
.fail{color:var(--fail)}.invalid{color:var(--invalid)}.inconclusive{color:var(--inconclusive)}.pass{color:var(--pass)}
.soft{color:var(--soft)}.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;width:100%}
th,td{border-bottom:1px solid var(--line);padding:4px 8px;text-align:left;vertical-align:top}th{color:var(--soft);font-weight:600}
pre{background:color-mix(in srgb,var(--ink) 6%,transparent);overflow-x:auto;padding:8px 12px;font-size:12px;border-radius:4px}
ol li{margin-bottom:8px}";

/// The report.
pub fn to_html(result: &RunResult) -> String {
    let verdict = word(result.verdict);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{verdict} · {plan}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1><span class=\"{verdict}\">{}</span> · {plan}</h1>\n<p>{}</p>\n",
        verdict.to_uppercase(),
        escaped(&result.sentence),
        plan = escaped(&result.plan),
    );
    let detects = detects(result);
    if !detects.is_empty() {
        text.push_str(&format!("<p class=\"soft\">{}</p>\n", escaped(&detects)));
    }
    text.push_str(&format!(
        "<p class=\"soft\">Run <code>{}</code>, judged by engine {}.</p>\n",
        result.run, result.engine
    ));
    section_of_matter(&mut text, result);
    section(&mut text, "Budgets", &budgets(result));
    section(&mut text, "Release against release", &comparisons(result));
    section(&mut text, "Findings", &findings(result));
    for finding in &result.findings {
        told(&mut text, finding);
    }
    section(&mut text, HOLDERS, &holders(result));
    section(&mut text, "Jobs", &jobs(result));
    section(&mut text, "Environment", &environment(result));
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

fn section_of_matter(text: &mut String, result: &RunResult) {
    let first = matter(result);
    if first.is_empty() {
        return;
    }
    text.push_str("<h2>What matters</h2>\n<ol>\n");
    for finding in first {
        let verdict = word(finding.verdict);
        text.push_str(&format!(
            "<li><strong class=\"{verdict}\">{verdict}: {}</strong> <span class=\"soft\">{}</span><br>{}</li>\n",
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
            text.push_str(&format!("<td{class}>{}</td>", escaped(cell)));
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
        "<h3><span class=\"{verdict}\">{verdict}</span>: {}</h3>\n<p class=\"soft\">{}</p>\n<p>{}</p>\n",
        escaped(&finding.subject),
        escaped(&place(finding)),
        escaped(&finding.message)
    ));
    if !finding.stack.is_empty() {
        text.push_str(&format!("<pre>{}</pre>\n", escaped(&finding.stack.join("\n"))));
    }
}

fn escaped(text: &str) -> String {
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
