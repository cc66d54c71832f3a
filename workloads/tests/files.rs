//! What people write and what they are told: whole files, and every mistake with its file, line and way out.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use pgsoak_proto::job::{BuildRef, PostgresRef, Tool};
use pgsoak_workloads::{
    plan::Plan,
    workload::{Kind, Length, Loop, Reconnect, Residual, WarmUp, Workload},
};
use proptest::prelude::*;
use std::time::Duration;

const WORKLOAD: &str = r#"name = "tview_dml"
about = "Single-row changes of one TVIEW in long-lived sessions"
extension = "pg_tviews"
allow_bytes_per_row = 120
warm_up = "3 rounds"

[cluster]
preload = ["pg_tviews"]
settings = { shared_buffers = "128MB", jit = false, work_mem = 4096, "pg_tviews.max_queue_size" = 100000 }

[[phase]]
name = "create"
kind = "once"
sql = "CREATE TABLE tb_item(id int); CREATE TABLE tv_item AS SELECT 1"
control_sql = ""
check = "SELECT count(*) = 0 FROM tv_item"
budget = { growth = "5 MB" }

[[phase]]
name = "steady"
kind = "loop"
workers = 2
operations = 500
for = "24h"
rate = 200
reconnect = "every 5000 operations"
sql = """
INSERT INTO tb_item(data) VALUES ('row-${n}');
SELECT ${worker}, ${round}, ${seed};
"""
check = "SELECT count(*) = ${round} FROM tv_item"
rows = "SELECT count(*) FROM tv_item"
budget = { growth_per_operation = "0.5 B", peak = "100 MB" }

[[phase]]
name = "drop"
sql = "DROP TABLE tv_item CASCADE"
budget = { residual = "5 MB", since = "create" }
"#;

#[test]
fn a_whole_workload_reads_as_written() {
    let workload = Workload::parse("w.toml", WORKLOAD).unwrap();
    assert_eq!(workload.extension.as_deref(), Some("pg_tviews"));
    assert_eq!(workload.allow_bytes_per_row, 120.0);
    assert_eq!(workload.warm_up, Some(WarmUp::Rounds(3)));
    let settings: Vec<_> =
        workload.cluster.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        settings,
        ["jit=off", "pg_tviews.max_queue_size=100000", "shared_buffers=128MB", "work_mem=4096"]
    );
    let [create, steady, drop] = workload.phases.as_slice() else { panic!() };
    assert_eq!(create.control_sql.as_deref(), Some(""));
    assert_eq!((create.budget.growth, &create.kind), (Some(5_000_000), &Kind::Once));
    assert_eq!(
        steady.kind,
        Kind::Loop(Loop {
            workers: 2,
            operations: 500,
            length: Length::For(Duration::from_secs(86_400)),
            rate: Some(200.0),
            reconnect: Reconnect::Every(5_000),
        })
    );
    assert_eq!(steady.budget.growth_per_operation, Some(0.5));
    assert_eq!(drop.budget.residual, Some(Residual { bytes: 5_000_000, since: "create".into() }));
    assert_eq!(workload.phase("drop"), Some(drop));
}

#[test]
fn defaults_suit_a_newcomer() {
    let text = "[[phase]]\nkind = 'loop'\nsql = 'SELECT 1'";
    let workload = Workload::parse("dir/first_soak.toml", text).unwrap();
    assert_eq!(workload.name, "first_soak");
    assert_eq!(workload.phases[0].name, "phase_1");
    assert_eq!(
        workload.phases[0].kind,
        Kind::Loop(Loop {
            workers: 1,
            operations: 1_000,
            length: Length::Rounds(20),
            rate: None,
            reconnect: Reconnect::Never,
        })
    );
    let plan = Plan::parse("first.toml", "[[job]]\nworkload = 'first_soak'").unwrap();
    let [job] = plan.jobs.as_slice() else { panic!() };
    assert_eq!(plan.name, "first");
    assert_eq!((&job.tools[..], job.replicas, job.scale), (&[Tool::Plain][..], 1, 1.0));
    assert_eq!((&job.build, &job.postgres), (&BuildRef::System, &PostgresRef::Major(18)));
    assert_eq!(job.sample_every, Duration::from_secs(1));
}

