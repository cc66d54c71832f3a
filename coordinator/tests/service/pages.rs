//! The HTTP listener as browsers, scrapers and supervisors meet it.

use crate::scripted::{PATIENCE, Scripted, Stage, ended, frames, plan};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::wire;
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::{net::TcpStream, time::timeout};

/// Head and body of an answer.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    ask(address, "GET", path).await
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("an answer").unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn a_run_can_be_followed_and_read_by_pages_alone() {
    let mut stage = Stage::new().await;
    let http = stage.http();
    let (status, _, body) = get(http, "/runs").await;
    assert!(status == 200 && body.contains("No run fits"), "{body}");

    let mut agent = Scripted::new("lab-1");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    agent.evidence(lease, frames(1, 2)).await;
    agent.acknowledged(lease, 2).await;
    agent.heartbeat(&[lease]).await;
    stage.until(&run, |view| view.jobs[0].progress.is_some()).await;

    let (status, head, list) = get(http, "/runs?verdict=running").await;
    assert_eq!(status, 200);
    assert!(list.contains(&format!("/runs/{run}")), "{list}");
    for (name, value) in [
        ("content-security-policy", "default-src 'none'"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "deny"),
        ("referrer-policy", "no-referrer"),
    ] {
        let line =
            head.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        assert!(line.contains(value), "{line}");
    }
    let (_, _, page) = get(http, &format!("/runs/{run}")).await;
    assert!(page.contains("lab-1") && page.contains("a, round 1"), "{page}");
    assert!(page.contains(&format!("data-live=\"/runs/{run}/live\"")), "{page}");

    // Live: the present state at once, and the end when it comes.
    let stream = TcpStream::connect(http).await.unwrap();
    let mut live = BufReader::new(stream);
    let request = format!("GET /runs/{run}/live HTTP/1.1\r\nhost: x\r\n\r\n");
    live.get_mut().write_all(request.as_bytes()).await.unwrap();
    let mut lines = live.lines();
    let mut next = async |wanted: &str| {
        let waiting = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(wanted) {
                    return true;
                }
            }
            false
        };
        assert!(timeout(PATIENCE, waiting).await.expect("in time"), "no line with {wanted}");
    };
    next("event: state").await;
    next("round 1").await;
    agent.evidence(lease, vec![ended(3, Outcome::Failed, "<script>alert(1)</script>")]).await;
    agent.acknowledged(lease, 3).await;
    next("event: over").await;
    stage.finished(&run).await;

    let (_, _, page) = get(http, &format!("/runs/{run}")).await;
    assert!(!page.contains("data-live") && page.contains("report.html"), "{page}");
    // What comes from outside is text, never markup.
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"), "{page}");
    let (_, _, list) = get(http, "/runs?text=%22%3E%3Cscript%3Ealert(1)").await;
    assert!(list.contains("&lt;script&gt;alert(1)") && !list.contains("<script>alert"), "{list}");
    for (file, holds) in [
        ("report.html", "<html"),
        ("report.md", "# "),
        ("report.json", "\"verdict\""),
        ("report.xml", "<testsuites"),
    ] {
        let (status, head, body) = get(http, &format!("/runs/{run}/{file}")).await;
        assert!(status == 200 && body.contains(holds), "{file}: {status} {head}");
    }
    let (_, _, agents) = get(http, "/agents").await;
    assert!(agents.contains("lab-1") && agents.contains("badge ready"), "{agents}");
    stage.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_and_nothing_can_be_changed() {
    let mut stage = Stage::new().await;
    let http = stage.http();
    let run = stage.submit(&plan(""), "key").await;
    for (path, status) in [
        ("/nothing", 404),
        ("/runs/ffffffff", 404),
        ("/runs?since=yesterday", 400),
        ("/runs?after=ffffffff", 404),
        (&format!("/runs/{run}/report.html"), 409),
        (&format!("/runs/{run}/report.exe"), 404),
        (&format!("/runs/{run}/artifacts/{run}/1/x"), 404),
        (&format!("/runs/{run}/artifacts/zzz/1/..%2f..%2fetc%2fpasswd"), 400),
    ] {
        let (got, _, body) = get(http, path).await;
        assert_eq!(got, status, "{path}: {body}");
    }
    for method in ["POST", "DELETE", "PUT"] {
        let (status, _, _) = ask(http, method, &format!("/runs/{run}")).await;
        assert_eq!(status, 405, "{method}");
    }
    assert_eq!(stage.until(&run, |_| true).await.stage(), wire::RunStage::Queued);
    stage.stop().await;
}

#[tokio::test]
async fn metrics_follow_what_happens() {
    let mut stage = Stage::new().await;
    let http = stage.http();
    let mut agent = Scripted::new("a");
    agent.connect(&stage.socket(), vec![]).await;
    let run = stage.submit(&plan(""), "key").await;
    let lease = agent.assignment().await.lease;
    let value = async |name: &str| -> f64 {
        let (status, head, text) = get(http, "/metrics").await;
        assert!(status == 200 && head.contains("openmetrics-text"), "{head}");
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert_eq!(value("pgsoak_fleet_agents{state=\"ready\"}").await, 1.0);
    assert_eq!(value("pgsoak_fleet_slots{state=\"busy\"}").await, 1.0);
    assert_eq!(value("pgsoak_queue_runs{state=\"running\"}").await, 1.0);
    agent
        .evidence(lease, [frames(1, 4), vec![ended(5, Outcome::Infrastructure, "disk")]].concat())
        .await;
    agent.acknowledged(lease, 5).await;
    // The same once more is not counted twice.
    agent.evidence(lease, frames(2, 3)).await;
    agent.acknowledged(lease, 3).await;
    stage.finished(&run).await;
    assert_eq!(value("pgsoak_ingest_frames_total").await, 5.0);
    assert_eq!(value("pgsoak_run_finished_total{verdict=\"invalid\"}").await, 1.0);
    assert_eq!(value("pgsoak_history_runs").await, 1.0);
    assert!(value("pgsoak_ingest_lag_seconds_count").await >= 1.0);
    assert!(value("pgsoak_process_resident_bytes").await > 1e6);
    stage.stop().await;
}

#[tokio::test]
async fn health_is_told_from_readiness() {
    let mut stage = Stage::new().await;
    let http = stage.http();
    assert_eq!(get(http, "/healthz").await.0, 200);
    let (status, _, body) = get(http, "/readyz").await;
    assert_eq!((status, body.as_str()), (200, "ready\n"));
    // A folder that takes no file: alive, and not ready.
    let data = stage.data();
    std::fs::remove_file(data.join("ready-probe")).unwrap();
    std::fs::create_dir(data.join("ready-probe")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let (status, _, body) = get(http, "/readyz").await;
    assert!(status == 503 && body.contains("cannot be written"), "{status} {body}");
    assert_eq!(get(http, "/healthz").await.0, 200);
    stage.stop().await;
}
