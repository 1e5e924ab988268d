//! Reads sections and objects off the tree, field by field, and goes on after a fault: an operator sees all of them at once.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use serde_json::{Map, Value};

use super::Context;
use super::environment::{expand, sole_reference};
use super::fault::{At, Faults};
use super::field::{Field, Vault};
use super::kind::{Kind, Scalar};
use super::tree::{Member, Node, Shape};
use crate::egress::{self, Policy};

/// Canonical values by field: what an object of the file states.
pub(super) type Stated = BTreeMap<String, Value>;

/// Labels, as the management API bounds them.
const LABELS_MAX: usize = 64;
const LABEL_NAME_MAX: usize = 128;
const LABEL_MAX: usize = 4096;

/// What reading needs, and what it has found.
pub(super) struct Reading<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) faults: Faults,
    /// Secrets behind the canonical values.
    pub(super) vault: Vault,
    /// Where upstreams may be, as the file's own settings say.
    pub(super) policy: Policy,
    pub(super) own: Vec<SocketAddr>,
}

/// The members of a mapping that nobody has taken yet.
pub(super) struct Members<'n> {
    /// The mapping's number, for faults about what is missing.
    pub(super) at: usize,
    rest: Vec<&'n Member>,
}

impl<'n> Members<'n> {
    pub(super) fn take(&mut self, name: &str) -> Option<&'n Member> {
        let index = self.rest.iter().position(|member| member.name == name)?;
        Some(self.rest.swap_remove(index))
    }

    /// The same, where `null` is as good as absent.
    pub(super) fn given(&mut self, name: &str) -> Option<&'n Member> {
        self.take(name).filter(|member| !matches!(member.value.shape, Shape::Null))
    }
}

