//! Opens the ledger beside the store, and lets the limits remember what it knows.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Settings, StartError};
use crate::limits::Limits;
use crate::metering::{self, Meter, Observer};
use crate::store::{Clock, Store};
use crate::units::UnixMs;

/// Opens the spool next to the database, and moves what an earlier process left in it.
pub(super) fn open(settings: &Settings, store: &Arc<Store>, observer: Observer) -> Result<Arc<Meter>, StartError> {
    let clock: Clock = Arc::new(now);
    Ok(Meter::open(
        &metering::Settings {
            when_full: settings.when_ledger_full(),
            retention_days: settings.boot().ledger.retention_days,
            observer,
            ..metering::Settings::new(settings.boot().store.path.with_extension("spool"), clock)
        },
        Arc::clone(store) as Arc<dyn metering::Sink>,
    )?)
}

/// Charges the limits with the past.
pub(super) fn remember(store: &Store, limits: &Limits) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let past = runtime
        .block_on(store.remembered(now()))
        .map_err(|error| StartError::Past(error.to_string()))?;
    limits.rebuild(&past, limits.now(), now());
    Ok(())
}

/// The system's clock.
pub(super) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
