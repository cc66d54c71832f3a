//! Private trees: the server reports private folders, and two builds of one extension run side by side.

use crate::stage::{Session, Stage, as_server_user, build, cache, server};
use pgsoak_agent::package::Package;
use pgsoak_agent::tree::Tree;
use pgsoak_proto::job::{BuildRef, Tool};
use std::fs;

#[test]
fn a_server_lives_in_its_private_tree() {
    as_server_user("trees::a_server_lives_in_its_private_tree", || async {
        for major in [15, 16, 18] {
            let stage = Stage::plain(major);
            let cluster = stage.start().await;
            let session = Session::open(&cluster).await;
            for name in ["BINDIR", "PKGLIBDIR", "SHAREDIR"] {
                let place = session
                    .text(&format!("SELECT setting FROM pg_config WHERE name = '{name}'"))
                    .await;
                assert!(
                    place.starts_with(stage.job.join("tree").to_str().unwrap()),
                    "{major} {name}: {place}"
                );
            }
            // A library and a script that came by a link.
            assert!(session.try_run("DO $$ BEGIN PERFORM 1; END $$").await, "plpgsql of {major}");
            assert!(session.text("SHOW server_version").await.starts_with(&major.to_string()));
            session.close().await;
            assert!(cluster.stop().await.clean);
            stage.assert_nothing_left();
        }
    });
}

#[test]
fn two_releases_of_one_extension_run_side_by_side() {
    as_server_user("trees::two_releases_of_one_extension_run_side_by_side", || async {
        let releases = ["0.1.0-beta.20", "0.1.0-beta.34"];
        let stages = releases.map(|release| {
            let mut stage = Stage::new(
                18,
                &build(&format!("pg_tviews@{release}")),
                Some("pg_tviews"),
                Tool::Plain,
            );
            stage.preload = vec!["pg_tviews".to_owned()];
            stage
        });
        let clusters = tokio::join!(stages[0].start(), stages[1].start());
        let clusters = [clusters.0, clusters.1];
        for ((cluster, stage), release) in clusters.iter().zip(&stages).zip(releases) {
            assert_eq!(stage.tree.default_version("pg_tviews").as_deref(), Some(release));
            let session = Session::open(cluster).await;
            assert!(session.try_run("CREATE EXTENSION pg_tviews CASCADE").await);
            let version = session
                .text("SELECT extversion FROM pg_extension WHERE extname = 'pg_tviews'")
                .await;
            assert_eq!(version, release);
            session.close().await;
        }
        for (cluster, stage) in clusters.iter().zip(&stages) {
            let stopped = cluster.stop().await;
            assert!(stopped.clean && stopped.left.is_empty(), "{stopped:?}");
            stage.assert_nothing_left();
        }
    });
}

#[test]
fn what_a_package_brings_hides_what_is_installed() {
    let root = tempfile::tempdir().unwrap();
    let package = root.path().join("package");
    fs::create_dir(&package).unwrap();
    fs::write(package.join("plpgsql.so"), "another").unwrap();
    fs::write(package.join("plpgsql.control"), "default_version = '99'").unwrap();
    let found = Package::resolve(&BuildRef::Dir(package), &cache(), 15, Some("plpgsql")).unwrap();
    let installation = server(15);
    let tree = Tree::build(&installation, &found, &root.path().join("tree")).unwrap();
    assert_eq!(tree.default_version("plpgsql").as_deref(), Some("99"));
    assert_eq!(fs::read_to_string(tree.library_dir.join("plpgsql.so")).unwrap(), "another");
    assert!(!tree.share_dir.join("extension/plpgsql--1.0.sql").exists());
    assert_ne!(installation.default_version("plpgsql").as_deref(), Some("99"));
}
