//! Where configuration is read and changed: the one path from a handler to the store, the same for every noun.

use std::sync::Arc;

use axum::response::Response;

use super::answer;
use super::condition::IfMatch;
use super::face::{self, Face};
use super::problem::Problem;
use super::sent::Sent;
use crate::catalog::{Catalog, Conflict, Live, Provenance};
use crate::id::{KeyId, ModelId};
use crate::store::{Author, Change, Done, Entry, Store, StoredAnswer};
use crate::units::UnixMs;
use crate::upstreams::Upstreams;

/// Tells when a key was last used, if it is known.
pub type LastUsed = Arc<dyn Fn(&KeyId) -> Option<UnixMs> + Send + Sync>;

/// How much the response cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheSize {
    /// Answers.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Tells how much the response cache holds.
pub type CacheSizes = Arc<dyn Fn() -> CacheSize + Send + Sync>;

/// Empties a model's response cache.
pub type PurgeCache = Arc<dyn Fn(&ModelId) + Send + Sync>;

/// An object that the API makes, shows, changes and deletes.
pub(super) trait Noun: Clone + Send + Sync + Sized + 'static {
    /// Its id.
    type Id: Clone + Send + 'static;
    /// As in audit rows' `entity_type`.
    const NAME: &'static str;

    fn find<'a>(catalog: &'a Catalog, id: &Self::Id) -> Option<&'a Arc<Self>>;
    fn put(self, catalog: &mut Catalog) -> Result<(), Conflict>;
    fn remove(catalog: &mut Catalog, id: &Self::Id) -> Result<(), Conflict>;
    fn id(&self) -> Self::Id;
    /// Reads an id from a path.
    fn read_id(text: &str) -> Option<Self::Id>;
    /// The id as text.
    fn label(&self) -> String;
    /// Its path, for `Location`.
    fn path(&self) -> String;
    fn provenance(&self) -> &Provenance;
    fn provenance_mut(&mut self) -> &mut Provenance;
    /// Its settings, for the audit log.
    fn face(&self) -> Face;
    /// What goes with it when it is deleted, for the audit log.
    fn dependents(&self, _: &Catalog) -> Option<(&'static str, Vec<String>)> {
        None
    }
    /// The object as it is shown, in JSON.
    fn json(&self, desk: &Desk, catalog: &Catalog) -> String;
}

/// The store, the catalog in force, and what answers tell besides.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) store: Arc<Store>,
    pub(super) live: Arc<Live>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) last_used: LastUsed,
    pub(super) cache_size: CacheSizes,
    pub(super) purge_cache: PurgeCache,
}

impl Desk {
    /// Shows one object.
    ///
    /// # Errors
    /// 404.
    pub(super) fn show<N: Noun>(&self, id: &N::Id) -> Result<Response, Problem> {
        let catalog = self.live.load();
        let noun = N::find(&catalog, id).ok_or_else(|| Problem::no_such(N::NAME))?;
        Ok(answer::object(noun.provenance().version, noun.json(self, &catalog)))
    }

    /// Makes an object. `make` sees the catalog it will be put in.
    pub(super) async fn create<N: Noun>(
        &self,
        author: Author,
        action: &'static str,
        make: impl FnOnce(&Catalog) -> Result<N, Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        let desk = self.clone();
        let done = self.store.change(author, move |catalog, _now| {
            let noun = make(catalog)?;
            let (id, path) = (noun.id(), noun.path());
            let entry = entry(action, &noun, None, Some(&noun.face()));
            noun.put(catalog).map_err(Problem::from)?;
            let (kept_id, kept_path) = (id.clone(), path.clone());
            let answer = move |catalog: &Catalog| StoredAnswer {
                status: 201,
                body: N::find(catalog, &kept_id).map(|noun| noun.json(&desk, catalog)).unwrap_or_default(),
                location: Some(kept_path),
            };
            Ok(Change::new((id, path)).audited(entry).answering(answer))
        });
        match done.await? {
            Done::Replayed(stored) => Ok(answer::replayed(stored)),
            Done::Committed {
                value: (id, path),
                catalog,
            } => {
                let noun = N::find(&catalog, &id).ok_or_else(Problem::internal)?;
                Ok(answer::created(&path, noun.provenance().version, noun.json(self, &catalog)))
            }
        }
    }

    /// Changes an object in place.
    pub(super) async fn update<N: Noun>(
        &self,
        sent: Sent,
        id: N::Id,
        action: &'static str,
        edit: impl FnOnce(&mut N) -> Result<(), Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        self.update_as(sent, id, move |noun| edit(noun).map(|()| action)).await
    }

    /// The same where the edit decides what it is called in the audit log.
    pub(super) async fn update_as<N: Noun>(
        &self,
        sent: Sent,
        id: N::Id,
        edit: impl FnOnce(&mut N) -> Result<&'static str, Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        let Sent { author, if_match, .. } = sent;
        let done = self.store.change(author, {
            let id = id.clone();
            move |catalog, _now| {
                let mut noun = current::<N>(catalog, &id, &if_match)?;
                let before = noun.face();
                let action = edit(&mut noun)?;
                let after = noun.face();
                face::mark(noun.provenance_mut(), &face::changed(&before, &after));
                let entry = entry(action, &noun, Some(&before), Some(&after));
                noun.put(catalog).map_err(Problem::from)?;
                Ok(Change::new(()).audited(entry))
            }
        });
        match done.await? {
            Done::Replayed(stored) => Ok(answer::replayed(stored)),
            Done::Committed { catalog, .. } => {
                let noun = N::find(&catalog, &id).ok_or_else(Problem::internal)?;
                Ok(answer::object(noun.provenance().version, noun.json(self, &catalog)))
            }
        }
    }

    /// Deletes an object.
    pub(super) async fn delete<N: Noun>(&self, sent: Sent, id: N::Id, action: &'static str) -> Result<Response, Problem> {
        let Sent { author, if_match, .. } = sent;
        self.store
            .change(author, move |catalog, _now| {
                let noun = current::<N>(catalog, &id, &if_match)?;
                let mut entry = entry(action, &noun, Some(&noun.face()), None);
                if let Some((name, ids)) = noun.dependents(catalog) {
                    entry.detail["before"][name] = ids.into();
                }
                N::remove(catalog, &id).map_err(Problem::from)?;
                Ok(Change::new(()).audited(entry))
            })
            .await?;
        Ok(answer::gone())
    }
}

/// A copy of an object to be changed.
///
/// # Errors
/// 404, 412.
pub(super) fn current<N: Noun>(catalog: &Catalog, id: &N::Id, if_match: &IfMatch) -> Result<N, Problem> {
    let noun = N::find(catalog, id).ok_or_else(|| Problem::no_such(N::NAME))?;
    if_match.check(noun.provenance().version)?;
    Ok((**noun).clone())
}

/// The audit row of a change to an object.
pub(super) fn entry<N: Noun>(action: &'static str, noun: &N, before: Option<&Face>, after: Option<&Face>) -> Entry {
    Entry {
        action,
        entity_type: N::NAME,
        entity_id: noun.label(),
        detail: face::detail(before, after),
    }
}
