//! The files under `conf/` are read by the program they are for.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::config::tree::{Node, Shape};

fn conf(name: &str) -> String {
    fs::read_to_string(format!("{}/conf/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Loads a file of `conf/` into a new store, with nothing in the environment.
fn started(name: &str) -> Running {
    Running::started(&conf(name))
}

#[test]
fn the_smallest_file_runs() {
    let running = started("minimal.yaml");
    assert_eq!(running.catalog.models().len(), 1);
    assert!(conf("minimal.yaml").lines().filter(|line| !line.starts_with('#')).count() < 10);
}

#[test]
fn the_demo_shares_one_model_among_weighted_tenants() {
    let running = started("demo.yaml");
    assert!(running.catalog.groups().len() >= 3 && running.catalog.tenants().len() >= 3);
    assert_eq!(running.catalog.keys().len(), running.catalog.tenants().len());
    assert!(file(&conf("demo.yaml")).settings().server.listen.ip().is_loopback());
}

#[test]
fn the_full_file_runs_as_it_is_with_every_setting_at_its_default() {
    let text = conf("obleth.yaml");
    assert_eq!(*file(&text).settings(), Settings::default());
    let running = Running::started(&text);
    assert!(
        running.catalog.keys().values().all(|key| key.disabled),
        "a documented key opens nothing"
    );
}

#[test]
fn the_full_file_has_every_field_the_program_knows() {
    fn walk(node: &Node, path: &str, seen: &mut BTreeSet<String>) {
        match &node.shape {
            Shape::Map(members) => {
                for member in members {
                    let path = if path.is_empty() {
                        member.name.clone()
                    } else {
                        format!("{path}.{}", member.name)
                    };
                    seen.insert(path.clone());
                    walk(&member.value, &path, seen);
                }
            }
            Shape::List(items) => items.iter().for_each(|item| walk(item, &format!("{path}[]"), seen)),
            _ => {}
        }
    }
    let text = conf("obleth.yaml");
    let mut seen = BTreeSet::new();
    walk(&tree::read(&text).unwrap(), "", &mut seen);
    let mut missing: Vec<String> = reference()
        .into_iter()
        .map(|entry| entry.path)
        .filter(|path| !seen.contains(path))
        .collect();
    // A working secret does not belong into a file that everybody has; the line is there as a comment.
    missing.retain(|path| path != "tenants[].keys[].secret" || !text.contains("# secret: \"${env:"));
    assert!(missing.is_empty(), "conf/obleth.yaml does not show {missing:?}");
}

#[test]
fn the_full_file_tells_the_defaults_it_documents() {
    let text = conf("obleth.yaml");
    for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')) {
        assert!(
            line.is_empty() || line.contains('#') || line.ends_with(':') || line.starts_with('-'),
            "no reason given: {line}"
        );
    }
}
