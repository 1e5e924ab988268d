//! Tests of the whole room: files as operators write them, against catalogs as the store keeps them.

mod comparing;
mod conf;
mod exporting;
mod merging;
mod random;
mod reading;
mod referring;
mod watching;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::*;
use crate::catalog::Catalog;

/// An environment for tests: names to values, paths to texts.
#[derive(Default)]
struct Fake {
    vars: HashMap<String, String>,
    files: HashMap<String, String>,
}

impl Fake {
    fn with(vars: &[(&str, &str)]) -> Self {
        Self {
            vars: vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            files: HashMap::new(),
        }
    }
}

impl Environment for Fake {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    fn file(&self, path: &str) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A well-formed secret that ends with the digit.
fn secret(digit: char) -> String {
    format!("sk_{}", digit.to_string().repeat(64))
}

fn parse_in(environment: &dyn Environment, text: &str) -> Result<File, Vec<Fault>> {
    let hasher = KeyHasher::new(None);
    let context = Context {
        environment,
        hasher: &hasher,
        flags: &[],
    };
    parse(text, Path::new("obleth.yaml"), &context)
}

/// A file without a fault.
fn file(text: &str) -> File {
    parse_in(&Fake::default(), text).unwrap_or_else(|faults| panic!("{text}\n{faults:#?}"))
}

/// The faults of a file, as they are shown.
fn faults(text: &str) -> Vec<String> {
    let faults = parse_in(&Fake::default(), text).err().unwrap_or_default();
    faults.iter().map(ToString::to_string).collect()
}

/// A store and the file it last applied.
struct Running {
    catalog: Catalog,
    applied: Option<Applied>,
}

impl Running {
    fn new() -> Self {
        Self {
            catalog: Catalog::empty(64),
            applied: None,
        }
    }

    fn started(text: &str) -> Self {
        let mut running = Self::new();
        running.load(text);
        running
    }

    fn load(&mut self, text: &str) -> Plan {
        self.load_file(&file(text), Adoption::Never)
    }

    /// Merges and applies; the record goes through its text, as it does in the store.
    fn load_file(&mut self, file: &File, adoption: Adoption) -> Plan {
        let plan = merge(self.applied.as_ref(), file, &self.catalog, adoption).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let before = self.catalog.clone();
        plan.apply(&mut self.catalog).unwrap();
        if plan.is_empty() {
            assert!(same(&before, &self.catalog), "an empty plan changes nothing");
        }
        self.applied = Some(Applied::from_text(&plan.applied().to_text()).unwrap());
        assert_eq!(
            self.applied.as_ref().unwrap().to_text(),
            plan.applied().to_text(),
            "the record survives its text"
        );
        let again = merge(self.applied.as_ref(), file, &self.catalog, adoption).unwrap();
        assert!(again.is_empty(), "a second merge has nothing to do: {:#?}", again.lines());
        assert_eq!(again.applied().to_text(), plan.applied().to_text());
        plan
    }
}

/// Whether two catalogs share every table.
fn same(one: &Catalog, other: &Catalog) -> bool {
    one.groups().same(other.groups())
        && one.tenants().same(other.tenants())
        && one.keys().same(other.keys())
        && one.models().same(other.models())
        && one.mcp_servers().same(other.mcp_servers())
        && one.max_in_flight() == other.max_in_flight()
}