impl Reading<'_> {
    /// The members of a mapping, each name once. `null` is an empty one.
    pub(super) fn members<'n>(&mut self, node: &'n Node, path: &str) -> Option<Members<'n>> {
        let members = match &node.shape {
            Shape::Map(members) => members.as_slice(),
            Shape::Null => &[],
            _ => {
                self.faults.add(At::Node(node.at), path, "must be a mapping");
                return None;
            }
        };
        let mut seen = HashSet::new();
        let mut rest = Vec::with_capacity(members.len());
        for member in members {
            if seen.insert(member.name.as_str()) {
                rest.push(member);
            } else {
                self.faults.add(At::Node(member.at), &join(path, &member.name), "is given twice");
            }
        }
        Some(Members { at: node.at, rest })
    }

    /// Judges what nobody took.
    pub(super) fn leftovers(&mut self, members: &Members<'_>, path: &str, noun: &str) {
        for member in &members.rest {
            let message = if path.is_empty() {
                "is no section of the configuration".to_owned()
            } else {
                format!("is no field of {noun}")
            };
            self.faults.add(At::Node(member.at), &join(path, &member.name), message);
        }
    }

    /// Every field of a table that is given.
    pub(super) fn fields<T>(&mut self, table: &[Field<T>], members: &mut Members<'_>, path: &str) -> Stated {
        let mut stated = Stated::new();
        for field in table {
            let value = match field.kind {
                Kind::Endpoints => self.endpoints(members, path),
                Kind::Upstream => self.upstream(members, path),
                Kind::Secret => self.secret(members, path),
                kind => members
                    .given(field.name)
                    .and_then(|member| self.value(kind, &member.value, &join(path, field.name))),
            };
            if let Some(value) = value {
                stated.insert(field.name.to_owned(), value);
            }
        }
        stated
    }

    /// One value.
    pub(super) fn value(&mut self, kind: Kind, node: &Node, path: &str) -> Option<Value> {
        match kind {
            Kind::Set(item, max) => self.set(*item, max, node, path),
            Kind::Labels => self.labels(node, path),
            Kind::Credential => self.credential(node, path),
            Kind::Reference => self.reference(node, path),
            kind => {
                let scalar = self.scalar(node, path)?;
                match kind.judge(&scalar) {
                    Ok(value) if matches!(kind, Kind::Url) => self.upstream_allowed(value, node, path),
                    Ok(value) => Some(value),
                    Err(message) => self.fault(node, path, message),
                }
            }
        }
    }

    /// Where a secret stands. `${env:NAME}` is the same as `env:NAME` here: what it stands for is looked up when it is needed.
    fn reference(&mut self, node: &Node, path: &str) -> Option<Value> {
        let scalar = match &node.shape {
            Shape::Text(text) => {
                sole_reference(text).map_or_else(|| self.scalar(node, path), |inside| Some(Scalar::Text(inside.to_owned())))
            }
            _ => self.scalar(node, path),
        };
        match Kind::Reference.judge(&scalar?) {
            Ok(value) => Some(value),
            Err(message) => self.fault(node, path, message),
        }
    }

    /// A value that came from the environment or a flag.
    pub(super) fn loose(&mut self, kind: Kind, text: String, at: At, path: &str) -> Option<Value> {
        kind.judge(&Scalar::Loose(text))
            .map_err(|message| self.faults.add(at, path, message))
            .ok()
    }

    pub(super) fn fault<T>(&mut self, node: &Node, path: &str, message: impl Into<String>) -> Option<T> {
        self.faults.add(At::Node(node.at), path, message);
        None
    }

    /// A single value, expanded. `None` if that failed, which is a fault.
    pub(super) fn scalar(&mut self, node: &Node, path: &str) -> Option<Scalar> {
        Some(match &node.shape {
            Shape::Null => Scalar::Null,
            Shape::Flag(flag) => Scalar::Flag(*flag),
            Shape::Whole(number) => Scalar::Whole(*number),
            Shape::Number(text) => Scalar::Number(text.clone()),
            Shape::Text(text) => match expand(self.context.environment, text) {
                Ok(expanded) if expanded.changed => Scalar::Loose(expanded.text),
                Ok(expanded) => Scalar::Text(expanded.text),
                Err(message) => return self.fault(node, path, message),
            },
            Shape::List(_) | Shape::Map(_) | Shape::Tagged => Scalar::Other,
        })
    }

    fn set(&mut self, item: Kind, max: usize, node: &Node, path: &str) -> Option<Value> {
        let items = match &node.shape {
            Shape::List(items) if items.len() <= max => items,
            _ => return self.fault(node, path, format!("must be {}", Kind::Set(&Kind::Flag, max).must_be())),
        };
        let mut values: Vec<Value> = Vec::with_capacity(items.len());
        let mut whole = true;
        for (index, node) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match self.value(item, node, &path) {
                Some(value) if values.contains(&value) => {
                    self.faults.add(At::Node(node.at), &path, "is given twice");
                    whole = false;
                }
                Some(value) => values.push(value),
                None => whole = false,
            }
        }
        whole.then_some(Value::Array(values))
    }

    fn labels(&mut self, node: &Node, path: &str) -> Option<Value> {
        let members = self.members(node, path)?;
        if members.rest.len() > LABELS_MAX {
            return self.fault(node, path, format!("must be {}", Kind::Labels.must_be()));
        }
        let mut labels = Map::new();
        let mut whole = true;
        for member in members.rest {
            let path = join(path, &member.name);
            if !(1..=LABEL_NAME_MAX).contains(&member.name.chars().count()) {
                self.faults
                    .add(At::Node(member.at), &path, "must have a name of 1 to 128 characters");
                whole = false;
            } else if let Some(value) = self.value(Kind::Prose(LABEL_MAX), &member.value, &path) {
                labels.insert(member.name.clone(), value);
            } else {
                whole = false;
            }
        }
        whole.then_some(Value::Object(labels))
    }

    fn upstream_allowed(&mut self, url: Value, node: &Node, path: &str) -> Option<Value> {
        let parsed = url::Url::parse(url.as_str()?).ok()?;
        match egress::check_url(self.policy, &parsed, &self.own) {
            Ok(()) => Some(url),
            Err(refusal) => self.fault(node, path, refusal.to_string()),
        }
    }
}

/// The path of a field of what is at `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
