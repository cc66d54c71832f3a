//! memcheck: live leak checks say exactly what a session lost since the check before.

use crate::stage::{Session, Stage, as_server_user, build, is_called_by_user, server};
use pgsoak_agent::cluster::StopStep;
use pgsoak_agent::tools::memcheck::{Check, CheckError};
use pgsoak_analysis::valgrind::{AddressMap, parse_leak_check, parse_log};
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::Tool;
use std::{path::Path, process::Command, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

/// The planted faults, built for both majors. As root this happens before the test becomes `postgres`.
fn faults() {
    if !is_called_by_user() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/build-faults.sh");
    let output =
        Command::new(script).args([15, 18].map(|major| server(major).pg_config)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Loses memory in a session and asks memcheck what grew.
async fn a_lost_malloc_is_found(major: u32) {
    let mut stage =
        Stage::new(major, &build("pgsoak_faults@1.0"), Some("pgsoak_faults"), Tool::Memcheck);
    stage.preload = vec!["pgsoak_faults".to_owned()];
    let cluster = stage.start().await;
    let memcheck = stage.tooling.memcheck().unwrap();
    let session = Session::open(&cluster).await;
    assert!(session.try_run("CREATE EXTENSION pgsoak_faults").await);
    session.text("SELECT faults_malloc_lost(100)").await;
    let pid = session.pid().await;
    let mark = memcheck.leak_check(pid, Check::Mark, LIMIT).await.unwrap();
    assert!(parse_leak_check(&mark.text, &AddressMap::default()).records.is_empty());

    for _ in 0..500 {
        session.text("SELECT faults_malloc_lost(100)").await;
    }
    let grown = memcheck.leak_check(pid, Check::Increased, LIMIT).await.unwrap();
    let answer = parse_leak_check(&grown.text, &AddressMap::from_maps(&grown.maps));
    assert!(answer.complete);
    let lost: Vec<_> =
        answer.records.iter().filter(|record| record.kind == LeakKind::Definite).collect();
    assert_eq!(lost.len(), 1, "{}", grown.text);
    assert_eq!((lost[0].bytes_delta, lost[0].blocks_delta), (50_000, 500));
    let frame = &lost[0].stack[1];
    assert_eq!(
        (frame.module.as_str(), frame.file.as_str()),
        ("pgsoak_faults.so", "pgsoak_faults.c")
    );

    let again = memcheck.leak_check(pid, Check::Increased, LIMIT).await.unwrap();
    let again = parse_leak_check(&again.text, &AddressMap::default());
    assert_eq!(again.summary.definite.bytes_delta, 0);
    // The backend lives on.
    assert_eq!(session.pid().await, pid);
    session.close().await;
    let stopped = cluster.stop().await;
    assert!(
        stopped.clean && stopped.how <= StopStep::Fast && stopped.left.is_empty(),
        "{stopped:?}"
    );
    stage.assert_nothing_left();

    let seen = stage.tooling.seen().unwrap();
    assert!(
        seen.contains(&pid) && seen.contains(&cluster.postmaster()) && seen.len() > 5,
        "{seen:?}"
    );
    let log = parse_log(&memcheck.log(pid).unwrap(), &AddressMap::from_maps(&grown.maps));
    assert!(log.complete && log.pid == pid);
    assert!(log.leaks.iter().any(|record| record.bytes == 50_100), "{:?}", log.leaks);
}

#[test]
fn a_lost_malloc_is_found_on_15() {
    faults();
    as_server_user("memcheck::a_lost_malloc_is_found_on_15", || a_lost_malloc_is_found(15));
}

#[test]
fn a_lost_malloc_is_found_on_18() {
    faults();
    as_server_user("memcheck::a_lost_malloc_is_found_on_18", || a_lost_malloc_is_found(18));
}

#[test]
fn a_process_without_a_channel_is_said_to_have_none() {
    as_server_user("memcheck::a_process_without_a_channel_is_said_to_have_none", || async {
        let stage = Stage::new(15, &pgsoak_proto::job::BuildRef::Vanilla, None, Tool::Memcheck);
        let memcheck = stage.tooling.memcheck().unwrap();
        let answer = memcheck.leak_check(std::process::id(), Check::Increased, LIMIT).await;
        assert!(matches!(answer, Err(CheckError::NoChannel { .. })), "{answer:?}");
    });
}
