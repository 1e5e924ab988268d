//! A change's way on the writer thread: had it already → edit → complete → write → answer.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::audit;
use super::change::{Author, Change, ChangeError, Done};
use super::columns::Unstorable;
use super::idempotency::{self, Known};
use super::rows;
use super::writer::{Batch, Fault, Job, guard};
use crate::catalog::Catalog;
use crate::units::UnixMs;

/// Who waits for the change.
pub(super) type Reply<T, E> = oneshot::Sender<Result<Done<T>, ChangeError<E>>>;

/// Packs a change for the writer; `file` is the configuration file that it applies, if it does.
pub(super) fn job<T, E, F>(author: Author, file: Option<String>, edit: F, reply: Reply<T, E>) -> Job
where
    T: Send + 'static,
    E: Send + 'static,
    F: FnOnce(&mut Catalog, UnixMs) -> Result<Change<T>, E> + Send + 'static,
{
    Box::new(move |batch| {
        if reply.is_closed() {
            return Box::new(|_| {});
        }
        let outcome = attempt(batch, &author, file.as_deref(), edit);
        Box::new(move |fate| {
            // A refusal may rest on a change of the same batch, so it shares the batch's fate.
            let answer = fate.clone().map_err(ChangeError::Unavailable).and(outcome);
            // The caller may have gone; the change stands.
            let _ = reply.send(answer);
        })
    })
}

fn attempt<T, E>(
    batch: &mut Batch<'_>,
    author: &Author,
    file: Option<&str>,
    edit: impl FnOnce(&mut Catalog, UnixMs) -> Result<Change<T>, E>,
) -> Result<Done<T>, ChangeError<E>> {
    let now = batch.now();
    if let Some(idempotency) = &author.idempotency {
        match idempotency::find(batch.connection(), idempotency, now).map_err(|error| blame(error.into()))? {
            Known::Not => {}
            Known::Answered(answer) => return Ok(Done::Replayed(answer)),
            Known::Otherwise => return Err(ChangeError::IdempotencyMismatch),
        }
    }
    let before = Arc::clone(&batch.catalog);
    let mut next = Catalog::clone(&before);
    let Change { value, audit, answer } = guard(|| edit(&mut next, now)).map_err(blame)?.map_err(ChangeError::Refused)?;
    let differs = rows::complete(&mut next, &before, now).map_err(|conflict| ChangeError::Unavailable(conflict.to_string()))?;
    let record = match (&author.idempotency, answer) {
        (Some(idempotency), Some(render)) => Some((idempotency, guard(|| render(&next)).map_err(blame)?)),
        (Some(_) | None, _) => None,
    };
    if differs || file.is_some() || !audit.is_empty() || record.is_some() {
        let vault = batch.vault;
        let write = |connection: &rusqlite::Connection| {
            if differs {
                rows::write(connection, vault, &next, &before)?;
            }
            if let Some(file) = file {
                rows::remember_file(connection, file, now)?;
            }
            audit::append(connection, author, &audit, now)?;
            if let Some((idempotency, answer)) = &record {
                idempotency::keep(connection, idempotency, answer, now)?;
            }
            Ok(())
        };
        batch.transact(write).map_err(blame)?;
    }
    let catalog = if differs { Arc::new(next) } else { before };
    batch.catalog = Arc::clone(&catalog);
    Ok(Done::Committed { value, catalog })
}

/// What a fault is to the one who asked for the change.
fn blame<E>(fault: Fault) -> ChangeError<E> {
    match fault {
        Fault::Unstorable(Unstorable::NoSealingKey) => ChangeError::NoSealingKey,
        Fault::Unstorable(Unstorable::TooLarge(field)) => ChangeError::TooLarge(field),
        Fault::Sqlite(error) => ChangeError::Unavailable(error.to_string()),
        Fault::Lost(why) => ChangeError::Unavailable(why),
        Fault::Panicked => ChangeError::Panicked,
    }
}
