//! The configuration file, merged into the store: at start and whenever it is read again, by whomever. One at a time, all or
//! nothing: a file with a fault leaves everything as it was.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::ledger::now;
use super::{Settings, StartError, supervisor, unsupported};
use crate::admin::{ConfigChange, ConfigFault, ConfigOutcome, ConfigStatus, Configuration, ReloadError};
use crate::catalog::Catalog;
use crate::config::{self, Adoption, Applied, Context, Fault, File, Pace, Plan, Process, Watch};
use crate::credential::KeyHasher;
use crate::store::{Author, Change, ChangeError, Entry, Source, Store};

/// How often a merge is made anew because the API changed the catalog meanwhile.
const ATTEMPTS: u32 = 64;

/// Who wants the file read.
#[derive(Debug, Clone)]
enum Trigger {
    Start,
    FileChange,
    Signal,
    Api { actor: String, request_id: String },
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::FileChange => "file_change",
            Self::Signal => "signal",
            Self::Api { .. } => "api",
        })
    }
}

/// Why a file was not applied. Then nothing has changed.
enum Refusal {
    Faulty(Vec<Fault>),
    Unavailable(String),
}

/// The catalog is no longer the one that the plan was made for.
struct Moved;

/// Reads the file and merges it into the store.
pub(super) struct Reloader {
    store: Arc<Store>,
    /// `None` without a file.
    path: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
    hasher: KeyHasher,
    /// What the gateway was started with.
    running: config::Settings,
    /// Held while a file is read and applied, so that none overtakes another.
    turn: Mutex<()>,
    status: Mutex<ConfigStatus>,
    readings: Readings,
}

/// What became of the file each time it was read.
#[derive(Debug, Default)]
pub(super) struct Readings {
    pub(super) applied: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unchanged: AtomicU64,
}

impl Reloader {
    /// For a gateway that is started so.
    pub(super) fn new(store: Arc<Store>, settings: &Settings) -> Arc<Self> {
        let path = settings.follow.then(|| settings.file.path().to_owned());
        Arc::new(Self {
            store,
            flags: settings.flags.clone(),
            hasher: settings.hasher.clone(),
            running: settings.boot().clone(),
            turn: Mutex::new(()),
            status: Mutex::new(ConfigStatus {
                path: path.as_ref().map(|path| path.display().to_string()),
                ..ConfigStatus::default()
            }),
            path,
            readings: Readings::default(),
        })
    }

    /// How often the file was read, and how it stands; `None` without a file.
    pub(super) fn figures(&self) -> Option<(&Readings, ConfigStatus)> {
        self.path.as_ref()?;
        Some((&self.readings, self.status.lock().clone()))
    }

    /// Merges the file that the gateway is started with.
    ///
    /// # Errors
    /// [`StartError`].
    pub(super) fn start(&self, file: &File, runtime: &Handle) -> Result<(), StartError> {
        if self.path.is_none() {
            return Ok(());
        }
        let done = self.apply(file, &Trigger::Start, runtime);
        done.map_err(|refusal| match refusal {
            Refusal::Faulty(faults) => StartError::Configuration(faults),
            Refusal::Unavailable(why) => StartError::Merge(why),
        })
    }

    /// Reads the file again when it changes and at SIGHUP, until what is returned is dropped. Without a file nothing is
    /// followed, and SIGHUP ends the process as ever.
    ///
    /// # Errors
    /// The system gives no thread or no signal handler.
    pub(super) fn follow(self: &Arc<Self>, known: [u8; 32], runtime: &Runtime) -> io::Result<Option<Watch>> {
        let Some(path) = &self.path else { return Ok(None) };
        let (tell, mut told) = mpsc::channel(1);
        let watch = config::watch(path, known, Pace::default(), move || {
            // One that still waits to be taken will read this change too.
            let _ = tell.try_send(());
        })?;
        let _inside = runtime.enter();
        let mut hangup = signal(SignalKind::hangup())?;
        let reloader = Arc::clone(self);
        runtime.spawn(async move {
            loop {
                let trigger = tokio::select! {
                    Some(()) = told.recv() => Trigger::FileChange,
                    Some(()) = hangup.recv() => Trigger::Signal,
                    else => return,
                };
                let signalled = matches!(trigger, Trigger::Signal);
                if signalled {
                    supervisor::reloading();
                }
                // Logged, and kept for `GET /config/status`.
                let applied = reloader.reload(trigger).await.is_ok();
                if signalled {
                    supervisor::reloaded(applied);
                }
            }
        });
        Ok(Some(watch))
    }

