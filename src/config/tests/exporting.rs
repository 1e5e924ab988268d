//! The export stands for the store: reading it back changes nothing.

use std::sync::Arc;

use super::*;
use crate::catalog::{ApiKey, Credential, Endpoint, Group, ManagedBy, McpServer, Model, Tenant};
use crate::config::noun::Noun;
use crate::units::{UnixMs, Weight};

/// A store with an object of each noun, every field away from its default, made by whom it says.
fn full(maker: ManagedBy) -> Catalog {
    let mut catalog = Catalog::empty(7);
    let file = file(include_str!("full.yaml"));
    merge(None, &file, &catalog, Adoption::Never).unwrap().apply(&mut catalog).unwrap();
    let tenant = catalog.tenant_named("acme: \"the\" ${env:COMPANY} #1").unwrap().id;
    let model = catalog.model_named("llama").unwrap();
    let mut model = (**model).clone();
    // A stored credential, which no file can state again.
    model.endpoints[1].credential = Some(Credential {
        reference: None,
        secret: Some(Arc::from("stored-secret")),
    });
    catalog.put_model(model).unwrap();
    for name in ["twin", "twin", "twin (2)"] {
        let mut key = ApiKey::blank(name);
        key.tenant_id = tenant;
        key.digest = key.id.as_bytes().repeat(2).try_into().unwrap();
        key.provenance.managed_by = ManagedBy::Api;
        catalog.put_key(key).unwrap();
    }
    if maker == ManagedBy::Api {
        catalog = handed_over(&catalog);
    }
    catalog
}

/// The same store, made by the API.
fn handed_over(catalog: &Catalog) -> Catalog {
    fn api<N: Noun>(object: &N) -> N {
        let mut object = object.clone();
        object.provenance_mut().managed_by = ManagedBy::Api;
        object
    }
    let mut next = catalog.clone();
    catalog.groups().values().for_each(|group| next.put_group(api::<Group>(group)));
    catalog
        .tenants()
        .values()
        .for_each(|it| next.put_tenant(api::<Tenant>(it)).unwrap());
    catalog.keys().values().for_each(|it| next.put_key(api::<ApiKey>(it)).unwrap());
    catalog.models().values().for_each(|it| next.put_model(api::<Model>(it)).unwrap());
    catalog
        .mcp_servers()
        .values()
        .for_each(|it| next.put_mcp_server(api::<McpServer>(it)).unwrap());
    next
}

#[test]
fn every_field_of_the_example_is_away_from_its_default() {
    let catalog = full(ManagedBy::File);
    fn check<N: Noun>(object: &N) {
        let blank = N::blank(object.name());
        for field in N::fields() {
            assert_ne!((field.get)(object), (field.get)(&blank), "{}.{}", N::NOUN, field.name);
        }
    }
    check::<Group>(catalog.groups().get("research").unwrap());
    check::<Tenant>(catalog.tenants().values().next().unwrap());
    check::<ApiKey>(catalog.keys().values().find(|key| key.name == "prod").unwrap());
    check::<Model>(catalog.model_named("llama").unwrap());
    check::<McpServer>(catalog.mcp_server_named("files").unwrap());
}

#[test]
fn an_exported_file_changes_nothing_when_it_is_loaded() {
    for maker in [ManagedBy::File, ManagedBy::Api] {
        let catalog = full(maker);
        let settings = Settings::default();
        let text = export(&catalog, &settings);
        assert!(!text.contains("stored-secret"), "{text}");
        let mut running = Running {
            catalog: catalog.clone(),
            applied: None,
        };
        let plan = running.load(&text);
        assert!(plan.is_empty(), "{maker:?}\n{:#?}\n{text}", plan.lines());
        assert!(running.load(&text).is_empty());
        assert_eq!(export(&running.catalog, &settings), text, "the same text again");
        let differing: Vec<&Notice> = plan
            .notices()
            .iter()
            .filter(|notice| !format!("{notice}").contains("acme"))
            .collect();
        assert!(differing.is_empty(), "{differing:?}");
    }
}

#[test]
fn an_export_fills_a_new_store_with_the_same() {
    let catalog = full(ManagedBy::File);
    let text = export(&catalog, &Settings::default());
    let unstored = text.lines().filter(|line| !line.contains("stored:"));
    let text: String = unstored.map(|line| format!("{line}\n")).collect();
    let running = Running::started(&text);
    assert_eq!(export(&running.catalog, &Settings::default()), text);
}

#[test]
fn settings_are_exported_where_they_differ() {
    let text = "server:\n  listen: 0.0.0.0:80\n  tls_cert_file: /c\n  tls_key_file: /k\nledger:\n  when_full: serve\negress:\n  policy: public_only\n\
                capacity:\n  max_in_flight: 64\ngroups:\n- name: default\n";
    let settings = file(text).settings().clone();
    assert_eq!(export(&Catalog::empty(64), &settings), text);
}

#[test]
fn every_setting_survives_the_way_through_the_file() {
    for field in settings::FIELDS {
        let mut settings = Settings::default();
        let other = match (field.get)(&settings) {
            serde_json::Value::Number(_) => serde_json::json!(1024),
            _ if field.name == "traces.endpoint" => serde_json::json!("http://collector:4318/"),
            _ if field.name == "traces.headers" => serde_json::json!("env:HEADERS"),
            _ if field.name == "traces.sample_ratio" => serde_json::json!("0.000125"),
            serde_json::Value::Null => serde_json::json!("/file"),
            serde_json::Value::Bool(set) => serde_json::json!(!set),
            _ if field.name.ends_with("listen") => serde_json::json!("[::1]:1"),
            _ if field.name == "store.path" => serde_json::json!("/x"),
            shown => {
                let kind::Kind::Word(words) = field.kind else {
                    panic!("{}", field.name)
                };
                serde_json::json!(words.iter().find(|word| shown != **word).unwrap())
            }
        };
        (field.set)(&mut settings, &other, &field::Vault::default());
        assert_eq!((field.get)(&settings), other, "{}", field.name);
        assert_eq!(Settings::default().differences(&settings), [field.name]);
        if !field.name.contains("tls") {
            assert_eq!(
                *file(&export(&Catalog::empty(64), &settings)).settings(),
                settings,
                "{}",
                field.name
            );
        }
    }
}

#[test]
fn times_and_endpoints_keep_their_forms() {
    let mut catalog = full(ManagedBy::File);
    let mut model = (**catalog.model_named("llama").unwrap()).clone();
    let first: Endpoint = model.endpoints[0].clone();
    model.endpoints = vec![Endpoint {
        weight: Weight::new(9).unwrap(),
        ..first
    }];
    model.single = false;
    catalog.put_model(model).unwrap();
    let text = export(&catalog, &Settings::default());
    assert!(
        text.contains("  endpoints:\n  - url: https://10.0.0.1/v1\n    weight: 9\n"),
        "{text}"
    );
    let key = catalog.keys().values().find(|key| key.name == "prod").unwrap();
    assert_eq!(key.expires_at, Some(UnixMs(1_801_393_200_123)));
    assert!(text.contains("expires_at: 2027-01-31T11:00:00.123Z"), "{text}");
}
