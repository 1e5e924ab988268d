//! Reads what gives access: upstreams' addresses with their credentials, and keys' secrets. Secrets go into the vault, or
//! through the hasher; canonical values only point at them.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::environment::{expand, resolve, sole_reference};
use super::fault::At;
use super::kind::{Kind, Scalar, is_line};
use super::noun::{SLOTS_MAX, credential_digest, hex, unhex};
use super::reading::{Members, Reading, join};
use super::tree::{Node, Shape};
use crate::credential;

const ENDPOINTS_MAX: usize = 256;
const CREDENTIAL_MAX: usize = 4096;

/// The fields of an endpoint, with the defaults of those that are numbers.
pub(super) const ENDPOINT_FIELDS: &[(&str, Kind, Option<u64>)] = &[
    ("url", Kind::Url, None),
    ("weight", Kind::Whole(1, 1_000_000), Some(100)),
    ("priority", Kind::Whole(0, 1000), Some(0)),
    ("max_in_flight", Kind::Whole(1, SLOTS_MAX), None),
    ("api_key", Kind::Credential, None),
];

impl Reading<'_> {
    /// A credential. What is nothing but `${env:NAME}` or `${file:PATH}` becomes that reference, so that the store need not
    /// keep the secret.
    pub(super) fn credential(&mut self, node: &Node, path: &str) -> Option<Value> {
        let must_be = format!("must be {}", Kind::Credential.must_be());
        let Shape::Text(written) = &node.shape else {
            return self.fault(node, path, must_be);
        };
        let (text, changed) = match expand(self.context.environment, written) {
            Ok(expanded) => (expanded.text, expanded.changed),
            Err(message) => return self.fault(node, path, message),
        };
        if text.is_empty() && !changed {
            return Some(Value::Null);
        }
        let pointer = sole_reference(written).or(Some(text.as_str()).filter(|text| !changed && is_pointer(text)));
        if let Some(reference) = pointer {
            if !is_reference(reference) {
                return self.fault(node, path, must_be);
            }
            let secret = resolve(self.context.environment, reference);
            self.vault.0.insert(reference.to_owned(), secret);
            return Some(json!({"ref": reference}));
        }
        if let Some(digest) = text.strip_prefix("stored:").filter(|_| !changed) {
            return match unhex(digest) {
                Some(_) => Some(json!({"digest": digest})),
                None => self.fault(node, path, must_be),
            };
        }
        if !is_header_value(&text) {
            return self.fault(node, path, must_be);
        }
        let digest = credential_digest(&text);
        self.vault.0.insert(digest.clone(), Some(Arc::from(text)));
        Some(json!({"digest": digest}))
    }

    /// `api_base` and `api_key`, or `endpoints`; then `api_key` is for those that have none of their own.
    pub(super) fn endpoints(&mut self, members: &mut Members<'_>, path: &str) -> Option<Value> {
        let api_key = match members.given("api_key") {
            None => Some(Value::Null),
            Some(member) => self.value(Kind::Credential, &member.value, &join(path, "api_key")),
        };
        match (members.given("api_base"), members.given("endpoints")) {
            (Some(member), None) => {
                let url = self.value(Kind::Url, &member.value, &join(path, "api_base"))?;
                let endpoint = json!({"url": url, "weight": 100, "priority": 0, "max_in_flight": null, "api_key": api_key?});
                Some(json!({"single": true, "list": [endpoint]}))
            }
            (None, Some(member)) => self.endpoint_list(&member.value, api_key.as_ref(), &join(path, "endpoints")),
            (Some(_), Some(member)) => {
                self.faults
                    .add(At::Node(member.at), &join(path, "endpoints"), "must not be given beside api_base");
                None
            }
            (None, None) => {
                self.faults
                    .add(At::Node(members.at), &join(path, "api_base"), "is required, or endpoints is");
                None
            }
        }
    }

    fn endpoint_list(&mut self, node: &Node, api_key: Option<&Value>, path: &str) -> Option<Value> {
        let items = match &node.shape {
            Shape::List(items) if (1..=ENDPOINTS_MAX).contains(&items.len()) => items,
            _ => return self.fault(node, path, format!("must be {}", Kind::Endpoints.must_be())),
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, node) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(mut members) = self.members(node, &path) else {
                continue;
            };
            let mut endpoint = Map::new();
            for (name, kind, default) in ENDPOINT_FIELDS {
                let value = match members.given(name) {
                    Some(member) => {
                        let value = self.value(*kind, &member.value, &join(&path, name));
                        if *name == "url" && value.is_some() && list.iter().any(|other: &Value| Some(&other["url"]) == value.as_ref()) {
                            self.faults.add(At::Node(member.value.at), &join(&path, name), "is given twice");
                        }
                        value
                    }
                    None if *name == "url" => {
                        self.faults.add(At::Node(node.at), &join(&path, name), "is required");
                        None
                    }
                    None if *name == "api_key" => api_key.cloned(),
                    None => Some(default.map_or(Value::Null, |default| json!(default))),
                };
                endpoint.extend(value.map(|value| ((*name).to_owned(), value)));
            }
            self.leftovers(&members, &path, "an endpoint");
            if endpoint.len() == ENDPOINT_FIELDS.len() {
                list.push(Value::Object(endpoint));
            }
        }
        (list.len() == items.len()).then(|| json!({"single": false, "list": list}))
    }

    pub(super) fn upstream(&mut self, members: &mut Members<'_>, path: &str) -> Option<Value> {
        let header = match members.given("auth_header") {
            None => Some(Value::Null),
            Some(member) => self.value(Kind::Credential, &member.value, &join(path, "auth_header")),
        };
        let Some(member) = members.given("upstream_url") else {
            self.faults.add(At::Node(members.at), &join(path, "upstream_url"), "is required");
            return None;
        };
        let url = self.value(Kind::Url, &member.value, &join(path, "upstream_url"))?;
        Some(json!({"url": url, "auth_header": header?}))
    }

    /// `secret`, or `secret_hash` with an optional `key_prefix`.
    pub(super) fn secret(&mut self, members: &mut Members<'_>, path: &str) -> Option<Value> {
        let prefix = members.given("key_prefix");
        match (members.given("secret"), members.given("secret_hash")) {
            (Some(member), None) => {
                if let Some(prefix) = prefix {
                    return self.fault(&prefix.value, &join(path, "key_prefix"), "is only for keys with secret_hash");
                }
                let path = join(path, "secret");
                let secret = match self.scalar(&member.value, &path)? {
                    Scalar::Text(secret) | Scalar::Loose(secret) => secret,
                    _ => String::new(),
                };
                match self.context.hasher.digest(secret.as_bytes()) {
                    Some(digest) => Some(json!({"hash": hex(&digest), "prefix": credential::prefix(&secret)})),
                    None => self.fault(&member.value, &path, format!("must be {}", Kind::Secret.must_be())),
                }
            }
            (None, Some(member)) => {
                let hash = self.value(Kind::Line(64, 64), &member.value, &join(path, "secret_hash"))?;
                if hash.as_str().and_then(unhex).is_none() {
                    return self.fault(&member.value, &join(path, "secret_hash"), "must be 64 lowercase hexadecimal digits");
                }
                let prefix = match prefix {
                    Some(member) => self.value(Kind::Line(0, 18), &member.value, &join(path, "key_prefix"))?,
                    None => json!(""),
                };
                Some(json!({"hash": hash, "prefix": prefix}))
            }
            (Some(_), Some(member)) => {
                self.faults
                    .add(At::Node(member.at), &join(path, "secret_hash"), "must not be given beside secret");
                None
            }
            (None, None) => {
                self.faults
                    .add(At::Node(members.at), &join(path, "secret"), "is required, or secret_hash is");
                None
            }
        }
    }
}

fn is_pointer(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

/// `env:NAME` or `file:/PATH`. The gateway's own variables hold its secrets, which are nothing for an upstream.
pub(super) fn is_reference(text: &str) -> bool {
    match text.split_once(':') {
        Some(("env", name)) => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let own = name.to_ascii_uppercase().starts_with("OBLETH_");
            name.bytes().all(fits) && name.starts_with(|first: char| !first.is_ascii_digit()) && !own
        }
        Some(("file", path)) => path.starts_with('/') && is_line(path, 1, CREDENTIAL_MAX),
        Some(_) | None => false,
    }
}

/// What a header can carry.
fn is_header_value(text: &str) -> bool {
    let fits = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    (1..=CREDENTIAL_MAX).contains(&text.len()) && text.trim() == text && text.bytes().all(fits)
}
