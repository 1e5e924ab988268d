//! The README's shell blocks, run as they stand but for addresses and the paths of programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Gateway, Upstream};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The lines of the README's `sh` blocks, continuation lines joined.
fn commands() -> Vec<String> {
    let text = readme();
    let mut commands = Vec::new();
    let mut inside = false;
    for line in text.replace("\\\n", " ").lines() {
        match line {
            "```sh" => inside = true,
            _ if line.starts_with("```") => inside = false,
            _ if inside && !line.trim().is_empty() => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

/// What is not run here, and who runs it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("cargo build", "whoever builds this test has built the program"),
    ("export OBLETH_ADMIN_TOKEN=", "the gateway that runs has a token of its own"),
    ("scripts/setup", "the first step of scripts/test"),
    ("scripts/demo", "a step of scripts/test, without the waiting"),
    ("scripts/test", "what runs this"),
    ("scripts/soak", "takes an hour; each of its parts is a test that runs briefly"),
];

#[test]
fn what_the_readme_shows_is_run_by_somebody() {
    let fences: Vec<_> = readme()
        .lines()
        .filter_map(|line| line.strip_prefix("```").map(str::to_owned))
        .collect();
    // Shell is run below, Python by tests/clients with the official client.
    let strange: Vec<_> = fences
        .iter()
        .step_by(2)
        .filter(|language| *language != "sh" && *language != "python")
        .collect();
    assert!(
        strange.is_empty() && fences.len().is_multiple_of(2),
        "blocks that nobody runs: {strange:?}"
    );
    let commands = commands();
    for (beginning, why) in ELSEWHERE {
        assert!(
            commands.iter().any(|command| command.starts_with(beginning)),
            "{beginning} ({why}) is gone from the README"
        );
    }
    // What stands in running text is at least there.
    for word in readme().split('`').skip(1).step_by(2) {
        let path = word.split_whitespace().next().unwrap_or_default();
        let ours = ["conf/", "scripts/", "src/", "tests/", "benches/"]
            .iter()
            .any(|folder| path.starts_with(folder));
        assert!(
            !ours || Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(),
            "no such path: {path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_does_what_it_should() {
    let upstream = Upstream::start(&["--output-tokens", "3"]).await;
    let gateway = Gateway::start_configured("");
    let address = upstream.url().replace("http://", "");
    let scratch = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The repository's files are at hand, and what commands write harms nothing.
    std::os::unix::fs::symlink(root.join("conf"), scratch.path().join("conf")).unwrap();
    let mut script = "set -eu\n".to_owned();
    let mut count = 0;
    for command in commands() {
        if ELSEWHERE.iter().any(|(elsewhere, _)| command.starts_with(elsewhere)) {
            continue;
        }
        count += 1;
        let mut line = command
            .replace("target/release/obleth", "obleth")
            .replace("127.0.0.1:8080", &gateway.data.to_string())
            .replace("127.0.0.1:9090", &gateway.management.to_string())
            .replace("127.0.0.1:8000", &address)
            .replace("127.0.0.1:11434", &address);
        // What runs until it is stopped is running already; that its flags are good is asked for.
        if line.starts_with("obleth serve") || line.starts_with("obleth sim-upstream") {
            line = format!("{} --help > /dev/null", line.split('#').next().unwrap_or_default());
        }
        if line.starts_with("obleth diff") {
            // It says with 1 that there are differences, and there are.
            line = format!("{{ {}\n}} || test $? = 1", line);
        }
        let _ = writeln!(script, "echo {}\n{line}", shell_quoted(&command));
    }
    assert!(count > 10, "the README was read");
    let bin = Path::new(env!("CARGO_BIN_EXE_obleth")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let operator = gateway.operator(&[]);
    let environment: Vec<_> = operator
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script])
        .current_dir(scratch.path())
        .env("PATH", path)
        .envs(environment);
    let output = tokio::task::block_in_place(|| shell.output().unwrap());
    assert!(
        output.status.success(),
        "{}\n--- standard error:\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("chat.completion"), "a client was answered: {said}");
}

fn shell_quoted(text: &str) -> String {
    format!("'+ {}'", text.replace('\'', "'\\''"))
}
