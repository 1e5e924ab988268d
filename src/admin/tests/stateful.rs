//! Random operations beside a model of what must be: a few maps.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::harness::{Answer, House};

const STEPS: usize = 5_000;
const NAMES: u64 = 12;

/// SplitMix64: the same steps for the same seed everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn name(&mut self, kind: &str) -> String {
        format!("{kind}{}", self.roll(NAMES))
    }

    fn pick<'a, V>(&mut self, from: &'a BTreeMap<String, V>) -> Option<&'a String> {
        let count = u64::try_from(from.len()).unwrap();
        (count > 0).then(|| from.keys().nth(usize::try_from(self.roll(count)).unwrap()).unwrap())
    }
}

#[derive(Clone)]
struct Tenant {
    name: String,
    group: String,
    weight: u64,
    version: u64,
}

struct Key {
    tenant: String,
    disabled: bool,
    version: u64,
}

/// What must be.
#[derive(Default)]
struct Model {
    groups: BTreeMap<String, (u64, u64)>,
    tenants: BTreeMap<String, Tenant>,
    keys: BTreeMap<String, Key>,
    audit_rows: usize,
}

struct Run {
    house: House,
    dice: Dice,
    model: Model,
    /// Ids that were once valid.
    gone: Vec<String>,
}

impl Run {
    async fn step(&mut self) {
        match self.dice.roll(14) {
            0 | 1 => self.create_tenant().await,
            2 | 3 => self.set_weight().await,
            4 => self.set_group().await,
            5 => self.rename().await,
            6 => self.delete_tenant().await,
            7 => self.create_group().await,
            8 => self.delete_group().await,
            9 | 10 => self.create_key().await,
            11 => self.disable_key().await,
            12 => self.delete_key().await,
            _ => self.look().await,
        }
    }

    /// Counts the audit row of a change that must have happened.
    fn done(&mut self, answer: Answer, status: u16) -> Answer {
        self.model.audit_rows += 1;
        answer.expect(status)
    }

    fn taken(&self, name: &str, except: &str) -> bool {
        self.model.tenants.iter().any(|(id, tenant)| tenant.name == name && id != except)
    }

    /// A tenant's id: mostly of one that is there, now and then of one that was.
    fn some_tenant(&mut self) -> Option<String> {
        if self.dice.roll(8) == 0 && !self.gone.is_empty() {
            let count = u64::try_from(self.gone.len()).unwrap();
            return Some(self.gone[usize::try_from(self.dice.roll(count)).unwrap()].clone());
        }
        self.dice.pick(&self.model.tenants).cloned()
    }

    async fn create_tenant(&mut self) {
        let (name, group, weight) = (self.dice.name("t"), self.dice.name("g"), self.dice.roll(1_000_002));
        let answer = self
            .house
            .post("/tenants", json!({"name": name, "fairshare_group": group, "weight": weight}))
            .await;
        if weight == 0 || weight > 1_000_000 || !self.model.groups.contains_key(&group) {
            answer.problem(422, "invalid");
        } else if self.taken(&name, "") {
            answer.problem(409, "name_taken");
        } else {
            let id = self.done(answer, 201).id();
            self.model.tenants.insert(
                id,
                Tenant {
                    name,
                    group,
                    weight,
                    version: 1,
                },
            );
        }
    }

    async fn set_weight(&mut self) {
        let Some(id) = self.some_tenant() else { return };
        let (weight, guess) = (1 + self.dice.roll(1000), self.dice.roll(4));
        let tag = format!("\"v{guess}\"");
        let headers: &[(&str, &str)] = if guess == 0 { &[] } else { &[("if-match", &tag)] };
        let body = json!({"weight": weight}).to_string();
        let answer = self
            .house
            .call("PATCH", &format!("/api/v1/tenants/{id}/weight"), headers, Some(&body))
            .await;
        match self.model.tenants.get(&id).map(|tenant| tenant.version) {
            None => drop(answer.problem(404, "not_found")),
            Some(version) if guess != 0 && guess != version => drop(answer.problem(412, "version_mismatch")),
            Some(version) => {
                assert_eq!(self.done(answer, 200).header("etag"), format!("\"v{}\"", version + 1));
                let tenant = self.model.tenants.get_mut(&id).unwrap();
                (tenant.weight, tenant.version) = (weight, version + 1);
            }
        }
    }

    async fn set_group(&mut self) {
        let Some(id) = self.some_tenant() else { return };
        let group = self.dice.name("g");
        let answer = self
            .house
            .patch(&format!("/tenants/{id}/group"), json!({"fairshare_group": group}))
            .await;
        if !self.model.tenants.contains_key(&id) {
            answer.problem(404, "not_found");
        } else if self.model.groups.contains_key(&group) {
            self.done(answer, 200);
            let tenant = self.model.tenants.get_mut(&id).unwrap();
            (tenant.group, tenant.version) = (group, tenant.version + 1);
        } else {
            answer.problem(422, "invalid");
        }
    }

    async fn rename(&mut self) {
        let Some(id) = self.some_tenant() else { return };
        let name = self.dice.name("t");
        let answer = self.house.put(&format!("/tenants/{id}"), json!({"name": name})).await;
        if !self.model.tenants.contains_key(&id) {
            answer.problem(404, "not_found");
        } else if self.taken(&name, &id) {
            answer.problem(409, "name_taken");
        } else {
            self.done(answer, 200);
            let tenant = self.model.tenants.get_mut(&id).unwrap();
            (tenant.name, tenant.version) = (name, tenant.version + 1);
        }
    }

