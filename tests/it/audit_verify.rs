//! `obleth audit verify`: on a store that a gateway runs on, on one at rest, and on one that was tampered with.

use std::path::Path;
use std::process::{Command, Output};

use rusqlite::Connection;
use serde_json::json;

use crate::support::Gateway;

fn verify(store: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obleth"));
    command.args(["audit", "verify", "--store"]).arg(store).args(more);
    command.output().expect("the program starts")
}

/// What a verification that finds nothing wrong says.
fn intact(store: &Path, more: &[&str]) -> String {
    let output = verify(store, more);
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{error}");
    said.trim_end().to_owned()
}

/// What one that finds something says.
fn refused(store: &Path, more: &[&str], code: i32, says: &str) {
    let output = verify(store, more);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(says), "{error}");
}

fn head(said: &str) -> String {
    said.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_audit_log_is_verified_beside_a_running_gateway_and_after_it() {
    let mut gateway = Gateway::start().await;
    gateway.tenant(json!({ "name": "first" })).await;
    let early = intact(&gateway.store(), &[]);
    assert!(early.starts_with("1 rows, each as it was written; head 1:"), "{early}");
    // The gateway goes on writing, and what was noted still holds.
    gateway.tenant(json!({ "name": "second" })).await;
    let late = intact(&gateway.store(), &["--noted", &head(&early)]);
    assert!(late.starts_with("2 rows"), "{late}");
    gateway.terminate();
    gateway.ended(std::time::Duration::from_secs(10)).await;
    let before = std::fs::read(gateway.store()).unwrap();
    assert_eq!(intact(&gateway.store(), &[]), late);
    assert!(std::fs::read(gateway.store()).unwrap() == before, "reading wrote");
    refused(
        &gateway.store(),
        &["--noted", &format!("1:{}", "0".repeat(64))],
        1,
        "row 1 is not the one that was noted",
    );
    gateway.restart();
    gateway.tenant(json!({ "name": "third" })).await;
    gateway.end();
    assert!(
        intact(&gateway.store(), &[]).starts_with("3 rows"),
        "what kill -9 left in the WAL counts"
    );
}

#[tokio::test]
async fn the_first_row_that_was_tampered_with_is_named() {
    let mut gateway = Gateway::start().await;
    for number in 0..4 {
        gateway.tenant(json!({ "name": format!("tenant {number}") })).await;
    }
    gateway.terminate();
    gateway.ended(std::time::Duration::from_secs(10)).await;
    let noted = head(&intact(&gateway.store(), &[]));
    let raw = Connection::open(gateway.store()).unwrap();
    raw.execute_batch("DROP TRIGGER audit_is_never_changed; UPDATE audit SET actor = 'nobody' WHERE seq = 3")
        .unwrap();
    drop(raw);
    refused(&gateway.store(), &[], 1, "is broken at row 3");
    refused(&gateway.store(), &["--noted", &noted], 1, "row 4 is not the one that was noted");
}

#[test]
fn what_is_no_store_cannot_be_told_about() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("obleth.db");
    refused(&store, &[], 2, "No such file");
    assert!(scratch.path().read_dir().unwrap().next().is_none(), "nothing is made");
    std::fs::write(&store, "a shopping list").unwrap();
    refused(&store, &[], 2, "is damaged or is no obleth store");
    std::fs::write(&store, "").unwrap();
    refused(&store, &[], 2, "is damaged or is no obleth store");
    refused(&store, &["--noted", "12"], 2, "must be a row and its hash");
}
