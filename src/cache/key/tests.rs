//! The key's one promise, tried on random documents: no spelling changes it, every value does.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn key_of(body: &str) -> Option<Key> {
    KeyMaker::new([7; 32]).key(
        Scope::Global,
        ModelId::from_bytes([1; 16]),
        1,
        "/v1/chat/completions",
        body.as_bytes(),
    )
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000_000_i64..1_000_000).prop_map(|thousandths| json!(f64::from(i32::try_from(thousandths).unwrap()) / 1000.0)),
        "[a-c\\n\"\\\\é]{0,6}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-d]{1,2}", inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[a-e]{1,2}", value, 0..6).prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// The same document in another hand: members in another order, white space, every letter escaped, numbers respelt.
fn respell(value: &Value, seed: u64, out: &mut String) {
    let space = if seed.is_multiple_of(2) { " \n\t" } else { "" };
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            let turn = usize::try_from(seed % 7).unwrap() % members.len().max(1);
            members.rotate_left(turn);
            out.push('{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { space });
                escape(name, out);
                out.push_str(space);
                out.push(':');
                out.push_str(space);
                respell(value, seed / 3, out);
            }
            out.push('}');
        }
        Value::Array(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { space });
                respell(element, seed / 3, out);
            }
            out.push(']');
        }
        Value::String(text) => escape(text, out),
        Value::Number(number) => {
            let plain = number.to_string();
            match (plain.contains(['.', 'e', 'E']), seed % 3) {
                (false, 0) => out.push_str(&format!("{plain}.000")),
                (false, 1) => out.push_str(&format!("{plain}00e-2")),
                (true, 0) if !plain.contains(['e', 'E']) => out.push_str(&format!("{plain}0E+0")),
                _ => out.push_str(&plain),
            }
        }
        Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
    }
}

fn escape(text: &str, out: &mut String) {
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04x}"));
    }
    out.push('"');
}

/// Changes one value somewhere.
fn change(value: &mut Value, path: u64) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            let at = usize::try_from(path % members.len() as u64).unwrap();
            change(members.values_mut().nth(at).unwrap(), path / 5);
        }
        Value::Array(elements) if !elements.is_empty() => {
            let at = usize::try_from(path % elements.len() as u64).unwrap();
            change(&mut elements[at], path / 5);
        }
        Value::Object(members) => {
            members.insert("new".to_owned(), Value::Null);
        }
        Value::Array(elements) => elements.push(Value::Null),
        Value::String(text) => text.push('x'),
        Value::Number(number) => *value = json!({ "was": number.clone() }),
        Value::Bool(truth) => *truth = !*truth,
        Value::Null => *value = json!(false),
    }
}

proptest! {
    #[test]
    fn no_spelling_changes_the_key_and_any_value_does(document in documents(), seed in any::<u64>(), path in any::<u64>()) {
        let plain = document.to_string();
        let mut respelt = String::new();
        respell(&document, seed, &mut respelt);
        prop_assert_eq!(key_of(&plain), key_of(&respelt), "{} and {}", plain, respelt);
        let mut changed = document.clone();
        change(&mut changed, path);
        prop_assert_ne!(key_of(&plain), key_of(&changed.to_string()), "{} and {}", plain, changed);
    }
}

#[test]
fn numbers_are_compared_by_value_and_exactly() {
    for (a, b, same) in [
        ("1", "1.0", true),
        ("1500", "1.5e3", true),
        ("0", "-0.0e7", true),
        ("0.1", "0.10", true),
        ("9007199254740993", "9007199254740992", false),
        ("0.1", "0.01", false),
        ("1", "-1", false),
        ("1", "\"1\"", false),
        ("10", "1", false),
    ] {
        let (of_a, of_b) = (key_of(&format!("{{\"n\":{a}}}")), key_of(&format!("{{\"n\":{b}}}")));
        assert!(of_a.is_some() && of_b.is_some());
        assert_eq!(of_a == of_b, same, "{a} and {b}");
    }
}

#[test]
fn array_order_and_the_last_of_two_members_are_values() {
    assert_ne!(key_of("{\"a\":[1,2]}"), key_of("{\"a\":[2,1]}"));
    assert_ne!(key_of("{\"o\":{\"a\":1,\"a\":2}}"), key_of("{\"o\":{\"a\":2,\"a\":1}}"));
    assert_ne!(key_of("{\"a\":[[1],2]}"), key_of("{\"a\":[1,[2]]}"));
    assert_ne!(key_of("{\"a\":\"b\",\"c\":\"d\"}"), key_of("{\"a\":\"b\\\"c\",\"d\":\"\"}"));
}

#[test]
fn the_models_spelling_does_not_matter_but_everything_around_the_body_does() {
    let maker = KeyMaker::new([7; 32]);
    let (model, tenant) = (ModelId::mint(), TenantId::mint());
    let key = |scope, model, version, route, body: &str| maker.key(scope, model, version, route, body.as_bytes()).unwrap();
    let base = key(Scope::Tenant(tenant), model, 1, "/v1/a", "{\"model\":\"x\"}");
    assert_eq!(base, key(Scope::Tenant(tenant), model, 1, "/v1/a", "{\"model\":\"alias\"}"));
    for other in [
        key(Scope::Tenant(TenantId::mint()), model, 1, "/v1/a", "{}"),
        key(Scope::Group("g"), model, 1, "/v1/a", "{}"),
        key(Scope::Global, model, 1, "/v1/a", "{}"),
        key(Scope::Tenant(tenant), ModelId::mint(), 1, "/v1/a", "{}"),
        key(Scope::Tenant(tenant), model, 2, "/v1/a", "{}"),
        key(Scope::Tenant(tenant), model, 1, "/v1/b", "{}"),
        key(Scope::Tenant(tenant), model, 1, "/v1/a", "{\"m\":\"x\"}"),
        KeyMaker::new([8; 32]).key(Scope::Tenant(tenant), model, 1, "/v1/a", b"{}").unwrap(),
    ] {
        assert_ne!(base, other);
    }
}

#[test]
fn what_is_no_object_or_too_deep_has_no_key() {
    for body in [
        "",
        "[]",
        "1",
        "\"a\"",
        "{",
        "{\"a\":}",
        &format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)),
    ] {
        assert_eq!(key_of(body), None, "{body}");
    }
}
