//! `field=value` as it is typed, and the JSON that the management API takes. Which fields there are is the API's to say.

use std::fs;
use std::io::Read as _;

use anyhow::Context;
use serde_json::{Map, Value};

/// What is text whatever it looks like, so that a tenant can be called 7; money is text, since digits stay exact in it.
const TEXTS: &[&str] = &[
    "name",
    "model_name",
    "description",
    "fairshare_group",
    "upstream_model",
    "api_key",
    "auth_header",
    "auth_header_name",
    "input_cost_per_token",
    "output_cost_per_token",
    "cached_input_cost_per_token",
    "cost_per_request",
    "budget_cost_usd",
];

/// What is a list, typed as `a,b` or as JSON.
const LISTS: &[&str] = &[
    "aliases",
    "tags",
    "allowed_models",
    "allowed_tools",
    "denied_tools",
    "allowed_tenants",
    "allowed_origins",
];

/// One `field=value`. Its value may be `null`, JSON, plain text, or `@FILE` (`@-` is standard input): secrets do not belong on
/// a command line, which every user of the machine can read.
#[derive(Debug, Clone)]
pub(super) struct Field {
    name: String,
    value: String,
}

impl Field {
    /// Reads it, for clap.
    ///
    /// # Errors
    /// There is no `=`, or nothing before it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            Some(_) | None => Err("must be field=value, like weight=200".to_owned()),
        }
    }

    fn json(&self) -> anyhow::Result<Value> {
        let text = match self.value.strip_prefix('@') {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("{}: cannot read {path}", self.name))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            None => self.value.clone(),
        };
        Ok(value(&self.name, text))
    }
}

fn value(name: &str, text: String) -> Value {
    if text == "null" {
        return Value::Null;
    }
    if TEXTS.contains(&name) {
        return Value::String(text);
    }
    if LISTS.contains(&name) && !text.starts_with('[') {
        return text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    }
    match serde_json::from_str(&text) {
        Ok(json) => json,
        Err(_) => Value::String(text),
    }
}

/// The fields as one object.
///
/// # Errors
/// A file that a value refers to cannot be read.
pub(super) fn object(fields: &[Field]) -> anyhow::Result<Map<String, Value>> {
    fields.iter().map(|field| Ok((field.name.clone(), field.json()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Value {
        Field::parse(text).unwrap().json().unwrap()
    }

    #[test]
    fn values_are_what_they_look_like_but_for_names_and_money() {
        assert_eq!(read("weight=200"), json!(200));
        assert_eq!(read("disabled=true"), json!(true));
        assert_eq!(read("status=suspended"), json!("suspended"));
        assert_eq!(read("max_in_flight=auto"), json!("auto"));
        assert_eq!(read("name=7"), json!("7"));
        assert_eq!(read("budget_cost_usd=0.000000000001"), json!("0.000000000001"));
        assert_eq!(read("max_in_flight=null"), Value::Null);
        assert_eq!(read("allowed_models=a, b"), json!(["a", "b"]));
        assert_eq!(read("allowed_models=[]"), json!([]));
        assert_eq!(read("metadata={\"team\":\"x=y\"}"), json!({ "team": "x=y" }));
        assert!(Field::parse("weight").is_err() && Field::parse("=1").is_err());
    }

    #[test]
    fn a_value_from_a_file_counts_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "sk-upstream\n").unwrap();
        assert_eq!(read(&format!("api_key=@{}", file.path().display())), json!("sk-upstream"));
        assert!(Field::parse("api_key=@/nonexistent").unwrap().json().is_err());
    }
}
