//! The rules of the merge, one by one. `Running::load` also holds that a second merge has nothing to do.

use super::*;
use crate::catalog::{ApiKey, Endpoint, Group, ManagedBy, McpServer, Model, Tenant};
use crate::config::noun::Noun;
use crate::id::TenantId;
use crate::units::Weight;

const ACME: &str = "tenants: [{ name: acme, weight: 500 }]\n";

impl Running {
    fn tenant(&self, name: &str) -> Tenant {
        (**self.catalog.tenant_named(name).unwrap()).clone()
    }

    /// An edit through the API.
    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Tenant)) {
        let mut tenant = self.tenant(name);
        edit(&mut tenant);
        self.catalog.put_tenant(tenant).unwrap();
    }

    fn made_by_api(&mut self, name: &str) -> TenantId {
        let mut tenant = Tenant::blank(name);
        tenant.provenance.managed_by = ManagedBy::Api;
        let id = tenant.id;
        self.catalog.put_tenant(tenant).unwrap();
        id
    }

    fn key(&self, tenant: &str, name: &str) -> Option<ApiKey> {
        let tenant = self.tenant(tenant).id;
        let mut keys = self.catalog.keys().values();
        keys.find(|key| key.tenant_id == tenant && key.name == name)
            .map(|key| (**key).clone())
    }
}

fn weight(weight: u64) -> Weight {
    Weight::new(weight).unwrap()
}

