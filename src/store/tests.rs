//! The store from outside and, where a promise is about the disk, from below.

mod auditing;
mod changes;
mod faults;
mod nouns;
mod opening;
mod scale;
mod secrets;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::catalog::{Budget, Conflict, DEFAULT_GROUP, Provenance, Tenant, TenantStatus};
use crate::id::TenantId;
use crate::units::Weight;

/// A store in a directory of its own.
struct Scratch {
    store: Arc<Store>,
    options: Options,
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(adjust: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path().join("data/obleth.db"));
        adjust(&mut options);
        let (store, _) = Store::open(options.clone()).unwrap();
        Self { store, options, dir }
    }

    /// Closes the store and opens it again.
    fn reopened(self) -> Self {
        let Self { store, options, dir } = self;
        drop(Arc::into_inner(store).expect("nobody else holds the store"));
        let (store, _) = Store::open(options.clone()).unwrap();
        Self { store, options, dir }
    }

    /// Closes the store; leaves its files.
    fn closed(self) -> (Options, tempfile::TempDir) {
        drop(Arc::into_inner(self.store).expect("nobody else holds the store"));
        (self.options, self.dir)
    }

    async fn create(&self, name: &str) -> Result<Done<TenantId>, ChangeError<Conflict>> {
        create(&self.store, author(), name).await
    }
}

/// A clock that stands until it is set.
#[derive(Clone)]
struct Stopped(Arc<AtomicI64>);

impl Stopped {
    fn at(ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(ms)))
    }

    fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Arc::new(move || UnixMs(now.load(Ordering::SeqCst)))
    }
}

fn author() -> Author {
    Author {
        actor: "admin".to_owned(),
        source: Source::Api,
        request_id: "req-1".to_owned(),
        idempotency: None,
    }
}

fn tenant(name: &str) -> Tenant {
    Tenant {
        id: TenantId::mint(),
        name: name.to_owned(),
        description: String::new(),
        group: DEFAULT_GROUP.into(),
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

fn entry(action: &'static str, entity_id: &str) -> Entry {
    Entry {
        action,
        entity_type: "tenant",
        entity_id: entity_id.to_owned(),
        detail: serde_json::json!({"after": {"name": entity_id}}),
    }
}

/// Makes a tenant, with its audit row.
async fn create(store: &Store, author: Author, name: &str) -> Result<Done<TenantId>, ChangeError<Conflict>> {
    let tenant = tenant(name);
    let edit = move |catalog: &mut Catalog, _| {
        let (id, entry) = (tenant.id, entry("create_tenant", &tenant.name));
        catalog.put_tenant(tenant)?;
        let answer = move |catalog: &Catalog| StoredAnswer {
            status: 201,
            location: Some(format!("/api/v1/tenants/{id}")),
            body: format!("version {}", catalog.tenants().get(&id).unwrap().provenance.version),
        };
        Ok(Change::new(id).audited(entry).answering(answer))
    };
    store.change(author, edit).await
}

/// Any edit, without audit rows.
async fn edit<T: Send + 'static>(store: &Store, edit: impl FnOnce(&mut Catalog) -> T + Send + 'static) -> Arc<Catalog> {
    let done = store
        .change(author(), move |catalog, _| Ok::<_, ()>(Change::new(edit(catalog))))
        .await
        .unwrap();
    match done {
        Done::Committed { catalog, .. } => catalog,
        Done::Replayed(_) => panic!("no key was given"),
    }
}

/// Runs on the writer thread, durable when it returns.
async fn write<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, super::ledger::WriteError> {
    store.write(work)?.await.unwrap()
}

/// Waits until the writer has healed by itself: on a thread of its own and by the real clock.
async fn in_order_again(store: &Store) {
    let healed = async {
        while store.writable().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), healed).await.unwrap();
}

fn audit_of_all() -> AuditQuery {
    AuditQuery {
        limit: 1000,
        ..AuditQuery::default()
    }
}

fn copy_of(database: &Path, to: &Path) -> std::path::PathBuf {
    let copy = to.join("copy.db");
    std::fs::copy(database, &copy).unwrap();
    let wal = sibling(database, "-wal");
    if wal.exists() {
        std::fs::copy(wal, sibling(&copy, "-wal")).unwrap();
    }
    copy
}

fn sibling(database: &Path, suffix: &str) -> std::path::PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Compares everything two catalogs hold.
#[track_caller]
fn assert_same(left: &Catalog, right: &Catalog, context: &str) {
    macro_rules! compare {
        ($($noun:ident by $id:ident),+) => {$(
            assert_eq!(left.$noun().len(), right.$noun().len(), "{}: {context}", stringify!($noun));
            for object in left.$noun().values() {
                assert_eq!(Some(object), right.$noun().get(&object.$id), "{}: {context}", stringify!($noun));
            }
        )+};
    }
    assert_eq!(left.version(), right.version(), "{context}");
    assert_eq!(left.max_in_flight(), right.max_in_flight(), "{context}");
    compare!(groups by name, tenants by id, keys by id, models by id, mcp_servers by id);
}