    async fn delete_tenant(&mut self) {
        let Some(id) = self.some_tenant() else { return };
        let answer = self.house.delete(&format!("/tenants/{id}")).await;
        if self.model.tenants.remove(&id).is_some() {
            self.done(answer, 204);
            self.model.keys.retain(|_, key| key.tenant != id);
            self.gone.push(id);
        } else {
            answer.problem(404, "not_found");
        }
    }

    async fn create_group(&mut self) {
        let (name, weight) = (self.dice.name("g"), 1 + self.dice.roll(500));
        let answer = self.house.post("/fairshare/groups", json!({"name": name, "weight": weight})).await;
        if self.model.groups.contains_key(&name) {
            answer.problem(409, "name_taken");
        } else {
            self.done(answer, 201);
            self.model.groups.insert(name, (weight, 1));
        }
    }

    async fn delete_group(&mut self) {
        let name = self.dice.name("g");
        let answer = self.house.delete(&format!("/fairshare/groups/{name}")).await;
        if !self.model.groups.contains_key(&name) {
            answer.problem(404, "not_found");
        } else if self.model.tenants.values().any(|tenant| tenant.group == name) {
            answer.problem(409, "group_in_use");
        } else {
            self.done(answer, 204);
            self.model.groups.remove(&name);
        }
    }

    async fn create_key(&mut self) {
        let Some(tenant) = self.some_tenant() else { return };
        let answer = self.house.post(&format!("/tenants/{tenant}/keys"), json!({"name": "k"})).await;
        if self.model.tenants.contains_key(&tenant) {
            let id = self.done(answer, 201).json()["key"]["id"].as_str().unwrap().to_owned();
            self.model.keys.insert(
                id,
                Key {
                    tenant,
                    disabled: false,
                    version: 1,
                },
            );
        } else {
            answer.problem(404, "not_found");
        }
    }

    async fn disable_key(&mut self) {
        let Some(id) = self.dice.pick(&self.model.keys).cloned() else {
            return;
        };
        let disabled = self.dice.roll(2) == 0;
        let answer = self.house.put(&format!("/keys/{id}/disabled"), json!({"disabled": disabled})).await;
        self.done(answer, 200);
        let key = self.model.keys.get_mut(&id).unwrap();
        (key.disabled, key.version) = (disabled, key.version + 1);
    }

    async fn delete_key(&mut self) {
        let Some(id) = self.dice.pick(&self.model.keys).cloned() else {
            return;
        };
        let answer = self.house.delete(&format!("/keys/{id}")).await;
        self.done(answer, 204);
        self.model.keys.remove(&id);
        self.house.get(&format!("/keys/{id}")).await.problem(404, "not_found");
    }

    /// Everything that is shown is as the model says.
    async fn look(&mut self) {
        let rows = |answer: Answer| -> Vec<Json> { answer.expect(200).json().as_array().unwrap().clone() };
        let tenants = rows(self.house.get("/tenants").await);
        assert_eq!(tenants.len(), self.model.tenants.len());
        for (row, (id, tenant)) in tenants.iter().zip(&self.model.tenants) {
            let Tenant {
                name,
                group,
                weight,
                version,
            } = tenant;
            assert_eq!(row["id"], json!(id), "in order of age");
            assert_eq!((&row["name"], &row["fairshare_group"]), (&json!(name), &json!(group)));
            assert_eq!((&row["weight"], &row["version"]), (&json!(weight), &json!(version)));
        }
        let keys = rows(self.house.get("/keys").await);
        assert_eq!(keys.len(), self.model.keys.len());
        for (row, (id, key)) in keys.iter().zip(&self.model.keys) {
            assert_eq!((&row["id"], &row["tenant_id"]), (&json!(id), &json!(key.tenant)));
            assert_eq!((&row["disabled"], &row["version"]), (&json!(key.disabled), &json!(key.version)));
        }
        let groups = rows(self.house.get("/fairshare/groups").await);
        assert_eq!(groups.len(), self.model.groups.len() + 1);
        for row in groups.iter().filter(|row| row["name"] != "default") {
            let name = row["name"].as_str().unwrap();
            let members = self.model.tenants.values().filter(|tenant| tenant.group == name).count();
            assert_eq!(
                (&row["tenants"], row["weight"].as_u64().unwrap()),
                (&json!(members), self.model.groups[name].0)
            );
        }
    }
}

/// Another seed: `OBLETH_SEED=7 cargo nextest run --lib stateful`.
#[tokio::test]
async fn whatever_is_done_in_whatever_order_the_api_is_as_a_few_maps_say() {
    let seed = std::env::var("OBLETH_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    println!("OBLETH_SEED={seed}");
    let mut run = Run {
        house: House::new(),
        dice: Dice(seed),
        model: Model::default(),
        gone: Vec::new(),
    };
    for _ in 0..STEPS {
        run.step().await;
    }
    run.look().await;
    let newest = run.house.audit().await[0].seq;
    assert_eq!(
        newest,
        u64::try_from(run.model.audit_rows).unwrap(),
        "one audit row per change, none for a refusal"
    );
    assert!(
        run.model.audit_rows > STEPS / 4,
        "most steps change something: {}",
        run.model.audit_rows
    );
}
