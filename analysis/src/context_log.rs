//! What `pg_log_backend_memory_contexts` wrote into a server's log → memory contexts by name.
//!
//! Lines of other processes stand between; the process is told by `[PID]` in the prefix. Contexts that the server only sums up ("7 more
//! child contexts") keep that as their name.

use pgsoak_proto::evidence::ContextUse;
use std::collections::BTreeMap;

/// Name of what the server only sums up.
pub const MORE: &str = "(more child contexts)";

/// The last whole answer of process `pid` in `log`, by name, sorted; `None`: there is none yet.
pub fn parse(log: &str, pid: u32) -> Option<Vec<ContextUse>> {
    let of_process = format!("[{pid}]");
    let begins = format!("logging memory contexts of PID {pid}");
    let mut whole = None;
    let mut open: Option<BTreeMap<String, ContextUse>> = None;
    for line in log.lines() {
        let Some((prefix, said)) = line.split_once("LOG:  ") else { continue };
        if !prefix.contains(&of_process) {
            continue;
        }
        if said.starts_with(&begins) {
            open = Some(BTreeMap::new());
        } else if said.starts_with("Grand total: ") {
            whole = open.take().or(whole);
        } else if let Some(open) = &mut open
            && let Some(found) = context(said)
        {
            let known = open.entry(found.name.clone()).or_insert_with(|| ContextUse {
                name: found.name.clone(),
                ..ContextUse::default()
            });
            known.used_bytes = known.used_bytes.saturating_add(found.used_bytes);
            known.total_bytes = known.total_bytes.saturating_add(found.total_bytes);
            known.count = known.count.saturating_add(found.count);
        }
    }
    whole.map(|contexts| contexts.into_values().collect())
}

/// "level: 1; index info: 2048 total in 2 blocks; 888 free (0 chunks); 1160 used: pg_class_oid_index"
fn context(said: &str) -> Option<ContextUse> {
    let (_, said) = said.strip_prefix("level: ")?.split_once("; ")?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (name, rest, count) = match said.split_once(" more child contexts containing ") {
        Some((count, rest)) => (MORE, rest, u32::try_from(number(count)?).ok()?),
        None => {
            // The name may hold a colon; the figure before " total in " does not.
            let (before, _) = said.split_once(" total in ")?;
            let (name, _) = before.rsplit_once(": ")?;
            (name, said.get(name.len() + 2..)?, 1)
        }
    };
    let (total, rest) = rest.split_once(" total in ")?;
    // "… 888 free (0 chunks); 1160 used[: ident]"
    let (_, used) = rest.split_once(" chunks); ")?;
    let (used, _) = used.split_once(" used")?;
    let count = count.max(1);
    Some(ContextUse {
        name: name.to_owned(),
        used_bytes: number(used)?,
        total_bytes: number(total)?,
        count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of PostgreSQL 15, with a line of another process in between.
    const LOG: &str = "\
2026-11-27 20:22:03.090 UTC [74] client backend psql: LOG:  logging memory contexts of PID 74
2026-11-27 20:22:03.090 UTC [74] client backend psql: LOG:  level: 0; TopMemoryContext: 97680 total in 5 blocks; 13680 free (14 chunks); 84000 used
2026-11-27 20:22:03.090 UTC [75] client backend psql: LOG:  level: 1; index info: 1 total in 2 blocks; 1 free (0 chunks); 1 used: not its own
2026-11-27 20:22:03.090 UTC [74] client backend psql: LOG:  level: 2; index info: 2048 total in 2 blocks; 888 free (0 chunks); 1160 used: pg_class: oid total in index
2026-11-27 20:22:03.090 UTC [74] client backend psql: LOG:  level: 2; index info: 1024 total in 1 blocks; 16 free (0 chunks); 1008 used: pg_proc_oid_index
2026-11-27 20:22:03.090 UTC [74] client backend psql: LOG:  level: 2; 7 more child contexts containing 14336 total in 14 blocks; 6216 free (0 chunks); 8120 used
";
    const END: &str = "2026-11-27 20:22:03.091 UTC [74] client backend psql: LOG:  Grand total: 1686688 bytes in 192 blocks; 596824 free (79 chunks); 1089864 used\n";

    #[test]
    fn contexts_are_summed_by_name() {
        let found = parse(&format!("{LOG}{END}"), 74).unwrap();
        let told: Vec<_> =
            found.iter().map(|c| (c.name.as_str(), c.total_bytes, c.used_bytes, c.count)).collect();
        assert_eq!(
            told,
            [
                (MORE, 14_336, 8_120, 7),
                ("TopMemoryContext", 97_680, 84_000, 1),
                ("index info", 3_072, 2_168, 2),
            ]
        );
    }

    #[test]
    fn an_answer_without_its_end_is_none_yet_and_the_last_whole_one_counts() {
        assert_eq!(parse(LOG, 74), None);
        assert_eq!(parse(&format!("{LOG}{END}"), 7), None, "another pid");
        let twice = format!("{LOG}{END}{}", LOG.replace("97680", "97681"));
        let found = parse(&twice, 74).unwrap();
        assert!(found.iter().any(|context| context.total_bytes == 97_680));
        let found = parse(&format!("{twice}{END}"), 74).unwrap();
        assert!(found.iter().any(|context| context.total_bytes == 97_681));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\PC|\n| total in | used|: |; |LOG:  |level: |\\[7\\]){0,60}") {
            let _ = parse(&text, 7);
            let _ = context(&text);
        }
    }
}
