//! The catalog's one invariant, tried from outside.
use super::*;
use crate::units::Weight;

fn tenant(name: &str, group: &str) -> Tenant {
    Tenant {
        id: TenantId::mint(),
        name: name.to_owned(),
        description: String::new(),
        group: group.into(),
        weight: Weight::default(),
        tokens_per_minute: 0,
        requests_per_minute: 0,
        max_in_flight: None,
        max_queued: None,
        status: TenantStatus::Active,
        allowed_models: None,
        budget: Budget::default(),
        metadata: std::collections::BTreeMap::new(),
        provenance: Provenance::default(),
    }
}

#[test]
fn a_renamed_tenant_frees_its_name_and_keeps_its_id() {
    let mut catalog = Catalog::empty(1);
    let mut acme = tenant("acme", DEFAULT_GROUP);
    catalog.put_tenant(acme.clone()).unwrap();
    acme.name = "emca".to_owned();
    catalog.put_tenant(acme.clone()).unwrap();
    assert!(catalog.tenant_named("acme").is_none());
    assert_eq!(catalog.tenant_named("emca").unwrap().id, acme.id);
    catalog.put_tenant(tenant("acme", DEFAULT_GROUP)).unwrap();
}

#[test]
fn a_taken_name_an_unknown_group_and_a_group_in_use_are_conflicts_that_change_nothing() {
    let mut catalog = Catalog::empty(1);
    catalog.put_group(Group::new("research"));
    catalog.put_tenant(tenant("acme", "research")).unwrap();
    assert!(matches!(
        catalog.put_tenant(tenant("acme", "research")),
        Err(Conflict::NameTaken { noun: "tenant", .. })
    ));
    assert!(matches!(
        catalog.put_tenant(tenant("other", "nowhere")),
        Err(Conflict::UnknownGroup(_))
    ));
    assert_eq!(catalog.remove_group("research"), Err(Conflict::GroupInUse("research".to_owned())));
    assert_eq!(catalog.remove_group(DEFAULT_GROUP), Err(Conflict::DefaultGroup));
    assert_eq!(catalog.tenants().len(), 1);
}

#[test]
fn a_clone_does_not_see_what_is_changed_after_it() {
    let mut catalog = Catalog::empty(1);
    let before = catalog.clone();
    catalog.put_tenant(tenant("acme", DEFAULT_GROUP)).unwrap();
    assert!(before.tenant_named("acme").is_none());
    assert!(before.groups().same(catalog.groups()), "an untouched table is shared");
}