/// Faults of a merge, as they are shown.
fn clashes(running: &Running, text: &str) -> Vec<String> {
    let faults = merge(running.applied.as_ref(), &file(text), &running.catalog, Adoption::Never).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_first_load_makes_what_the_file_states() {
    let mut running = Running::new();
    let plan = running.load(&format!(
        "capacity: {{ max_in_flight: 8 }}
groups: [{{ name: research, weight: 200 }}, {{ name: default, weight: 50 }}]
tenants:
  - name: acme
    fairshare_group: research
    budget_cost_usd: 12.5
    metadata: {{ team: \"7\" }}
    keys: [{{ name: prod, secret: {}, expires_at: \"2027-01-31T12:00:00+01:00\", allowed_models: [llama] }}]
models:
  - model_name: llama
    aliases: [gpt]
    endpoints: [{{ url: \"http://10.0.0.1/v1\" }}, {{ url: \"http://10.0.0.2\", weight: 300, priority: 1, api_key: env:UP }}]
    api_key: env:ALL
    input_cost_per_token: 0.0000025
    max_in_flight: auto
mcp_servers: [{{ name: files, upstream_url: \"http://10.0.0.3/mcp\", auth_header: env:MCP, allowed_tenants: [acme] }}]
",
        secret('a')
    ));
    assert_eq!(
        plan.lines(),
        [
            "~ capacity of this process: max_in_flight 64 -> 8",
            "+ group research: weight 200",
            "~ group default: weight 100 -> 50",
            "+ tenant acme: fairshare_group \"research\", budget_cost_usd \"12.5\", metadata {\"team\":\"7\"}",
            "+ key acme/prod: secret {\"key_prefix\":\"sk_aaaaaaaaaaaaaaa\"}, expires_at \"2027-01-31T11:00:00Z\", allowed_models [\"llama\"]",
            "+ model llama: aliases [\"gpt\"], endpoints {\"list\":[{\"api_key\":{\"ref\":\"env:ALL\"},\"max_in_flight\":null,\"priority\":0,\
             \"url\":\"http://10.0.0.1/v1\",\"weight\":100},{\"api_key\":{\"ref\":\"env:UP\"},\"max_in_flight\":null,\"priority\":1,\
             \"url\":\"http://10.0.0.2/\",\"weight\":300}],\"single\":false}, input_cost_per_token \"0.0000025\", max_in_flight \"auto\"",
            &format!(
                "+ mcp_server files: upstream_url {{\"auth_header\":{{\"ref\":\"env:MCP\"}},\"url\":\"http://10.0.0.3/mcp\"}}, \
                 allowed_tenants [\"{}\"]",
                running.tenant("acme").id
            ),
        ]
    );
    let model: &Model = running.catalog.model_named("gpt").unwrap();
    assert_eq!((model.upstream_model.as_str(), model.prices.input.0), ("llama", 2_500_000));
    assert_eq!(model.provenance.managed_by, ManagedBy::File);
    let default: &Group = running.catalog.groups().get("default").unwrap();
    assert_eq!((default.weight, default.provenance.managed_by), (weight(50), ManagedBy::Api));
    let actions: Vec<&str> = plan.changes().iter().map(|change| change.action).collect();
    let expected = [
        "set_capacity",
        "create_fairshare_group",
        "update_fairshare_group_weight",
        "create_tenant",
        "create_key",
        "create_model",
    ];
    assert_eq!(actions[..6], expected);
}

#[test]
fn an_api_edit_survives_an_unrelated_reload_and_is_listed() {
    let mut running = Running::started(ACME);
    running.edit("acme", |tenant| tenant.weight = weight(700));
    let plan = running.load("tenants: [{ name: acme, weight: 500, description: new }]\n");
    assert_eq!(
        plan.lines(),
        [
            "~ tenant acme: description \"\" -> \"new\", overridden [] -> [\"weight\"]",
            "! tenant acme keeps what was changed through the API: weight",
        ]
    );
    let tenant = running.tenant("acme");
    assert_eq!(
        (tenant.weight, tenant.provenance.overridden),
        (weight(700), vec!["weight".to_owned()])
    );
}

#[test]
fn a_later_file_edit_of_the_field_wins() {
    let mut running = Running::started(ACME);
    running.edit("acme", |tenant| tenant.weight = weight(700));
    running.load(ACME);
    let plan = running.load("tenants: [{ name: acme, weight: 501 }]\n");
    assert_eq!(plan.lines(), ["~ tenant acme: weight 700 -> 501, overridden [\"weight\"] -> []"]);
    assert_eq!(
        plan.changes()[0].detail(),
        serde_json::json!({"name": "acme", "before": {"weight": 700, "overridden": ["weight"]}, "after": {"weight": 501, "overridden": []}})
    );
}

#[test]
fn a_field_that_leaves_the_file_goes_back_to_its_default() {
    let mut running = Running::started(ACME);
    running.load("tenants: [{ name: acme }]\n");
    assert_eq!(running.tenant("acme").weight, Weight::default());
}

#[test]
fn both_sides_making_the_same_edit_is_no_override() {
    let mut running = Running::started(ACME);
    running.edit("acme", |tenant| tenant.weight = weight(700));
    assert!(running.load("tenants: [{ name: acme, weight: 700 }]\n").is_empty());
    assert!(running.tenant("acme").provenance.overridden.is_empty());
}

#[test]
fn an_object_that_leaves_the_file_is_deleted_with_its_keys() {
    let mut running = Running::started(&format!(
        "tenants: [{{ name: acme, keys: [{{ name: k, secret: {} }}] }}]\n",
        secret('a')
    ));
    running.made_by_api("other");
    let plan = running.load("{}\n");
    assert_eq!(plan.lines(), ["- tenant acme"]);
    assert!(running.catalog.keys().is_empty());
    assert_eq!(running.catalog.tenants().len(), 1);
}

#[test]
fn a_key_that_leaves_the_file_is_deleted_and_the_apis_stays() {
    let mut running = Running::started(&format!(
        "tenants: [{{ name: acme, keys: [{{ name: k, secret: {} }}] }}]\n",
        secret('a')
    ));
    let mut key = ApiKey::blank("k");
    key.tenant_id = running.tenant("acme").id;
    key.provenance.managed_by = ManagedBy::Api;
    key.digest = [9; 32];
    running.catalog.put_key(key.clone()).unwrap();
    assert_eq!(running.load("tenants: [{ name: acme }]\n").lines(), ["- key acme/k"]);
    assert_eq!(running.catalog.keys().len(), 1);
    assert!(running.catalog.keys().get(&key.id).is_some());
}

#[test]
fn what_the_api_deleted_stays_deleted_until_the_file_changes_it() {
    let text = format!("tenants: [{{ name: acme, keys: [{{ name: k, secret: {} }}] }}]\n", secret('a'));
    let mut running = Running::started(&text);
    let id = running.tenant("acme").id;
    running.catalog.remove_tenant(&id);
    assert_eq!(
        running.load(&text).lines(),
        ["! tenant acme was deleted through the API and stays so until the file changes it"]
    );
    let plan = running.load(&text.replace("acme,", "acme, weight: 5,"));
    assert_eq!(plan.changes().len(), 2, "the tenant comes back with its keys: {:?}", plan.lines());
    assert!(running.key("acme", "k").is_some());

    let key = running.key("acme", "k").unwrap();
    running.catalog.remove_key(&key.id);
    running.load(&text.replace("acme,", "acme, weight: 6,"));
    assert!(running.key("acme", "k").is_none(), "the file changed the tenant, not the key");
    running.load(&text.replace(&secret('a'), &secret('b')));
    assert!(running.key("acme", "k").is_some());
}

#[test]
fn an_object_made_through_the_api_is_never_touched() {
    let mut running = Running::new();
    running.made_by_api("acme");
    let plan = running.load(ACME);
    assert_eq!(
        plan.lines(),
        ["! tenant acme was made through the API and stays as it is; the file differs in weight"]
    );
    assert!(running.load("{}\n").is_empty());
    assert_eq!(running.tenant("acme").weight, Weight::default());
    // Once the API deletes it, the file's word counts.
    let id = running.tenant("acme").id;
    running.load(ACME);
    running.catalog.remove_tenant(&id);
    assert_eq!(running.load(ACME).lines(), ["+ tenant acme: weight 500"]);
}

#[test]
fn a_file_may_take_over_what_the_api_made_when_asked_to() {
    let mut running = Running::new();
    running.made_by_api("acme");
    running.edit("acme", |tenant| tenant.tokens_per_minute = 9);
    let plan = running.load_file(&file(ACME), Adoption::Named);
    assert_eq!(
        plan.lines()[0],
        "~ tenant acme: weight 100 -> 500, managed_by \"api\" -> \"file\", overridden [] -> [\"tokens_per_minute\"]"
    );
    assert_eq!(running.load("{}\n").lines(), ["- tenant acme"]);
}

#[test]
fn the_file_may_give_keys_to_a_tenant_of_the_api() {
    let mut running = Running::new();
    running.made_by_api("acme");
    let text = format!("tenants: [{{ name: acme, keys: [{{ name: k, secret: {} }}] }}]\n", secret('a'));
    assert_eq!(running.load(&text).lines().len(), 1);
    assert!(running.load(&text).is_empty());
    assert_eq!(running.load("tenants: [{ name: acme }]\n").lines(), ["- key acme/k"]);
    running.load(&text);
    assert_eq!(running.load("{}\n").lines(), ["- key acme/k"]);
}

#[test]
fn a_renamed_object_is_still_the_files() {
    let mut running = Running::started(ACME);
    let id = running.tenant("acme").id;
    running.edit("acme", |tenant| tenant.name = "roadrunner".to_owned());
    let plan = running.load("tenants: [{ name: acme, weight: 501 }]\n");
    assert_eq!(
        plan.lines()[0],
        "~ tenant roadrunner: weight 500 -> 501, overridden [] -> [\"name\"]"
    );
    assert_eq!(running.tenant("roadrunner").id, id);
    assert_eq!(
        clashes(&running, "tenants: [{ name: acme, weight: 501 }, { name: roadrunner }]\n"),
        ["obleth.yaml:1:40: tenants[1]: has a name or alias that another object in the store has"]
    );
    running.load("{}\n");
    assert!(running.catalog.tenants().is_empty());
}

#[test]
fn a_rotated_secret_stays_until_the_file_states_another() {
    let text = |digit| format!("tenants: [{{ name: acme, keys: [{{ name: k, secret: {} }}] }}]\n", secret(digit));
    let mut running = Running::started(&text('a'));
    let mut key = running.key("acme", "k").unwrap();
    (key.digest, key.prefix) = ([7; 32], "sk_rotated".to_owned());
    running.catalog.put_key(key).unwrap();
    running.load(&text('a'));
    assert_eq!(running.key("acme", "k").unwrap().provenance.overridden, ["secret"]);
    let plan = running.load(&text('b'));
    assert_eq!(
        plan.lines(),
        ["~ key acme/k: secret {\"key_prefix\":\"sk_rotated\"} -> {\"key_prefix\":\"sk_bbbbbbbbbbbbbbb\"}, overridden [\"secret\"] -> []"]
    );
}

#[test]
fn a_key_with_the_same_secret_is_the_same_key_under_another_name() {
    let text = |name| format!("tenants: [{{ name: acme, keys: [{{ name: {name}, secret: {} }}] }}]\n", secret('a'));
    let mut running = Running::started(&text("k"));
    let id = running.key("acme", "k").unwrap().id;
    assert_eq!(running.load(&text("l")).lines(), ["~ key acme/l: name \"k\" -> \"l\""]);
    assert_eq!(running.key("acme", "l").unwrap().id, id);
    let mut key = running.key("acme", "l").unwrap();
    key.name = "theirs".to_owned();
    running.catalog.put_key(key).unwrap();
    running.load(&text("l"));
    assert_eq!(running.key("acme", "theirs").unwrap().provenance.overridden, ["name"]);
}

#[test]
fn objects_may_swap_names_and_secrets() {
    let keys = |one, two| {
        format!(
            "tenants: [{{ name: acme, keys: [{{ name: k, secret: {} }}, {{ name: l, secret: {} }}] }}]
models: [{{ model_name: m, api_base: \"http://h\", aliases: [{one}] }}, {{ model_name: n, api_base: \"http://h\", aliases: [{two}] }}]\n",
            secret(one),
            secret(two)
        )
    };
    let mut running = Running::started(&keys('a', 'b'));
    running.load(&keys('b', 'a'));
    assert_eq!(running.catalog.model_named("a").unwrap().name, "n");
    assert_eq!(running.key("acme", "k").unwrap().prefix, "sk_bbbbbbbbbbbbbbb");
}

#[test]
fn a_group_that_left_the_file_stays_while_it_has_tenants() {
    let mut running = Running::started("groups: [{ name: g }]\ntenants: [{ name: acme, fairshare_group: g }]\n");
    running.made_by_api("other");
    running.edit("other", |tenant| tenant.group = "g".into());
    assert_eq!(
        running.load(ACME).lines(),
        [
            "~ tenant acme: fairshare_group \"g\" -> \"default\", weight 100 -> 500",
            "! group g left the file and still has tenants, so it stays",
        ]
    );
    running.edit("other", |tenant| tenant.group = "default".into());
    assert_eq!(running.load(ACME).lines(), ["- group g"]);
}

#[test]
fn the_default_group_and_the_capacity_go_back_when_they_leave_the_file() {
    let text = "capacity: { max_in_flight: 8 }\ngroups: [{ name: default, weight: 50 }]\n";
    let mut running = Running::started(text);
    running.catalog.set_max_in_flight(9);
    let plan = running.load(text);
    assert_eq!(
        plan.lines(),
        ["! capacity of this process keeps what was changed through the API: max_in_flight"]
    );
    assert_eq!(
        running.load("{}\n").lines(),
        [
            "~ capacity of this process: max_in_flight 9 -> 64",
            "~ group default: weight 50 -> 100"
        ]
    );
    running.catalog.set_max_in_flight(9);
    assert!(running.load("{}\n").is_empty(), "a file that says nothing has no say");
}

#[test]
fn what_does_not_fit_the_store_is_a_fault_with_a_line() {
    let mut running = Running::new();
    let id = running.made_by_api("other");
    let mut key = ApiKey::blank("theirs");
    key.tenant_id = id;
    key.provenance.managed_by = ManagedBy::Api;
    key.digest = KeyHasher::new(None).digest(secret('a').as_bytes()).unwrap();
    running.catalog.put_key(key).unwrap();
    let mut model = Model::blank("taken");
    model.provenance.managed_by = ManagedBy::Api;
    running.catalog.put_model(model).unwrap();
    assert_eq!(
        clashes(
            &running,
            "tenants:
  - { name: acme, fairshare_group: nowhere }
models:
  - { model_name: m, api_base: \"http://h\", api_key: \"stored:0000000000000000000000000000000000000000000000000000000000000000\" }
mcp_servers:
  - { name: s, upstream_url: \"http://h\", allowed_tenants: [other, nobody] }
"
        ),
        [
            "obleth.yaml:2:5: tenants[0].fairshare_group: names a group that does not exist",
            "obleth.yaml:4:5: models[0]: has a stored: credential that this store does not hold",
            "obleth.yaml:6:5: mcp_servers[0].allowed_tenants[1]: names a tenant that does not exist",
        ]
    );
    assert_eq!(
        clashes(
            &running,
            &format!(
                "tenants:
  - {{ name: acme, keys: [{{ name: k, secret: {} }}] }}
models:
  - {{ model_name: m, api_base: \"http://h\", aliases: [taken] }}
",
                secret('a')
            )
        ),
        [
            "obleth.yaml:2:26: tenants[0].keys[0]: has a secret that another key in the store has",
            "obleth.yaml:4:5: models[0]: has a name or alias that another object in the store has",
        ]
    );
}

#[test]
fn a_credential_follows_its_address_and_is_read_anew() {
    let text = "models: [{ model_name: m, api_base: \"http://h\", api_key: env:UP }]\n";
    let endpoint = |running: &Running| -> Endpoint { running.catalog.model_named("m").unwrap().endpoints[0].clone() };
    let mut running = Running::new();
    running.load_file(&parse_in(&Fake::with(&[("UP", "one")]), text).unwrap(), Adoption::Never);
    let plan = running.load_file(&parse_in(&Fake::with(&[("UP", "two")]), text).unwrap(), Adoption::Never);
    assert_eq!(plan.lines(), ["~ model m: endpoints read anew"]);
    assert_eq!(endpoint(&running).credential.unwrap().secret.as_deref(), Some("two"));
    // For a moment the file cannot be read: what is known goes on.
    assert!(running.load(text).is_empty());

    let mut model = (**running.catalog.model_named("m").unwrap()).clone();
    model.endpoints[0].credential = None;
    running.catalog.put_model(model).unwrap();
    let file = parse_in(&Fake::with(&[("UP", "two")]), text).unwrap();
    assert_eq!(
        running.load_file(&file, Adoption::Never).lines()[1],
        "! model m keeps what was changed through the API: api_key"
    );

    let literal = text.replace("env:UP", "upstream-password");
    let plan = running.load(&literal);
    assert!(!format!("{plan:?}{}", plan.applied().to_text()).contains("upstream-password"));
    assert_eq!(endpoint(&running).credential.unwrap().secret.as_deref(), Some("upstream-password"));
    assert_eq!(
        running.load(&literal.replace("password", "passw0rd")).changes().len(),
        1,
        "a changed secret is noticed"
    );
}

#[test]
fn tenants_of_servers_follow_the_files_names() {
    let text = "tenants: [{ name: acme }]\nmcp_servers: [{ name: s, upstream_url: \"http://h\", allowed_tenants: [acme] }]\n";
    let server = |running: &Running| -> McpServer { (**running.catalog.mcp_server_named("s").unwrap()).clone() };
    let mut running = Running::started(text);
    let id = running.tenant("acme").id;
    running.edit("acme", |tenant| tenant.name = "roadrunner".to_owned());
    running.load(text);
    assert_eq!(server(&running).allowed_tenants, Some(vec![id]));
    running.catalog.remove_tenant(&id);
    running.load(text);
    assert_eq!(server(&running).allowed_tenants, Some(vec![id]), "no fault, and nobody else let in");
}

#[test]
fn only_what_this_program_wrote_is_a_record() {
    for text in [
        "",
        "{}",
        "{\"format\":2,\"max_in_flight\":null,\"groups\":{},\"tenants\":{},\"models\":{},\"mcp_servers\":{}}",
    ] {
        assert!(Applied::from_text(text).is_err(), "{text}");
    }
}
