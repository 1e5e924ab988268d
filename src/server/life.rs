//! From both doors' opening to the process's end: what signals ask for, and how it is taken down again.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::drain::{self, Asked, Signals};
use super::reload::Reloader;
use super::upgrade::{Candidate, Elder, Estate, Failure, Management};
use super::{Floors, StartError, supervisor};
use crate::admin::Readiness;
use crate::config::Watch;
use crate::store::Store;

/// How long tasks that were cut get to be dropped before the process ends without them.
const CUT_WITHIN: Duration = Duration::from_millis(500);

/// How long the ledger's last rows get to reach the store.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// How long the last spans get to reach the collector. A trace is worth no more: a process that is to end must end.
const TRACES_WITHIN: Duration = Duration::from_millis(500);

/// How long a connection may stay without a request after an upgrade. Whatever it asks within that time is served, and its last:
/// a connection that is closed then has been idle for longer.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// How often it is looked whether the last request has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A gateway that serves.
pub(super) struct Life {
    pub(super) floors: Floors,
    pub(super) store: Arc<Store>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) readiness: Readiness,
    pub(super) management: Management,
    pub(super) following: Option<Watch>,
    /// The data plane's socket, to be handed over.
    pub(super) data: TcpListener,
    /// The data plane.
    pub(super) serving: JoinHandle<io::Result<()>>,
    pub(super) stop_data: watch::Sender<bool>,
    pub(super) end_data: watch::Sender<bool>,
    pub(super) signals: Signals,
    pub(super) configured: [SocketAddr; 2],
    pub(super) drain_timeout: Duration,
}

/// How it ends.
enum End {
    /// Nobody comes after it.
    Stop,
    /// The next process serves already.
    HandedOver(Estate),
    /// The store is lost.
    Orphaned(String),
}

impl Life {
    /// Lives, until a signal ends it.
    pub(super) fn live(mut self, data: Runtime, management: Runtime) -> Result<(), StartError> {
        let end = data.block_on(async {
            let end = self.serve().await;
            drop(self.following.take());
            match &end {
                End::HandedOver(_) => self.finish().await,
                End::Stop | End::Orphaned(_) => self.drain().await,
            }
            end
        });
        self.serving.abort();
        data.shutdown_timeout(CUT_WITHIN);
        match end {
            End::HandedOver(estate) => {
                if !self.floors.meter.sync() {
                    error!("rows of the ledger that could not be written are lost");
                }
                // The last: with it the heir knows that nothing comes any more.
                drop(estate);
                self.flush_traces();
                management.shutdown_timeout(CUT_WITHIN);
                Ok(())
            }
            End::Stop | End::Orphaned(_) => {
                if !self.floors.meter.flush(FLUSH_WITHIN) {
                    warn!("the ledger's last rows stay in the spool until the next start");
                }
                self.flush_traces();
                let closed = self.management.close(Duration::ZERO);
                let _ = management.block_on(async { tokio::time::timeout(CUT_WITHIN, closed).await });
                management.shutdown_timeout(CUT_WITHIN);
                match end {
                    End::Orphaned(why) => Err(StartError::Orphaned(why)),
                    End::Stop | End::HandedOver(_) => Ok(()),
                }
            }
        }
    }

    fn flush_traces(&self) {
        if !self.floors.traces.flush(TRACES_WITHIN) {
            warn!("the collector did not take the last traces in time");
        }
    }

    /// Serves until it is asked to end, or has handed over.
    async fn serve(&mut self) -> End {
        loop {
            if self.signals.next().await == Asked::Stop {
                return End::Stop;
            }
            if self.floors.predecessor.is_there() {
                warn!("upgrade refused: the process before this one still has requests; ask again when it has ended");
                continue;
            }
            let (outcome, stop) = self.upgrade().await;
            match outcome {
                Ok(estate) => return End::HandedOver(estate),
                Err(Failure::Unchanged(why)) => {
                    error!(%why, "upgrade failed; this process serves as before");
                    // Its file may have changed while the store was closed.
                    self.reloader.catch_up().await;
                }
                Err(orphaned @ Failure::Orphaned(..)) => {
                    error!(why = %orphaned, "upgrade failed");
                    return End::Orphaned(orphaned.to_string());
                }
            }
            if stop {
                return End::Stop;
            }
        }
    }

    /// Hands over, if it can. Also returns whether it was asked to stop meanwhile.
    async fn upgrade(&mut self) -> (Result<Estate, Failure>, bool) {
        let candidate = Arc::new(Candidate::default());
        let mut elder = Elder {
            floors: &self.floors,
            store: &self.store,
            management: &mut self.management,
            data: &self.data,
            configured: self.configured,
            stop_data: &self.stop_data,
        };
        let mut handing = pin!(elder.hand_over(&candidate));
        let mut stop = false;
        loop {
            tokio::select! {
                outcome = &mut handing => return (outcome, stop),
                asked = self.signals.next() => match asked {
                    Asked::Upgrade => warn!("upgrade refused: one is under way"),
                    Asked::Stop => {
                        stop = true;
                        candidate.dismiss();
                    }
                },
            }
        }
    }

    /// Nobody comes after: takes nothing more, and lets finish what runs.
    async fn drain(&mut self) {
        self.readiness.set(false);
        supervisor::stopping(self.drain_timeout);
        // A receiver that is gone has stopped already.
        let _ = self.stop_data.send(true);
        let _ = self.end_data.send(true);
        self.floors.admission.shut_down();
        self.floors.active.close();
        self.floors.mcp_slots.shut_down();
        drain::last_requests(&self.floors.active, self.drain_timeout, &mut self.signals).await;
    }

    /// The next process serves: waits until no client is connected here, the time is up, or it is hurried. Clients leave with the
    /// next answer they get; who asks for nothing is closed after [`IDLE_FOR`]. The supervisor tells a whole
    /// service to stop, this process too, and that is no reason to cut what runs: it takes two signals, as otherwise.
    async fn finish(&mut self) {
        let began = Instant::now();
        let (active, serving) = (Arc::clone(&self.floors.active), &mut self.serving);
        let (signals, end_data) = (&mut self.signals, &self.end_data);
        let ended = async {
            // One that panicked has ended too.
            let left = tokio::time::timeout(IDLE_FOR, &mut *serving).await;
            if left.is_err() {
                let _ = end_data.send(true);
                let _ = serving.await;
            }
            while active.count() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let hurried = async {
            let mut stops = 0;
            while stops < 2 {
                match signals.next().await {
                    Asked::Stop => {
                        stops += 1;
                        let _ = end_data.send(true);
                    }
                    Asked::Upgrade => warn!("upgrade refused: this process has been upgraded; ask the next one"),
                }
            }
        };
        let active = || self.floors.active.count();
        tokio::select! {
            () = ended => info!(drain_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "upgrade: the last request has ended"),
            () = tokio::time::sleep(self.drain_timeout) => warn!(active = active(), "drain timeout, cutting what still runs"),
            () = hurried => warn!(active = active(), "second signal, cutting what still runs"),
        }
        let _ = self.end_data.send(true);
    }
}
