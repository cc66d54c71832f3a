//! `pgsoak backup` of a coordinator at work, restored; and `pgsoak coordinator --check` on sound and damaged folders.

use crate::evidence;
use crate::fleet::Fleet;
use crate::support::{pgsoak, show, stdout, text};
use serde_json::Value;
use std::{fs, os::unix::fs::FileExt as _, path::Path, process::Output};

fn check(data: &Path) -> (Output, Value) {
    let output =
        pgsoak(&["coordinator", "--check", "--json", "--data-dir", text(data)]).output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, said)
}

#[test]
fn a_backup_of_a_coordinator_at_work_is_restored_with_the_same_reports() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let over = fleet.submit(&fleet.plan(15, 1, ""));
    assert_eq!(fleet.verdict(&over), "pass", "{:#}", fleet.report(&over));
    let report = fleet.report(&over);
    let stored = evidence::stored(&fleet.url(), &over);

    let under_way = fleet.submit(&fleet.plan(30, 1, "on_lost = \"retry\""));
    fleet.wait_for_samples(&under_way);
    let copy = fleet.dir.path().join("copy");
    let said = stdout(&mut fleet.ask(&["backup", text(&copy), "--json"]));
    let summary: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(summary["runs"], 2, "{said}");
    assert!(summary["files"].as_u64().unwrap() >= 1, "{said}");
    println!("{said}");
    let again = fleet.ask(&["backup", text(&copy)]).output().unwrap();
    assert_eq!(again.status.code(), Some(3), "{}", show(&again));
    assert!(show(&again).contains("there already"), "{}", show(&again));

    let (output, checked) = check(&copy);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(checked["runs"], 2, "{checked}");
    assert!(checked["frames"].as_u64().unwrap() > 50, "{checked}");

    // The coordinator at work goes on undisturbed, and is told to look elsewhere.
    let (output, _) = check(&fleet.coordinator.data);
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    assert!(show(&output).contains("in use"), "{}", show(&output));
    assert_eq!(fleet.verdict(&under_way), "pass");
    fleet.check_nothing_left();
    let report_of_second = fleet.report(&under_way);

    // The copy takes the place of the data folder; the agent finds its coordinator again.
    fleet.coordinator.kill();
    fs::rename(&fleet.coordinator.data, fleet.dir.path().join("old")).unwrap();
    fs::rename(&copy, &fleet.coordinator.data).unwrap();
    fleet.start_coordinator();
    fleet.wait_for_agents();
    assert_eq!(fleet.report(&over), report);
    let restored = evidence::stored(&fleet.url(), &over);
    assert_eq!(restored.len(), stored.len());
    for (key, attempt) in &stored {
        assert_eq!(restored[key].frames, attempt.frames, "evidence differs");
    }
    // The copy knows the second run as under way. What came after it is gone with the agent's spool: the job is lost there,
    // and tried again.
    assert_eq!(fleet.verdict(&under_way), "pass", "{:#}", fleet.report(&under_way));
    let second = fleet.report(&under_way);
    assert_eq!(second["jobs"][0]["attempts"], 2, "{second:#}");
    assert_eq!(second["jobs"][0]["job"], report_of_second["jobs"][0]["job"]);
    fleet.check_nothing_left();
}

#[test]
fn a_damaged_folder_is_told_from_a_sound_one() {
    let mut fleet = Fleet::new(1, 1);
    fleet.start();
    let run = fleet.submit(&fleet.plan(15, 1, ""));
    assert_eq!(fleet.verdict(&run), "pass");
    fleet.check_nothing_left();
    fleet.coordinator.kill();
    let data = fleet.coordinator.data.clone();
    let (output, checked) = check(&data);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(checked["problems"], Value::Array(Vec::new()), "{checked}");

    // A bit of a raw file, and then a stretch of the evidence.
    let artifacts = data.join("artifacts").join(&run);
    let job = fs::read_dir(&artifacts).unwrap().next().unwrap().unwrap().path();
    let file = fs::read_dir(job).unwrap().next().unwrap().unwrap().path();
    flip(&file, 3, 1);
    let (output, checked) = check(&data);
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    assert!(checked["problems"][0].as_str().unwrap().contains("digest"), "{checked}");

    let db = data.join("runs").join(&run).join("db");
    let length = fs::metadata(&db).unwrap().len();
    flip(&db, length / 4, 4_096);
    let (output, checked) = check(&data);
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    assert!(checked["problems"].as_array().unwrap().len() >= 2, "{checked}");
    assert!(checked["problems"].to_string().contains(&run), "{checked}");

    let nowhere =
        pgsoak(&["coordinator", "--check", "--data-dir", "/nonexistent"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(3), "{}", show(&nowhere));
    assert!(!Path::new("/nonexistent").exists(), "a check makes nothing");
}

/// Turns bits of a file over.
fn flip(path: &Path, at: u64, bytes: usize) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut found = vec![0; bytes];
    file.read_exact_at(&mut found, at).unwrap();
    for byte in &mut found {
        *byte ^= 0xff;
    }
    file.write_all_at(&found, at).unwrap();
}
