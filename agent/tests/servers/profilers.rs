//! The other tools: what massif and heaptrack leave for each process, and giving memory back to the system.

use crate::stage::{Session, Stage, as_server_user};
use pgsoak_agent::tools::allocator::{Visit, visit};
use pgsoak_proto::job::{BuildRef, Tool};
use std::fs;

#[test]
fn massif_leaves_a_file_for_every_process() {
    as_server_user("profilers::massif_leaves_a_file_for_every_process", || async {
        let stage = Stage::new(15, &BuildRef::Vanilla, None, Tool::Massif);
        let cluster = stage.start().await;
        let session = Session::open(&cluster).await;
        let pid = session.pid().await;
        session.close().await;
        let stopped = cluster.stop().await;
        assert!(stopped.clean && stopped.left.is_empty(), "{stopped:?}");
        stage.assert_nothing_left();
        let reports = stage.tooling.reports().unwrap();
        assert!(reports.contains_key(&cluster.postmaster()) && reports.len() > 5, "{reports:?}");
        let report = fs::read_to_string(&reports[&pid]).unwrap();
        assert!(report.contains("mem_heap_B=") && report.contains("AllocSet"), "{report}");
    });
}

#[test]
fn the_allocator_gives_back_what_it_can() {
    as_server_user("profilers::the_allocator_gives_back_what_it_can", || async {
        let stage = Stage::plain(15);
        let cluster = stage.start().await;
        let session = Session::open(&cluster).await;
        let pid = session.pid().await;
        let both = Visit { books: true, trim: true };
        let visited = visit(pid, &stage.tooling.folder, both).await;
        assert!(visited.is_trimmed, "{visited:?}");
        // A backend at rest: a megabyte or two in use, the top chunk and some blocks free.
        let books = visited.books.expect("the books");
        assert!((1 << 20..16 << 20).contains(&books.in_use_bytes), "{books:?}");
        assert!(books.free_bytes > 0 && books.free_bytes < books.in_use_bytes, "{books:?}");
        // The session goes on.
        assert_eq!(session.pid().await, pid);
        session.close().await;
        assert!(cluster.stop().await.clean);
    });
}

/// Profiles one session and reads what heaptrack wrote for it.
async fn heaptrack_sees_every_backend(major: u32) {
    let stage = Stage::new(major, &BuildRef::Vanilla, None, Tool::Heaptrack);
    assert!(stage.tooling.version.contains("heaptrack"), "{}", stage.tooling.version);
    let cluster = stage.start().await;
    let session = Session::open(&cluster).await;
    let pid = session.pid().await;
    session.text("SELECT count(*) FROM generate_series(1, 100000) AS s(n) GROUP BY n % 7").await;
    session.close().await;
    let stopped = cluster.stop().await;
    assert!(stopped.clean && stopped.left.is_empty(), "{stopped:?}");
    stage.assert_nothing_left();

    let reports = stage.tooling.reports().unwrap();
    assert!(!reports.contains_key(&cluster.postmaster()) && reports.len() > 4, "{reports:?}");
    // heaptrack's raw format: `v` version, `x` program, `m` modules, `+` an allocation with its size and trace.
    let raw = fs::read_to_string(&reports[&pid]).unwrap();
    assert!(raw.starts_with("v "), "{}", raw.chars().take(200).collect::<String>());
    let allocations = raw.lines().filter(|line| line.starts_with("+ ")).count();
    let frees = raw.lines().filter(|line| line.starts_with("- ")).count();
    assert!(allocations > 300 && frees > 50, "{allocations} allocations, {frees} frees");
    assert!(raw.lines().any(|line| line.starts_with("x ") && line.ends_with("/bin/postgres")));
    assert!(raw.lines().any(|line| line.starts_with("m ") && line.contains("libc.so")));
}

#[test]
fn heaptrack_sees_every_backend_of_15() {
    let name = "profilers::heaptrack_sees_every_backend_of_15";
    as_server_user(name, || heaptrack_sees_every_backend(15));
}

#[test]
fn heaptrack_sees_every_backend_of_18() {
    let name = "profilers::heaptrack_sees_every_backend_of_18";
    as_server_user(name, || heaptrack_sees_every_backend(18));
}
