//! The command line: exit codes, and errors of one line that say what to do.

use std::net::TcpListener;
use std::process::{Command, Output};

fn obleth(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obleth"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.output().expect("the program starts")
}

fn refused(arguments: &[&str], environment: &[(&str, &str)], code: i32, says: &str) {
    let output = obleth(arguments, environment);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(error.contains(says), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}: errors go to standard error");
    if code != 2 {
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
}

#[test]
fn a_bad_set_up_is_78_with_one_line_that_says_what_to_do() {
    let token = ("OBLETH_ADMIN_TOKEN", "0123456789abcdef");
    refused(&["serve"], &[], 78, "set OBLETH_ADMIN_TOKEN");
    refused(&["serve"], &[("OBLETH_ADMIN_TOKEN", "short")], 78, "at least 16 characters");
    refused(
        &["serve"],
        &[token, ("OBLETH_ENCRYPTION_KEY", "x")],
        78,
        "OBLETH_ENCRYPTION_KEY must be 64",
    );
    refused(
        &["serve"],
        &[token, ("OBLETH_ADMIN_LISTEN", "nowhere")],
        78,
        "environment: OBLETH_ADMIN_LISTEN: must be an IP address and a port",
    );
    refused(
        &["serve", "--queue-timeout-ms", "0"],
        &[token],
        78,
        "command line: scheduler.queue_timeout_ms: must be an integer from 1",
    );
    refused(
        &["serve"],
        &[token, ("OBLETH_LIMITS_MAX_CONNECTIONS", "0")],
        78,
        "environment: OBLETH_LIMITS_MAX_CONNECTIONS: must be an integer from 1",
    );
}

#[test]
fn an_address_that_is_taken_is_78_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("obleth.db");
    let arguments = [
        "serve",
        "--listen",
        &address,
        "--admin-listen",
        "127.0.0.1:0",
        "--store",
        store.to_str().unwrap(),
    ];
    refused(
        &[&arguments[..], &["--log-level", "error"]].concat(),
        &[("OBLETH_ADMIN_TOKEN", "0123456789abcdef")],
        78,
        &address,
    );
}

#[test]
fn wrong_usage_is_2_and_shows_the_usage() {
    refused(&[], &[], 2, "Usage: obleth");
    refused(&["dance"], &[], 2, "unrecognized subcommand");
    refused(&["serve", "--threads", "many"], &[], 2, "--threads");
    refused(&["serve", "--log-level", "chatty"], &[], 2, "--log-level");
    refused(&["sim-upstream", "--fault", "explode"], &[], 1, "explode");
}

#[test]
fn versions_and_completions_go_to_standard_output() {
    let version = obleth(&["--version"], &[]);
    assert!(version.status.success());
    assert_eq!(
        String::from_utf8(version.stdout).unwrap().trim(),
        format!("obleth {}", env!("CARGO_PKG_VERSION"))
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = obleth(&["completions", shell], &[]);
        assert!(
            script.status.success() && String::from_utf8(script.stdout).unwrap().contains("sim-upstream"),
            "{shell}"
        );
    }
}
