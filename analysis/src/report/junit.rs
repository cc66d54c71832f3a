//! JUnit XML for CI: one suite per job, one case per budget and per finding.
//!
//! What fails is a failure; what could not be judged is an error when the harness is at fault, else skipped with its reason. Cases of
//! baseline and control arms never fail: they do not decide.

use crate::figures::capital;
use crate::report::{place, word};
use crate::result::{Finding, JobResult, RunResult, Verdict};
use crate::verdict::decides;

/// The report.
pub fn to_junit(result: &RunResult) -> String {
    let mut suites = vec![Suite::new("run".to_owned())];
    let mut of_jobs: Vec<Suite> = Vec::new();
    for job in &result.jobs {
        let name = suite_name(job);
        if !of_jobs.iter().any(|suite| suite.name == name) {
            of_jobs.push(Suite::new(name));
        }
    }
    suites.append(&mut of_jobs);
    for finding in &result.findings {
        let name = if finding.workload.is_empty() {
            "run".to_owned()
        } else {
            format!("{} {} {} {}", finding.workload, finding.tool, finding.arm, finding.build)
        };
        case(&mut suites, name, finding);
    }
    for budget in result.budgets.iter().filter(|budget| budget.verdict == Verdict::Pass) {
        let name = format!("{} plain {} {}", budget.workload, budget.arm, budget.build);
        let case = Case {
            name: format!("{}: budget {}", budget.phase, budget.what),
            verdict: Verdict::Pass,
            message: String::new(),
            text: String::new(),
        };
        add(&mut suites, name, case);
    }
    suites.retain(|suite| suite.name != "run" || !suite.cases.is_empty());
    written(result, &suites)
}

struct Suite {
    name: String,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    verdict: Verdict,
    message: String,
    text: String,
}

impl Suite {
    fn new(name: String) -> Self {
        Self { name, cases: Vec::new() }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }
}

fn suite_name(job: &JobResult) -> String {
    format!("{} {} {} {}", job.workload, job.tool, job.arm, job.build)
}

fn case(suites: &mut Vec<Suite>, suite: String, finding: &Finding) {
    let phase =
        if finding.phase.is_empty() { String::new() } else { format!("{}: ", finding.phase) };
    let mut text = place(finding);
    for line in &finding.stack {
        text.push('\n');
        text.push_str(line);
    }
    let verdict = if decides(finding) { finding.verdict } else { Verdict::Pass };
    let case = Case {
        name: format!("{phase}{}", finding.subject),
        verdict,
        message: finding.message.clone(),
        text,
    };
    add(suites, suite, case);
}

fn add(suites: &mut Vec<Suite>, name: String, case: Case) {
    match suites.iter_mut().find(|suite| suite.name == name) {
        Some(suite) => suite.cases.push(case),
        None => suites.push(Suite { name, cases: vec![case] }),
    }
}

fn written(result: &RunResult, suites: &[Suite]) -> String {
    let total = |verdict| suites.iter().map(|suite| suite.count(verdict)).sum::<usize>();
    let cases: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text.push_str(&format!(
        "<testsuites name=\"{}\" tests=\"{cases}\" failures=\"{}\" errors=\"{}\">\n",
        escaped(&format!("{} {}", result.plan, result.run)),
        total(Verdict::Fail),
        total(Verdict::Invalid)
    ));
    for suite in suites {
        text.push_str(&format!(
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n",
            escaped(&suite.name),
            suite.cases.len(),
            suite.count(Verdict::Fail),
            suite.count(Verdict::Invalid),
            suite.count(Verdict::Inconclusive)
        ));
        for case in &suite.cases {
            one(&mut text, &suite.name, case);
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn one(text: &mut String, suite: &str, case: &Case) {
    text.push_str(&format!(
        "    <testcase classname=\"{}\" name=\"{}\"",
        escaped(suite),
        escaped(&case.name)
    ));
    let element = match case.verdict {
        Verdict::Pass => {
            text.push_str("/>\n");
            return;
        }
        Verdict::Fail => "failure",
        Verdict::Invalid => "error",
        Verdict::Inconclusive => "skipped",
    };
    text.push_str(&format!(
        ">\n      <{element} message=\"{}\"",
        escaped(&format!("{}: {}", capital(word(case.verdict)), case.message))
    ));
    match element {
        "skipped" => text.push_str("/>\n"),
        _ => text.push_str(&format!(">{}</{element}>\n", escaped(&case.text))),
    }
    text.push_str("    </testcase>\n");
}

/// XML 1.0 knows no control characters, not even escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(' '),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                out.push('\u{fffd}');
            }
            letter => out.push(letter),
        }
    }
    out
}
