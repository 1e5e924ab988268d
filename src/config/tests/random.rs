//! Random histories of both sides, against a model that knows nothing but times: per field, who edited last.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::catalog::{ManagedBy, Tenant};
use crate::config::noun::Noun;
use crate::units::Weight;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// One edit of either side. Fields are 0 (weight) and 1 (tokens per minute); values include the defaults.
#[derive(Debug, Clone)]
enum Step {
    FileField { name: usize, field: usize, value: u64 },
    FileGone { name: usize },
    ApiField { name: usize, field: usize, value: u64 },
    ApiMake { name: usize },
    ApiGone { name: usize },
    Load,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let value = prop_oneof![Just(0_u64), 1..4_u64];
    prop_oneof![
        3 => (name.clone(), 0..2_usize, value.clone()).prop_map(|(name, field, value)| Step::FileField { name, field, value }),
        1 => name.clone().prop_map(|name| Step::FileGone { name }),
        3 => (name.clone(), 0..2_usize, value).prop_map(|(name, field, value)| Step::ApiField { name, field, value }),
        1 => name.clone().prop_map(|name| Step::ApiMake { name }),
        1 => name.prop_map(|name| Step::ApiGone { name }),
        3 => Just(Step::Load),
    ]
}

/// A field's edits: the store's value and when the API made it; the file's, and when a load first saw it.
#[derive(Debug, Clone, Copy, Default)]
struct Edits {
    file: (u64, usize),
    api: Option<(u64, usize)>,
}

impl Edits {
    fn value(&self) -> u64 {
        match self.api {
            Some((value, at)) if at > self.file.1 => value,
            _ => self.file.0,
        }
    }
}

/// What the model knows of a name.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Field edits while the object lives, and whether the API made it.
    alive: Option<([Edits; 2], bool)>,
    /// The file's values at the last load, if it named the object and that was the file's own.
    seen: Option<[u64; 2]>,
}

#[derive(Default)]
struct Model {
    now: usize,
    file: BTreeMap<usize, [u64; 2]>,
    known: [Known; 3],
}

impl Model {
    fn api_field(&mut self, name: usize, field: usize, value: u64) -> bool {
        let Some((edits, _)) = &mut self.known[name].alive else {
            return false;
        };
        edits[field].api = Some((value, self.now));
        true
    }

    fn load(&mut self) {
        for (name, known) in self.known.iter_mut().enumerate() {
            let stated = self.file.get(&name).copied();
            match (&mut known.alive, stated) {
                (Some((_, true)), _) => known.seen = None,
                (Some((edits, false)), Some(values)) => {
                    for (field, value) in values.into_iter().enumerate() {
                        if edits[field].file.0 != value {
                            edits[field].file = (value, self.now);
                        }
                    }
                    known.seen = stated;
                }
                (Some((_, false)), None) => *known = Known::default(),
                (None, None) => known.seen = None,
                (None, Some(values)) if known.seen == Some(values) => {}
                (None, Some(values)) => {
                    let edits = values.map(|value| Edits {
                        file: (value, self.now),
                        api: None,
                    });
                    *known = Known {
                        alive: Some((edits, false)),
                        seen: stated,
                    };
                }
            }
        }
    }

    /// The file's text; a field at 0 is left out, which is its default.
    fn text(&self) -> String {
        let mut text = "tenants:\n".to_owned();
        for (name, [weight, tokens]) in &self.file {
            text.push_str(&format!("  - name: {}\n", NAMES[*name]));
            if *weight > 0 {
                text.push_str(&format!("    weight: {weight}\n"));
            }
            if *tokens > 0 {
                text.push_str(&format!("    tokens_per_minute: {tokens}\n"));
            }
        }
        text
    }
}

fn set(tenant: &mut Tenant, field: usize, value: u64) {
    if field == 0 {
        tenant.weight = if value == 0 {
            Weight::default()
        } else {
            Weight::new(value).unwrap()
        };
    } else {
        tenant.tokens_per_minute = value;
    }
}

fn get(tenant: &Tenant) -> [u64; 2] {
    let weight = u64::from(tenant.weight.get());
    [if weight == 100 { 0 } else { weight }, tenant.tokens_per_minute]
}

fn check(model: &Model, running: &Running) {
    for (name, known) in NAMES.iter().zip(&model.known) {
        let tenant = running.catalog.tenant_named(name);
        let expected = known.alive.as_ref().map(|(edits, api)| (edits.map(|edits| edits.value()), *api));
        let got = tenant.map(|tenant| (get(tenant), tenant.provenance.managed_by == ManagedBy::Api));
        assert_eq!(got, expected, "tenant {name}");
    }
}

/// After a load, `overridden` is where store and file differ.
fn check_overridden(model: &Model, running: &Running) {
    for (name, values) in &model.file {
        let Some(tenant) = running.catalog.tenant_named(NAMES[*name]) else {
            continue;
        };
        if tenant.provenance.managed_by == ManagedBy::File {
            let names = ["weight", "tokens_per_minute"];
            let mut differing: Vec<&str> = (0..2)
                .filter(|field| get(tenant)[*field] != values[*field])
                .map(|field| names[field])
                .collect();
            differing.sort_unstable();
            assert_eq!(tenant.provenance.overridden, differing);
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_most_recent_edit_of_a_field_wins(steps in proptest::collection::vec(step(), 1..40)) {
        let mut model = Model::default();
        let mut running = Running::new();
        for step in steps {
            model.now += 1;
            match step {
                Step::FileField { name, field, value } => model.file.entry(name).or_default()[field] = value,
                Step::FileGone { name } => drop(model.file.remove(&name)),
                Step::ApiField { name, field, value } => {
                    if model.api_field(name, field, value) {
                        let mut tenant = (**running.catalog.tenant_named(NAMES[name]).unwrap()).clone();
                        set(&mut tenant, field, value);
                        running.catalog.put_tenant(tenant).unwrap();
                    }
                }
                Step::ApiMake { name } => {
                    if model.known[name].alive.is_none() {
                        let mut tenant = Tenant::blank(NAMES[name]);
                        tenant.provenance.managed_by = ManagedBy::Api;
                        running.catalog.put_tenant(tenant).unwrap();
                        model.known[name].alive = Some((<[Edits; 2]>::default(), true));
                    }
                }
                Step::ApiGone { name } => {
                    if model.known[name].alive.take().is_some() {
                        let id = running.catalog.tenant_named(NAMES[name]).unwrap().id;
                        running.catalog.remove_tenant(&id);
                    }
                }
                Step::Load => {
                    running.load(&model.text());
                    model.load();
                    check_overridden(&model, &running);
                }
            }
            check(&model, &running);
        }
    }
}
