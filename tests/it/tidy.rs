//! The house as a test: which floor a room stands on, which crates it may name, and a few words that must not be there.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Floors from the ground up. A room names rooms of lower floors only.
const FLOORS: &[&[&str]] = &[
    &["id", "sse", "units"],
    &["scheduler", "quota", "cache", "pricing", "llm", "mcp", "credential", "egress"],
    &["catalog"],
    &["config", "store", "telemetry"],
    &["admission", "limits", "answers", "upstreams", "metering"],
    &["proxy", "admin"],
    &["server"],
    &["cli", "main", "lib"],
];

/// Crates that only some rooms may name.
const HOMES: &[(&str, &[&str])] = &[
    ("pingora", &["proxy", "upstreams", "server"]),
    ("pingora_proxy", &["proxy", "server"]),
    ("pingora_limits", &["limits"]),
    ("axum", &["admin", "server", "cli"]),
    ("utoipa", &["admin"]),
    ("utoipa_axum", &["admin"]),
    ("utoipa_swagger_ui", &["admin"]),
    ("rusqlite", &["store"]),
    ("serde_yaml", &["config"]),
    ("notify", &["config", "server"]),
    ("prometheus_client", &["telemetry"]),
    (
        "tokio",
        &[
            "store",
            "admission",
            "limits",
            "answers",
            "upstreams",
            "metering",
            "proxy",
            "admin",
            "server",
            "cli",
            "main",
        ],
    ),
    (
        "parking_lot",
        &[
            "store",
            "telemetry",
            "admission",
            "limits",
            "answers",
            "upstreams",
            "metering",
            "proxy",
            "admin",
            "server",
            "cli",
        ],
    ),
    (
        "arc_swap",
        &["catalog", "admission", "limits", "answers", "upstreams", "metering", "store"],
    ),
    ("reqwest", &["cli"]),
    ("clap", &["cli", "main"]),
    ("anyhow", &["cli", "main"]),
];

/// Words that do not belong, and what is said instead.
const BANNED: &[(&str, &str)] = &[
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
    ("dbg!", "use tracing"),
    ("FIXME", "mend it"),
    ("#[ignore", "a test that is not run is no test"),
    ("#[should_panic", "assert the error"),
];

/// Names that say nothing of what is inside.
const DRAWERS: &[&str] = &["utils", "util", "common", "helpers", "types", "misc", "manager"];

/// What only pure rooms must not say: time, disk and network come in as arguments.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::thread",
    "async fn",
    "parking_lot",
    "TcpStream",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room of a file: its first folder below `src`, or its own name.
fn room_of(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

/// Code without comments, and whether it ends where tests begin.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .fold(String::new(), |mut code, line| {
            let _ = writeln!(code, "{line}");
            code
        })
}

/// The rooms that `crate::` paths of a text name, grouped imports included.
fn named_rooms(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = code.get(at + "crate::".len()..).unwrap_or_default();
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(first_names(group)),
            None => rooms.extend(word(rest)),
        }
    }
    rooms
}

/// The first names of a group's members: of `a, b::{c, d}, e` they are a, b and e.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut fresh = true;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            letter if fresh && !letter.is_whitespace() => {
                names.extend(word(group.get(at..).unwrap_or_default()));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> Option<String> {
    let word: String = text
        .chars()
        .take_while(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || *letter == '_')
        .collect();
    (!word.is_empty()).then_some(word)
}

/// Whether a text names a crate: at the start of a path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        let after = code.get(at + name.len()..).unwrap_or_default();
        after.starts_with("::") && !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':')
    })
}

/// What is wrong with a file, in sentences.
fn faults(path: &Path, text: &str) -> Vec<String> {
    let room = room_of(path);
    let mut faults = Vec::new();
    let Some(floor) = floor_of(&room) else {
        return vec![format!("{}: room `{room}` stands on no floor", path.display())];
    };
    let mut say = |what: String| faults.push(format!("{}: {what}", path.display()));
    if !text.starts_with("//!") {
        say("the first line must say what the file is".to_owned());
    }
    let code = code(text);
    for other in named_rooms(&code) {
        if other != room && floor_of(&other).is_some_and(|other| other >= floor) {
            say(format!("room `{room}` must not know `{other}`"));
        }
    }
    for (name, homes) in HOMES {
        if !homes.contains(&room.as_str()) && names_crate(&code, name) {
            say(format!("room `{room}` must not name the crate `{name}`"));
        }
    }
    for (banned, instead) in BANNED {
        if code.contains(banned) {
            say(format!("`{banned}`: {instead}"));
        }
    }
    let is_test = path
        .components()
        .any(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs").ends_with("tests"));
    if floor <= 2 && !is_test {
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for impure in IMPURE {
            if code.contains(impure) {
                say(format!("`{impure}` in the pure room `{room}`: take it as an argument"));
            }
        }
    }
    let stem = path.file_stem().unwrap().to_str().unwrap();
    if DRAWERS.contains(&stem) || path.components().any(|part| DRAWERS.contains(&part.as_os_str().to_str().unwrap())) {
        say("a name that says nothing of what is inside".to_owned());
    }
    faults
}

#[test]
fn every_file_keeps_to_its_room() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 50, "the sources were found");
    let faults: Vec<String> = files
        .iter()
        .flat_map(|file| faults(file.strip_prefix(&src).unwrap(), &fs::read_to_string(file).unwrap()))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_check_itself_finds_each_kind_of_fault() {
    let of = |path: &str, text: &str| faults(Path::new(path), text).join("; ");
    assert!(of("scheduler/mod.rs", "//! x\nuse crate::proxy::Gateway;").contains("room `scheduler` must not know `proxy`"));
    assert!(of("store/mod.rs", "//! x\nuse crate::{catalog, admin::{a, b}};").contains("room `store` must not know `admin`"));
    assert!(of("proxy/a.rs", "//! x\nfn f() { crate::admin::serve() }").contains("room `proxy` must not know `admin`"));
    assert!(of("limits/mod.rs", "//! x\nuse rusqlite::Connection;").contains("must not name the crate `rusqlite`"));
    assert!(of("quota/mod.rs", "//! x\nfn f() { std::time::Instant::now(); }").contains("take it as an argument"));
    assert!(of("quota/utils.rs", "//! x").contains("a name that says nothing"));
    assert!(of("quota/mod.rs", "fn f() { todo!() }").contains("the first line"));
    assert!(of("attic/mod.rs", "//! x").contains("stands on no floor"));
    assert_eq!(
        of(
            "proxy/a.rs",
            "//! x\nuse crate::{catalog::Live, llm::{Tap, admin_word}};\n// crate::admin is not known\n"
        ),
        ""
    );
}

#[test]
fn the_top_level_holds_what_it_should_and_nothing_else() {
    const ALLOWED: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "conf",
        "benches",
        "tests",
        "scripts",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "target",
        "data",
    ];
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || ALLOWED.contains(&name.as_str()),
            "{name} has no place at the top level"
        );
    }
}
