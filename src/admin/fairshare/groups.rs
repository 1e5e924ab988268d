//! `/fairshare/groups`: the upper of the two levels that share.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Value as Json, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Room;
use crate::admin::desk::{Desk, Noun};
use crate::admin::draft::{Draft, Given, Mode, draft};
use crate::admin::face::Face;
use crate::admin::of::Of;
use crate::admin::page::Query;
use crate::admin::problem::Problem;
use crate::admin::provenance;
use crate::admin::sent::Sent;
use crate::admin::shown;
use crate::admin::tenants::WeightDraft;
use crate::admin::value::{Line, Share};
use crate::catalog::{Catalog, Conflict, Group, Provenance};
use crate::units::Weight;

draft! {
    GroupDraft, "a group", read_only: ["tenants", "managed_by", "overridden", "version", "created_at", "updated_at"],
    /// Unique; also its id.
    name: Line<1, 128>;
    /// Its share among groups: twice the weight gets twice the tokens.
    weight: Share = 100;
}

pub(super) fn routes() -> OpenApiRouter<Room> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(delete))
        .routes(routes!(set_weight))
}

/// Creates a group.
#[utoipa::path(post, path = "/fairshare/groups", operation_id = "create_fairshare_group", tag = "fairshare",
    request_body(content = ref("#/components/schemas/NewGroup"), example = json!({"name": "research", "weight": 200})),
    responses((status = 201, description = "The group.", body = ref("#/components/schemas/Group"))))]
async fn create(State(desk): State<Desk>, sent: Sent) -> Result<Response, Problem> {
    let draft: GroupDraft = sent.checked(Mode::Create)?;
    // `name` is required, so it is there.
    let Given::Is(name) = draft.name else {
        return Err(Problem::internal());
    };
    let mut group = Group::new(&name);
    draft.weight.settle(&mut group.weight, Weight::default);
    desk.create(sent.author, "create_fairshare_group", move |catalog| {
        // The catalog replaces groups of the same name; making one must not.
        if catalog.groups().get(&*group.name).is_some() {
            return Err(Conflict::NameTaken { noun: "group", name }.into());
        }
        Ok(group)
    })
    .await
}

/// Lists all groups, oldest first.
#[utoipa::path(get, path = "/fairshare/groups", operation_id = "list_fairshare_groups", tag = "fairshare",
    responses((status = 200, description = "The groups.", body = ref("#/components/schemas/GroupList"))))]
async fn list(State(desk): State<Desk>, query: Query) -> Result<Response, Problem> {
    let page = query.page(1000)?;
    let catalog = desk.live.load();
    let mut members: HashMap<&str, usize> = HashMap::new();
    for tenant in catalog.tenants().values() {
        *members.entry(&tenant.group).or_default() += 1;
    }
    let position = |group: &&Arc<Group>| format!("{:020}{}", group.provenance.created_at.0.max(0), group.name);
    let show = |group: &&Arc<Group>| json_of(group, members.get(&*group.name).copied().unwrap_or(0));
    Ok(page.cut(catalog.groups().values().collect(), position, show))
}

/// Deletes a group that has no tenants.
#[utoipa::path(delete, path = "/fairshare/groups/{name}", operation_id = "delete_fairshare_group", tag = "fairshare",
    responses((status = 204, description = "It is gone.")))]
async fn delete(State(desk): State<Desk>, Of(name): Of<Group>, sent: Sent) -> Result<Response, Problem> {
    desk.delete::<Group>(sent, name, "delete_fairshare_group").await
}

/// Changes a group's weight. The next scheduling decision uses it.
#[utoipa::path(patch, path = "/fairshare/groups/{name}/weight", operation_id = "set_fairshare_group_weight", tag = "fairshare",
    request_body(content = ref("#/components/schemas/WeightChange"), example = json!({"weight": 300})),
    responses((status = 200, description = "The group.", body = ref("#/components/schemas/Group"))))]
async fn set_weight(State(desk): State<Desk>, Of(name): Of<Group>, sent: Sent) -> Result<Response, Problem> {
    let draft: WeightDraft = sent.checked(Mode::Part)?;
    desk.update(sent, name, "update_fairshare_group_weight", |group: &mut Group| {
        draft.weight.settle(&mut group.weight, Weight::default);
        Ok(())
    })
    .await
}

#[derive(Serialize)]
struct Settings<'a> {
    name: &'a str,
    weight: u32,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    settings: Settings<'a>,
    tenants: usize,
    #[serde(flatten)]
    provenance: provenance::Shown<'a>,
}

fn settings(group: &Group) -> Settings<'_> {
    Settings {
        name: &group.name,
        weight: group.weight.get(),
    }
}

fn json_of(group: &Group, tenants: usize) -> String {
    shown::json(&Shown {
        settings: settings(group),
        tenants,
        provenance: provenance::Shown::of(&group.provenance),
    })
}

impl Noun for Group {
    type Id = Arc<str>;
    const NAME: &'static str = "group";

    fn find<'a>(catalog: &'a Catalog, name: &Arc<str>) -> Option<&'a Arc<Self>> {
        catalog.groups().get(&**name)
    }

    fn put(self, catalog: &mut Catalog) -> Result<(), Conflict> {
        catalog.put_group(self);
        Ok(())
    }

    fn remove(catalog: &mut Catalog, name: &Arc<str>) -> Result<(), Conflict> {
        catalog.remove_group(name).map(|_| ())
    }

    fn id(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn read_id(text: &str) -> Option<Arc<str>> {
        Some(text.into())
    }

    fn label(&self) -> String {
        self.name.to_string()
    }

    fn path(&self) -> String {
        format!("/api/v1/fairshare/groups/{}", utf8_percent_encode(&self.name, NON_ALPHANUMERIC))
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn provenance_mut(&mut self) -> &mut Provenance {
        &mut self.provenance
    }

    fn face(&self) -> Face {
        Face::of(&settings(self))
    }

    fn json(&self, _: &Desk, catalog: &Catalog) -> String {
        json_of(self, catalog.tenants().values().filter(|tenant| tenant.group == self.name).count())
    }
}

/// The schemas that the routes above name.
pub(super) fn schemas() -> Vec<(&'static str, Json)> {
    let tenants = json!({"type": "integer", "minimum": 0, "description": "How many tenants it has."});
    vec![
        ("Group", GroupDraft::shown(&provenance::schema(json!({"tenants": tenants})))),
        ("NewGroup", GroupDraft::schema(Mode::Create)),
    ]
}
