//! Clusters: start, stop, crash, and that nothing is left.

use crate::stage::{Session, Stage, as_server_user};
use pgsoak_agent::cluster::StartError;
use pgsoak_agent::cluster::StopStep;
use pgsoak_agent::folder::processes_left;
use pgsoak_proto::job::{BuildRef, Tool};
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, time::Duration};

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// System V segments that `creator` made.
fn segments_of(creator: u32) -> usize {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    table
        .lines()
        .filter(|line| line.split_whitespace().nth(4) == Some(&creator.to_string()))
        .count()
}

async fn within<F: Future>(seconds: u64, what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(seconds), future)
        .await
        .unwrap_or_else(|_| panic!("{what} took more than {seconds} s"))
}

#[test]
fn a_server_starts_and_stops_in_order() {
    as_server_user("clusters::a_server_starts_and_stops_in_order", || async {
        for major in [15, 18] {
            let mut stage = Stage::plain(major);
            stage.settings.insert("work_mem".to_owned(), "5MB".to_owned());
            let cluster = stage.start().await;
            let session = Session::open(&cluster).await;
            assert_eq!(session.text("SHOW work_mem").await, "5MB");
            assert_eq!(session.text("SHOW fsync").await, "off");
            assert_eq!(segments_of(cluster.postmaster()), 1);
            session.close().await;
            assert!(cluster.is_running());
            let stopped = cluster.stop().await;
            assert!(stopped.clean && stopped.how == StopStep::Smart, "{stopped:?}");
            assert_eq!((stopped.killed, stopped.left), (vec![], vec![]));
            assert_eq!(segments_of(cluster.postmaster()), 0);
            stage.assert_nothing_left();
        }
    });
}

#[test]
fn a_session_that_stays_is_ended_by_the_second_step() {
    as_server_user("clusters::a_session_that_stays_is_ended_by_the_second_step", || async {
        let stage = Stage::plain(15);
        let cluster = stage.start().await;
        let session = Session::open(&cluster).await;
        let stopped = cluster.stop().await;
        assert!(stopped.clean && stopped.how == StopStep::Fast, "{stopped:?}");
        assert!(!session.try_run("SELECT 1").await);
        stage.assert_nothing_left();
    });
}

#[test]
fn a_server_that_cannot_start_shows_its_last_words() {
    as_server_user("clusters::a_server_that_cannot_start_shows_its_last_words", || async {
        let mut stage = Stage::plain(15);
        stage.settings.insert("shared_buffers".to_owned(), "much".to_owned());
        let Err(error) = stage.try_start().await else { panic!("started") };
        let tail = error.log_tail().unwrap();
        assert!(matches!(error, StartError::Died { .. }));
        assert!(
            tail.contains("invalid value for parameter \"shared_buffers\": \"much\""),
            "{tail}"
        );
        stage.assert_nothing_left();
    });
}

#[test]
fn a_library_that_is_not_there_is_named() {
    as_server_user("clusters::a_library_that_is_not_there_is_named", || async {
        let mut stage = Stage::plain(18);
        stage.preload = vec!["pg_tviews".to_owned()];
        let Err(error) = stage.try_start().await else { panic!("started") };
        assert!(error.to_string().contains("could not access file \"pg_tviews\""), "{error}");
        stage.assert_nothing_left();
    });
}

#[test]
fn a_killed_backend_ends_the_server_and_is_named() {
    as_server_user("clusters::a_killed_backend_ends_the_server_and_is_named", || async {
        for major in [15, 18] {
            let stage = Stage::plain(major);
            let cluster = stage.start().await;
            let session = Session::open(&cluster).await;
            let pid = session.pid().await;
            kill(pid);
            let end = within(20, "noticing the crash", cluster.ended()).await;
            let crash = end.crash.unwrap();
            assert_eq!(crash.pid, pid);
            assert!(crash.how.starts_with("terminated by signal 9"), "{}", end.sentence);
            assert!(end.log_tail.contains(&pid.to_string()));
            let stopped = cluster.stop().await;
            assert!(stopped.how == StopStep::Already && !stopped.clean && stopped.left.is_empty());
            stage.assert_nothing_left();
        }
    });
}

#[test]
fn a_killed_postmaster_leaves_nothing_behind() {
    as_server_user("clusters::a_killed_postmaster_leaves_nothing_behind", || async {
        let stage = Stage::plain(15);
        let cluster = stage.start().await;
        let session = Session::open(&cluster).await;
        kill(cluster.postmaster());
        let end = within(20, "noticing the end", cluster.ended()).await;
        assert!(end.sentence.contains("signal: 9"), "{}", end.sentence);
        drop(session);
        let stopped = cluster.stop().await;
        assert_eq!(stopped.left, Vec::<String>::new());
        assert_eq!(segments_of(cluster.postmaster()), 0);
        stage.assert_nothing_left();
    });
}

#[test]
fn a_cluster_that_is_dropped_leaves_no_process() {
    as_server_user("clusters::a_cluster_that_is_dropped_leaves_no_process", || async {
        let stage = Stage::plain(15);
        let cluster = stage.start().await;
        drop(cluster);
        let gone = async {
            while !processes_left(&stage.job).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(20, "the end of every process", gone).await;
        stage.assert_nothing_left();
    });
}

#[test]
fn a_folder_too_deep_for_a_socket_works_all_the_same() {
    as_server_user("clusters::a_folder_too_deep_for_a_socket_works_all_the_same", || async {
        let root = tempfile::Builder::new().prefix("pgsoak-test-").tempdir().unwrap();
        let job = root.path().join("deep".repeat(30));
        let stage = Stage::at(root, job, 15, &BuildRef::Vanilla, None, Tool::Plain);
        let cluster = stage.start().await;
        let short = cluster.socket_dir().to_owned();
        assert!(!short.starts_with(&stage.job));
        assert_eq!(fs::read_link(stage.job.join("run")).unwrap(), short);
        let session = Session::open(&cluster).await;
        session.close().await;
        cluster.stop().await;
        assert!(!short.exists());
        stage.assert_nothing_left();
    });
}

#[test]
fn runners_that_start_together_share_one_template() {
    as_server_user("clusters::runners_that_start_together_share_one_template", || async {
        let (one, mut two) = (Stage::plain(15), Stage::plain(15));
        two.cache.clone_from(&one.cache);
        let (first, second) = tokio::join!(one.start(), two.start());
        let templates: Vec<String> = fs::read_dir(one.cache.join("templates"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        assert!(templates.len() == 1 && templates[0].starts_with("pg15-"), "{templates:?}");
        assert!(first.stop().await.clean && second.stop().await.clean);
    });
}

#[test]
fn a_cache_that_cannot_be_written_is_no_obstacle() {
    as_server_user("clusters::a_cache_that_cannot_be_written_is_no_obstacle", || async {
        let stage = Stage::plain(18);
        let cache = &stage.cache;
        fs::set_permissions(cache, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        let cluster = stage.start().await;
        assert!(!cache.join("templates").exists());
        assert!(cluster.stop().await.clean);
        fs::set_permissions(cache, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    });
}