/// The problems of `text` with its `old` piece replaced, without the file's name.
fn after(text: &str, old: &str, new: &str, plan: bool) -> Vec<String> {
    assert!(text.contains(old), "{old}");
    let text = text.replacen(old, new, 1);
    let problems = if plan {
        Plan::parse("w.toml", &text).unwrap_err()
    } else {
        Workload::parse("w.toml", &text).unwrap_err()
    };
    problems
        .iter()
        .map(|problem| problem.to_string().strip_prefix("w.toml:").unwrap().to_owned())
        .collect()
}

#[test]
fn every_mistake_in_a_workload_names_line_key_and_way_out() {
    let mut wrong = Vec::new();
    for (old, new, told) in [
        (
            "preload =",
            "preloads =",
            "8: unknown key 'preloads' in [cluster]; did you mean 'preload'?",
        ),
        (
            "workers = 2",
            "worker = 2",
            "22: unknown key 'worker' in a phase; did you mean 'workers'?",
        ),
        ("growth = ", "groth = ", "17: unknown key 'groth' in a budget; did you mean 'growth'?"),
        ("workers = 2", "workers = 0", "22: `workers`: must be 1 to 1000, is 0"),
        ("workers = 2", "workers = '2'", "22: `workers`: must be a whole number, is a text"),
        (
            "\"24h\"",
            "\"24\"",
            "24: `for`: '24' lacks a unit; a time is written as \"90s\", \"24h\", \"1h30m\" or \"500ms\"",
        ),
        (
            "\"24h\"",
            "\"24h\"\nrounds = 3",
            "24: `for`: a loop has either `rounds` or `for`, not both; take one out",
        ),
        (
            "rate = 200",
            "rate = -1",
            "25: `rate`: operations per second and worker must be 0.001 to 1000000",
        ),
        ("rate = 200", "rate = nan", "25: `rate`: must be a finite number"),
        (
            "every 5000 operations",
            "sometimes",
            "26: `reconnect`: 'sometimes' is none of \"never\", \"every round\", \"every 5000 operations\"",
        ),
        ("${worker}", "${wrker}", "29: `sql`: unknown variable '${wrker}'; did you mean 'worker'?"),
        ("row-${n}'", "row-${n}", "28: `sql`: a quoted text is never closed"),
        (
            "= ${round}",
            "= ${n}",
            "31: `check`: '${n}' means nothing here, after the operations; only '${round}' and '${seed}' do",
        ),
        (
            "tv_item\"\nbudget = { growth =",
            "tv_item; SELECT 1\"\nbudget = { growth =",
            "16: `check`: must be one statement",
        ),
        (
            "\"5 MB\" }",
            "5000000 }",
            "17: `growth`: must be a size with its unit, such as \"5 MB\", is a whole number",
        ),
        (
            "\"5 MB\" }",
            "\"5 mb\" }",
            "17: `growth`: '5 mb' has an unknown unit 'mb' (meant 'MB'?); a size is written with its unit, as \"10 MB\", \"64 KiB\" or \"1 B\"",
        ),
        (
            "{ growth =",
            "{ growth_per_operation =",
            "17: `growth_per_operation`: belongs to a loop: a phase that runs once has `growth`",
        ),
        (
            ", since = \"create\"",
            "",
            "38: `residual`: needs `since`, the earlier phase before which memory is compared",
        ),
        (
            "since = \"create\"",
            "since = \"creat\"",
            "38: `since`: 'creat' is no earlier phase; did you mean 'create'?",
        ),
        (
            "since = \"create\"",
            "since = \"drop\"",
            "38: `since`: 'drop' is no earlier phase; known: extension, create, steady",
        ),
        (
            "name = \"drop\"",
            "name = \"create\"",
            "36: `name`: 'create' is the name of an earlier phase; names must be unique",
        ),
        (
            "name = \"drop\"",
            "name = \"extension\"",
            "36: `name`: 'extension' is the phase that creates the extension; call this one something else",
        ),
        (
            "kind = \"once\"",
            "kind = \"twice\"",
            "13: `kind`: 'twice' is neither \"once\" nor \"loop\"",
        ),
        (
            "kind = \"once\"",
            "rounds = 3",
            "13: `rounds`: belongs to a loop; add kind = \"loop\" to the phase or take it out",
        ),
        ("sql = \"DROP TABLE tv_item CASCADE\"", "", "35: phase 'drop' has no `sql`"),
        (
            "sql = \"DROP TABLE tv_item CASCADE\"",
            "sql = '-- later'",
            "37: `sql`: holds no statement",
        ),
        ("shared_buffers =", "port =", "9: `port`: cannot be set here: the runner chooses it"),
        (
            "\"3 rounds\"",
            "\"3 weeks\"",
            "5: `warm_up`: must be a time such as \"10m\", or rounds such as \"3 rounds\"",
        ),
        ("= 120", "= -1", "4: `allow_bytes_per_row`: must not be negative"),
        (
            "name = \"tview_dml\"",
            "name = \"TView\"",
            "1: `name`: must be 1 to 63 of a-z, 0-9 and _",
        ),
        (
            "extension = \"pg_tviews\"",
            "extension = \"a'b\"",
            "3: `extension`: must be an extension's name: 1 to 63 of letters, digits, _ and -",
        ),
    ] {
        let found = after(WORKLOAD, old, new, false);
        if found != [told] {
            wrong.push(format!("{old} → {new}: told {found:#?}, wanted {told}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_are_told_at_once_by_line() {
    let text = WORKLOAD.replace("workers = 2", "workers = 0").replace("about", "abuot");
    let problems = Workload::parse("w.toml", &text).unwrap_err();
    assert_eq!(problems.iter().map(|p| p.line).collect::<Vec<_>>(), [2, 22]);
    assert_eq!(
        Workload::parse("w.toml", "name = 'w'").unwrap_err()[0].to_string(),
        "w.toml: has no [[phase]]: a workload needs at least one"
    );
    let torn = Workload::parse("w.toml", "name = 'w'\nabout = \"x").unwrap_err();
    assert_eq!((torn.len(), torn[0].line), (1, 2));
}

const PLAN: &str = r#"name = "nightly"
about = "Every night"
seed = 7
[floor]
bytes_per_operation = 1.0
bytes_per_second = 128
[defaults]
postgres = "18"
build = "pg_tviews@0.1.0-beta.34"
baseline = "pg_tviews@0.1.0-beta.33"
control = true
[[job]]
workload = ["tview_dml", "tview_ddl"]
tool = "plain"
for = "24h"
replicas = 3
sample_every = "5s"
agents = { zone = "lab" }
[[job]]
workload = "tview_dml"
tool = ["memcheck", "heaptrack"]
scale = 0.05
exclusive = true
baseline = "none"
postgres = 16
hard_end = "8h"
"#;

#[test]
fn a_whole_plan_reads_as_written() {
    let plan = Plan::parse("p.toml", PLAN).unwrap();
    let [plain, slow] = plan.jobs.as_slice() else { panic!() };
    assert_eq!(plan.floor.bytes_per_second, Some(128.0));
    assert_eq!(plain.workloads, ["tview_dml", "tview_ddl"]);
    assert_eq!(plain.baseline.as_ref().unwrap().to_string(), "pg_tviews@0.1.0-beta.33");
    assert_eq!((plain.control, plain.replicas, plain.seed), (true, 3, 7));
    assert_eq!(plain.agents.get("zone").map(String::as_str), Some("lab"));
    assert_eq!(plain.loop_for, Some(Duration::from_secs(86_400)));
    assert_eq!(slow.tools, [Tool::Memcheck, Tool::Heaptrack]);
    assert_eq!((slow.baseline.clone(), slow.scale, slow.exclusive), (None, 0.05, true));
    assert_eq!(slow.postgres, PostgresRef::Major(16));
    assert_eq!(slow.hard_end, Some(Duration::from_secs(8 * 3_600)));
}

#[test]
fn every_mistake_in_a_plan_names_line_key_and_way_out() {
    for (old, new, told) in [
        (
            "replicas = 3",
            "replica = 3",
            "16: unknown key 'replica' in a job; did you mean 'replicas'?",
        ),
        (
            "control = true",
            "contrl = true",
            "11: unknown key 'contrl' in [defaults]; did you mean 'control'?",
        ),
        ("control = true", "control = 'yes'", "11: `control`: must be true or false, is a text"),
        (
            "\"plain\"",
            "\"memchek\"",
            "14: `tool`: unknown tool 'memchek'; did you mean 'memcheck'?",
        ),
        (
            "\"plain\"",
            "\"gdb\"",
            "14: `tool`: unknown tool 'gdb'; known: plain, memcheck, massif, heaptrack",
        ),
        ("replicas = 3", "replicas = 0", "16: `replicas`: must be 1 to 1000, is 0"),
        ("\"5s\"", "\"50ms\"", "17: `sample_every`: must be 100ms to 1h"),
        ("scale = 0.05", "scale = 0", "22: `scale`: must be above 0 and at most 1000"),
        ("scale = 0.05", "scale = '5 %'", "22: `scale`: must be a number, is a text"),
        (
            "pg_tviews@0.1.0-beta.34",
            "pg_tviews",
            "9: `build`: build 'pg_tviews' is none of NAME@RELEASE, dir:PATH, system, vanilla",
        ),
        (
            "postgres = \"18\"",
            "postgres = \"eighteen\"",
            "8: `postgres`: postgres 'eighteen' is neither a major such as \"18\" nor the absolute path of a pg_config",
        ),
        ("workload = \"tview_dml\"", "workload = []", "20: `workload`: names no workload"),
        (
            "workload = \"tview_dml\"",
            "seed = 1",
            "19: a job needs `workload`: a name of the library or the path of a file",
        ),
        ("\"tview_ddl\"", "\"tview_dml\"", "13: `workload`: 'tview_dml' stands in the list twice"),
        (
            "bytes_per_second = 128",
            "bytes_per_second = 0",
            "6: `bytes_per_second`: must be above 0",
        ),
        (
            "[defaults]",
            "[defaults]\nseed = 8",
            "8: `seed`: stands at the top of the plan as well; take one out",
        ),
    ] {
        assert_eq!(after(PLAN, old, new, true), [told], "{old} → {new}");
    }
    let single = Plan::parse("w.toml", "[job]\nworkload = 'a'").unwrap_err();
    assert_eq!(single[0].to_string(), "w.toml:1: `job`: write it as [[job]]");
    assert_eq!(
        Plan::parse("w.toml", "").unwrap_err()[0].to_string(),
        "w.toml: has no [[job]]: a plan needs at least one"
    );
}

#[test]
fn lists_without_end_are_refused_at_once() {
    let phases = "[[phase]]\nsql = 'SELECT 1'\n".repeat(100_000);
    let problems = Workload::parse("w.toml", &phases).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "w.toml:1: `phase`: holds 100000 items, at most 1000 are taken"
    );
    let names = "'a',".repeat(200_000);
    let problems = Plan::parse("p.toml", &format!("[[job]]\nworkload = [{names}]")).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "p.toml:2: `workload`: holds 200000 items, at most 1000 are taken"
    );
    let large = Plan::parse("p.toml", &" ".repeat(5_000_000)).unwrap_err();
    assert_eq!(large[0].to_string(), "p.toml: is larger than 4 MB");
    let deep = format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Plan::parse("p.toml", &deep).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = (Workload::parse("x", &text), Plan::parse("x", &text));
    }

    #[test]
    fn no_torn_or_spoilt_file_panics(
        cut in 0..WORKLOAD.len(), length in 0_usize..30, instead in "[ -~é]{0,8}", plan in any::<bool>(),
    ) {
        let whole = if plan { PLAN } else { WORKLOAD };
        let chars: Vec<char> = whole.chars().collect();
        let cut = cut.min(chars.len());
        let text: String = chars[..cut].iter().copied().chain(instead.chars())
            .chain(chars[(cut + length).min(chars.len())..].iter().copied()).collect();
        for problems in [Workload::parse("x", &text).err(), Plan::parse("x", &text).err()].into_iter().flatten() {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(problem.line <= text.lines().count() + 1, "{}", problem);
            }
        }
    }
}
