//! Two files side by side.

use super::*;

#[test]
fn an_export_and_the_file_it_came_from_are_the_same() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/obleth.yaml")).unwrap();
    let written = file(&text);
    let exported = file(&export(&Running::started(&text).catalog, written.settings()));
    assert_eq!(compare(&exported, &written), Vec::<String>::new());
}

#[test]
fn what_differs_is_told_by_name_and_without_secrets() {
    let old = file(&format!(
        "capacity: {{ max_in_flight: 8 }}\ngroups: [ {{ name: default, weight: 7 }} ]\ntenants:\n  - name: acme\n    weight: 5\n    keys: [ {{ name: prod, secret: {} }} ]\n  - name: gone\nmodels: [ {{ model_name: m, api_base: \"http://10.0.0.1\", api_key: sesame }} ]\n",
        secret('1')
    ));
    let new = file(&format!(
        "server: {{ threads: 3 }}\ntenants:\n  - name: acme\n    weight: 100\n    keys: [ {{ name: prod, secret: {} }}, {{ name: new, secret: {} }} ]\nmodels: [ {{ model_name: m, api_base: \"http://10.0.0.1\", api_key: open }} ]\n",
        secret('2'),
        secret('3')
    ));
    assert_eq!(
        compare(&old, &new),
        [
            "~ setting server.threads",
            "~ capacity max_in_flight 8 -> 64",
            "~ group default: weight 7 -> 100",
            "~ tenant acme: weight 5 -> 100",
            "- tenant gone",
            "+ key acme/new",
            "~ key acme/prod: secret",
            "~ model m: endpoints",
        ]
    );
}
