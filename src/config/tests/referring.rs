//! The reference under `conf/`: every field off the tables that read it, its reason out of the file that shows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use super::*;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/REFERENCE.md");

const PREFACE: &str = "\
# Configuration reference

Made from the program's own tables and `conf/obleth.yaml` by a test that fails when it is stale; do not edit it. To make it anew:
`OBLETH_UPDATE_SNAPSHOTS=1 cargo test --lib config::tests::referring`.

- **Reload.** `live` fields are applied when the file changes, at SIGHUP and by `obleth reload`, without losing a request. `restart`
  fields are read at start; a reload that finds one changed applies the rest and names it (`GET /api/v1/config/status`,
  `obleth_config_restart_required`).
- **Precedence.** A `restart` setting, and `capacity.max_in_flight`, is what its flag says (`obleth serve --help`), else its variable
  (`server.listen` is `OBLETH_SERVER_LISTEN`), else the file, else its default. Of a live field the most recent edit wins, whether
  the file's or the API's.
- **Put in.** `${env:NAME}` and `${file:PATH}` work in any text and may be part of it; what they bring in may also be a number or
  `true`; a file's last line end is dropped; `$${` is a literal `${`. A variable that is not set and a file that cannot be read (or is
  longer than 1 MiB) are errors. A credential that is nothing but one of them is kept as that reference and looked up at each
  reload; its value is never stored, shown or exported.
- **Durations** are whole numbers of the unit in the field's name (`_ms`, `_secs`, `_days`); amounts of money are dollars.
- **Strict.** Unknown fields, values out of range and a file cut short are errors, told all at once with line and column; then nothing
  of the file is applied.

Secrets of the gateway itself come from the environment only: `OBLETH_ADMIN_TOKEN`, `OBLETH_ENCRYPTION_KEY`,
`OBLETH_API_KEY_PEPPER`, each also as `…_FILE` with a path.
";

#[test]
fn the_reference_is_what_the_program_reads() {
    let made = written();
    if std::env::var_os("OBLETH_UPDATE_SNAPSHOTS").is_some() {
        fs::write(PATH, &made).unwrap();
    }
    let kept = fs::read_to_string(PATH).unwrap_or_default();
    for (number, (kept, made)) in kept.lines().zip(made.lines()).enumerate() {
        assert_eq!(
            kept,
            made,
            "conf/REFERENCE.md:{} is stale; its head says how to make it anew",
            number + 1
        );
    }
    assert_eq!(
        kept.len(),
        made.len(),
        "conf/REFERENCE.md is stale; its head says how to make it anew"
    );
}

/// The whole file.
fn written() -> String {
    let reasons = reasons(&fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/obleth.yaml")).unwrap());
    let mut text = PREFACE.to_owned();
    let mut section = String::new();
    for entry in reference() {
        let (of, name) = entry.path.rsplit_once('.').unwrap();
        if of != section {
            of.clone_into(&mut section);
            let about = reasons.get(of.trim_end_matches("[]")).map_or("", String::as_str);
            let _ = write!(text, "\n## `{of}`\n\n");
            if !about.is_empty() {
                let _ = write!(text, "{about}\n\n");
            }
            text.push_str("| field | must be | default | unit | reload | why |\n|---|---|---|---|---|---|\n");
        }
        let reason = reasons.get(&entry.path).map_or("", String::as_str);
        assert!(!reason.is_empty(), "conf/obleth.yaml gives no reason for {}", entry.path);
        let default = match (&entry.default, entry.required) {
            (_, true) => "required".to_owned(),
            (Some(default), _) => format!("`{default}`"),
            (None, _) => "–".to_owned(),
        };
        let reload = if entry.live { "live" } else { "restart" };
        let cells = [&format!("`{name}`"), &entry.accepts, &default, unit(&entry.path), reload, reason];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// What a number counts, as its name says.
fn unit(path: &str) -> &'static str {
    let name = path.rsplit(['.', ']']).next().unwrap_or_default();
    let ends = |end: &str| name.ends_with(end);
    match () {
        () if ends("_ms") => "ms",
        () if ends("_secs") => "s",
        () if ends("_days") => "days",
        () if ends("_bytes") => "bytes",
        () if ends("_per_token") => "USD/token",
        () if ends("cost_per_request") => "USD/request",
        () if ends("_usd") => "USD",
        () if ends("tokens_per_minute") => "tokens/min",
        () if ends("requests_per_minute") => "requests/min",
        () if ends("budget_tokens") || ends("context_window") => "tokens",
        () if ends("max_in_flight") || ends("max_queued") => "requests",
        () if ends("admission_weight") => "%",
        () if ends("threads") => "threads",
        () if ends("max_connections") || ends("per_address") => "connections",
        () if ends("max_listening_streams") => "streams",
        () => "",
    }
}

/// The comments of a file by the path they stand behind; of a path that comes twice, the first.
fn reasons(text: &str) -> BTreeMap<String, String> {
    let mut reasons = BTreeMap::new();
    // Names above the present line, with the column that they stand in.
    let mut above: Vec<(usize, String)> = Vec::new();
    for line in text.lines() {
        // An example that must not work stands in a comment.
        let line = line.replace("# secret: ", "secret: ");
        let listed = line.replacen("- ", "  ", 1);
        let column = listed.len() - listed.trim_start().len();
        let Some((name, rest)) = listed.trim_start().split_once(':').filter(|(name, _)| is_field(name)) else {
            continue;
        };
        above.retain(|(of, _)| *of < column);
        let item = line.trim_start().starts_with("- ") || above.last().is_some_and(|(of, _)| column >= of + 4);
        if let (true, Some((_, list))) = (item, above.last_mut())
            && !list.ends_with("[]")
        {
            list.push_str("[]");
        }
        let path: Vec<&str> = above.iter().map(|(_, name)| name.as_str()).chain([name]).collect();
        if let Some((_, reason)) = rest.rsplit_once(" # ") {
            reasons.entry(path.join(".")).or_insert_with(|| reason.trim().to_owned());
        }
        above.push((column, name.to_owned()));
    }
    reasons
}

fn is_field(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
}