    /// Reads the file again if it has changed, after a time in which it could not be.
    pub(super) async fn catch_up(self: &Arc<Self>) {
        if self.path.is_some() {
            // Logged, and kept for `GET /config/status`.
            let _ = self.reload(Trigger::FileChange).await;
        }
    }

    /// Reads the file again and applies it, on a thread that may block. Goes on when its caller goes away.
    async fn reload(self: &Arc<Self>, trigger: Trigger) -> Result<ConfigStatus, ReloadError> {
        let Some(path) = self.path.clone() else {
            return Err(ReloadError::NoFile);
        };
        let reloader = Arc::clone(self);
        let runtime = Handle::current();
        let work = tokio::task::spawn_blocking(move || reloader.read_and_apply(&path, &trigger, &runtime));
        work.await
            .unwrap_or_else(|_| Err(ReloadError::Unavailable("the reload failed by a fault of the program".to_owned())))
    }

    fn read_and_apply(&self, path: &Path, trigger: &Trigger, runtime: &Handle) -> Result<ConfigStatus, ReloadError> {
        let _turn = self.turn.lock();
        let context = Context {
            environment: &Process,
            hasher: &self.hasher,
            flags: &self.flags,
        };
        let done = match config::load(path, &context) {
            // What another way has read already is no change.
            Ok(file) if matches!(trigger, Trigger::FileChange) && self.is_in_force(&file) => {
                self.readings.unchanged.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(file) => self.apply(&file, trigger, runtime),
            Err(faults) => Err(Refusal::Faulty(faults)),
        };
        match done {
            Ok(()) => Ok(self.status.lock().clone()),
            Err(refusal) => Err(self.refused(refusal, trigger)),
        }
    }

    fn is_in_force(&self, file: &File) -> bool {
        let status = self.status.lock();
        status.outcome == ConfigOutcome::Applied && status.digest.as_ref() == Some(&hex(&file.digest()))
    }

    /// Merges a file into the store: one transaction, one swap.
    fn apply(&self, file: &File, trigger: &Trigger, runtime: &Handle) -> Result<(), Refusal> {
        let faults = unsupported(file);
        if !faults.is_empty() {
            return Err(Refusal::Faulty(faults));
        }
        let applied = runtime.block_on(self.store.applied_file());
        let applied = applied.map_err(|error| Refusal::Unavailable(error.to_string()))?;
        let applied = applied.map(|text| Applied::from_text(&text)).transpose();
        let applied = applied.map_err(|error| about(file, error.to_string()))?;
        let restart = self.running.differences(file.settings());
        for _ in 0..ATTEMPTS {
            // The record that goes into the transaction depends on the catalog, so the merge comes first, and holds only for
            // the catalog it has seen.
            let catalog = self.store.catalog();
            let plan = config::merge(applied.as_ref(), file, &catalog, Adoption::Never).map_err(Refusal::Faulty)?;
            let (changes, notices) = shown(&plan);
            let mut audit = audit(&plan);
            audit.push(reload_entry(file, trigger, changes.len(), &restart));
            let document = plan.applied().to_text();
            let edit = move |catalog_now: &mut Catalog, _| {
                if catalog_now.version() != catalog.version() {
                    return Err(Moved);
                }
                plan.apply(catalog_now).map_err(|_| Moved)?;
                Ok(Change {
                    value: (),
                    audit,
                    answer: None,
                })
            };
            match runtime.block_on(self.store.apply_file(author(trigger), document, edit)) {
                Ok(_) => {
                    self.applied(file, trigger, &restart, changes, notices);
                    return Ok(());
                }
                Err(ChangeError::Refused(Moved)) => {}
                Err(error @ (ChangeError::NoSealingKey | ChangeError::TooLarge(_))) => return Err(about(file, error.to_string())),
                Err(error) => return Err(Refusal::Unavailable(error.to_string())),
            }
        }
        Err(Refusal::Unavailable(
            "the catalog changes faster than the file can be merged".to_owned(),
        ))
    }

    fn applied(&self, file: &File, trigger: &Trigger, restart: &[&'static str], changes: Vec<ConfigChange>, notices: Vec<String>) {
        info!(%trigger, changes = changes.len(), file = %file.path().display(), "configuration applied");
        for notice in &notices {
            info!("configuration: {notice}");
        }
        for setting in restart {
            warn!("restart required: {setting}");
        }
        self.readings.applied.fetch_add(1, Ordering::Relaxed);
        let mut status = self.status.lock();
        let now = now();
        *status = ConfigStatus {
            path: status.path.take(),
            digest: Some(hex(&file.digest())),
            attempted_at: Some(now),
            applied_at: Some(now),
            outcome: ConfigOutcome::Applied,
            errors: Vec::new(),
            restart_required: restart.iter().map(|setting| (*setting).to_owned()).collect(),
            notices,
            changes,
        };
    }

    /// Logs and keeps why; what was in force still is.
    fn refused(&self, refusal: Refusal, trigger: &Trigger) -> ReloadError {
        self.readings.refused.fetch_add(1, Ordering::Relaxed);
        let mut status = self.status.lock();
        status.attempted_at = Some(now());
        status.outcome = ConfigOutcome::Refused;
        match refusal {
            Refusal::Faulty(faults) => {
                for fault in &faults {
                    let Fault {
                        line,
                        column,
                        path,
                        message,
                        ..
                    } = fault;
                    error!(%trigger, file = %fault.file.display(), line, column, field = path, "configuration refused: {message}");
                }
                status.errors = faults.iter().map(placed).collect();
                ReloadError::Faulty(status.errors.clone())
            }
            Refusal::Unavailable(why) => {
                error!(%trigger, error = why, "configuration not applied");
                status.errors = vec![ConfigFault {
                    place: status.path.clone().unwrap_or_default(),
                    path: String::new(),
                    message: "could not be stored".to_owned(),
                }];
                ReloadError::Unavailable(why)
            }
        }
    }
}

/// What the management API is given.
pub(super) struct ForTheApi(pub(super) Arc<Reloader>);

#[async_trait]
impl Configuration for ForTheApi {
    fn status(&self) -> ConfigStatus {
        self.0.status.lock().clone()
    }

    async fn reload(&self, actor: String, request_id: String) -> Result<ConfigStatus, ReloadError> {
        self.0.reload(Trigger::Api { actor, request_id }).await
    }

    fn export(&self) -> String {
        config::export(&self.0.store.catalog(), &self.0.running)
    }
}

/// The file itself makes the changes; who wanted it read is in the detail of the last row.
fn author(trigger: &Trigger) -> Author {
    let request_id = match trigger {
        Trigger::Api { request_id, .. } => request_id.clone(),
        Trigger::Start | Trigger::FileChange | Trigger::Signal => String::new(),
    };
    Author {
        actor: "file".to_owned(),
        source: Source::File,
        request_id,
        idempotency: None,
    }
}

fn audit(plan: &Plan) -> Vec<Entry> {
    let entry = |change: &config::Change| Entry {
        action: change.action,
        entity_type: change.entity_type,
        entity_id: change.entity_id.clone(),
        detail: change.detail(),
    };
    plan.changes().iter().map(entry).collect()
}

fn reload_entry(file: &File, trigger: &Trigger, changes: usize, restart: &[&'static str]) -> Entry {
    let mut detail = json!({
        "trigger": trigger.to_string(),
        "digest": hex(&file.digest()),
        "changes": changes,
        "restart_required": restart,
    });
    if let Trigger::Api { actor, .. } = trigger {
        detail["requested_by"] = json!(actor);
    }
    Entry {
        action: "reload_config",
        entity_type: "config",
        entity_id: file.path().display().to_string(),
        detail,
    }
}

fn shown(plan: &Plan) -> (Vec<ConfigChange>, Vec<String>) {
    let change = |change: &config::Change| ConfigChange {
        action: change.action,
        entity_type: change.entity_type,
        entity_id: change.entity_id.clone(),
        name: change.name.clone(),
        summary: change.to_string(),
    };
    (
        plan.changes().iter().map(change).collect(),
        plan.notices().iter().map(ToString::to_string).collect(),
    )
}

/// A fault of the file as a whole.
fn about(file: &File, message: String) -> Refusal {
    Refusal::Faulty(vec![Fault {
        file: file.path().to_owned(),
        line: 0,
        column: 0,
        path: String::new(),
        message,
    }])
}

fn placed(fault: &Fault) -> ConfigFault {
    let file = fault.file.display();
    ConfigFault {
        place: if fault.line > 0 {
            format!("{file}:{}:{}", fault.line, fault.column)
        } else {
            file.to_string()
        },
        path: fault.path.clone(),
        message: fault.message.clone(),
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
