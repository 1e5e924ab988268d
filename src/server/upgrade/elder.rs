//! The process that hands over.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::line::{Ear, FromElder, FromHeir, Mouth, protocol};
use super::{OPEN_WITHIN, READY_WITHIN, VARIABLE, passing};
use crate::admin::Door;
use crate::server::tls::Acceptor;
use crate::server::{Floors, management, supervisor};
use crate::store::Store;

/// How long answers of the management API say that their connection closes before it does, so that hardly any client sends a
/// request into a connection that is closed at that moment.
const CLOSING_FOR: Duration = Duration::from_secs(1);

/// How long the last rows may take to be moved.
const ROWS_WITHIN: Duration = Duration::from_secs(10);

/// How often the heir is told how busy the endpoints are.
const BUSY_EVERY: Duration = Duration::from_millis(20);

/// How often it is tried to take the store back, and how long between.
const REOPEN_TRIES: u32 = 50;
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// Why there was no upgrade.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum Failure {
    /// The process goes on as before.
    #[error("{0}")]
    Unchanged(String),
    /// The store could not be taken back: the process can only end.
    #[error("{0}; and the store cannot be taken back: {1}")]
    Orphaned(String, String),
}

/// The management API, to be closed and opened again.
pub(in crate::server) struct Management {
    pub(in crate::server) listener: TcpListener,
    pub(in crate::server) router: Router,
    pub(in crate::server) operators: usize,
    pub(in crate::server) tls: Option<Acceptor>,
    pub(in crate::server) runtime: Handle,
    running: Option<(watch::Sender<Door>, JoinHandle<io::Result<()>>)>,
}

impl Management {
    /// Opens it.
    ///
    /// # Errors
    /// The system gives no further descriptor.
    pub(in crate::server) fn open(
        listener: TcpListener,
        router: Router,
        operators: usize,
        tls: Option<Acceptor>,
        runtime: Handle,
    ) -> io::Result<Self> {
        let mut management = Self {
            listener,
            router,
            operators,
            tls,
            runtime,
            running: None,
        };
        management.start()?;
        Ok(management)
    }

    fn start(&mut self) -> io::Result<()> {
        let (door, seen) = watch::channel(Door::Open);
        let serving = management::run(
            self.listener.try_clone()?,
            self.router.clone(),
            self.operators,
            self.tls.clone(),
            seen,
        );
        self.running = Some((door, self.runtime.spawn(serving)));
        Ok(())
    }

    /// Closes it, after answers have said so for `announced`; waits for the requests that run.
    pub(in crate::server) async fn close(&mut self, announced: Duration) {
        let Some((door, serving)) = self.running.take() else { return };
        if announced > Duration::ZERO {
            // A receiver that is gone has stopped already.
            let _ = door.send(Door::Closing);
            tokio::time::sleep(announced).await;
        }
        let _ = door.send(Door::Closed);
        // One that panicked has ended too.
        let _ = serving.await;
    }
}

/// What is handed over, and by whom.
pub(in crate::server) struct Elder<'a> {
    pub(in crate::server) floors: &'a Floors,
    pub(in crate::server) store: &'a Arc<Store>,
    pub(in crate::server) management: &'a mut Management,
    /// The data plane's socket.
    pub(in crate::server) data: &'a TcpListener,
    /// How the two sockets are configured.
    pub(in crate::server) configured: [SocketAddr; 2],
    /// Lets the data plane accept no more.
    pub(in crate::server) stop_data: &'a watch::Sender<bool>,
}

/// The heir as a child, while it can still be sent away.
#[derive(Default)]
pub(in crate::server) struct Candidate(Mutex<State>);

#[derive(Default)]
struct State {
    child: Option<Child>,
    dismissed: bool,
}

impl Candidate {
    /// Sends it away, if it has not taken over; it is an upgrade that failed then.
    pub(in crate::server) fn dismiss(&self) {
        let mut state = self.0.lock();
        state.dismissed = true;
        if let Some(child) = &mut state.child {
            // One that has ended already is as good.
            let _ = child.kill();
        }
    }

    /// Waits until it is gone, and with it what it had locked.
    fn bury(&self) {
        let child = self.0.lock().child.take();
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It takes over: from now on it cannot be sent away. `None` if it has been.
    fn succeeds(&self) -> Option<Child> {
        let mut state = self.0.lock();
        if state.dismissed { None } else { state.child.take() }
    }
}

/// What stays of the elder after the handover: the heir's answers come by it until it is dropped.
pub(in crate::server) struct Estate {
    _mouth: Mouth,
}

impl Elder<'_> {
    /// Hands over. `candidate` can be dismissed meanwhile.
    ///
    /// # Errors
    /// [`Failure`].
    pub(in crate::server) async fn hand_over(&mut self, candidate: &Arc<Candidate>) -> Result<Estate, Failure> {
        if std::process::id() == 1 {
            return Err(Failure::Unchanged(
                "this is the first process of a container, which ends with it: replace the container".to_owned(),
            ));
        }
        let unchanged = |why: String| Failure::Unchanged(why);
        let (line, mut ear) = self
            .start(candidate)
            .map_err(|error| unchanged(format!("cannot start the program: {error}")))?;
        let heard = blocking(move || ear.next_within(READY_WITHIN).map(|message| (message, ear))).await;
        let ear = match heard {
            Ok((FromHeir::Ready(speaks), ear)) if speaks == protocol() => ear,
            Ok((FromHeir::Ready(speaks), _)) => {
                let why = format!(
                    "this process hands over by protocol {}, and the new one takes over by {speaks}: restart",
                    protocol()
                );
                return Err(self.dismissed(candidate, why).await);
            }
            Ok((other, _)) => return Err(self.dismissed(candidate, format!("the new process said {other:?}")).await),
            Err(why) => return Err(self.dismissed(candidate, format!("the new process cannot serve: {why}")).await),
        };
        info!("the new process is ready; handing the store over");
        self.management.close(CLOSING_FOR).await;
        let opened = self.give_store(&line, ear).await;
        let outcome = match opened {
            Ok(ear) => self.serve_no_more(line, ear, candidate).map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        match outcome {
            Ok(estate) => Ok(estate),
            Err(why) => Err(self.take_back(candidate, why).await),
        }
    }

    /// Starts the program by the name it was started by, so that a file that was put in its place is used.
    fn start(&self, candidate: &Candidate) -> io::Result<(UnixStream, Ear)> {
        let mut arguments = env::args_os();
        let program = match arguments.next() {
            Some(name) if !name.is_empty() => name.into(),
            Some(_) | None => env::current_exe()?,
        };
        let (here, there) = UnixStream::pair()?;
        let child = Command::new(program)
            .args(arguments)
            .env(VARIABLE, std::process::id().to_string())
            // systemd's watchdog is for whoever is the main process.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(OwnedFd::from(there)))
            .spawn()?;
        info!(pid = child.id(), "upgrade: started a new process");
        candidate.0.lock().child = Some(child);
        let [data, management] = self.configured;
        passing::send(&here, &[(data, self.data), (management, &self.management.listener)])?;
        let ear = Ear::new(here.try_clone()?);
        Ok((here, ear))
    }

    async fn dismissed(&self, candidate: &Arc<Candidate>, why: String) -> Failure {
        let candidate = Arc::clone(candidate);
        blocking(move || candidate.bury()).await;
        Failure::Unchanged(why)
    }

    /// Moves the last rows, closes the store, and waits until the heir has it.
    async fn give_store(&self, line: &UnixStream, mut ear: Ear) -> Result<Ear, String> {
        let (meter, store) = (Arc::clone(&self.floors.meter), Arc::clone(self.store));
        let line = line.try_clone().map_err(|error| error.to_string())?;
        blocking(move || {
            meter.hand_over(ROWS_WITHIN)?;
            store.close();
            let mouth = Mouth::start(line).map_err(|error| error.to_string())?;
            mouth.say(&FromElder::Store);
            match ear.next_within(OPEN_WITHIN) {
                Ok(FromHeir::Open) => Ok(ear),
                Ok(other) => Err(format!("the new process said {other:?}")),
                Err(why) => Err(format!("the new process cannot serve: {why}")),
            }
        })
        .await
    }

    /// The moment of the handover: from here on the heir is the gateway.
    fn serve_no_more(&self, line: UnixStream, ear: Ear, candidate: &Candidate) -> io::Result<Estate> {
        let mouth = Mouth::start(line)?;
        let Some(child) = candidate.succeeds() else {
            return Err(io::Error::other("the new process was sent away"));
        };
        // A receiver that is gone has stopped already.
        let _ = self.stop_data.send(true);
        let floors = self.floors;
        let say = || {
            let mouth = mouth.clone();
            move |message: FromElder| mouth.say(&message)
        };
        let (limits, models, servers) = (say(), say(), say());
        let limits = floors.limits.hand_over(Box::new(move |parting| limits(FromElder::Limits(parting))));
        let models = floors
            .admission
            .hand_over(Box::new(move |parting| models(FromElder::Models(parting))));
        let servers = floors
            .mcp_slots
            .hand_over(Box::new(move |parting| servers(FromElder::Servers(parting))));
        mouth.say(&FromElder::Endpoints(floors.upstreams.busy()));
        supervisor::succeeded_by(child.id());
        mouth.say(&FromElder::Serve);
        info!(
            pid = child.id(),
            active = floors.active.count(),
            "upgrade: handed over; the requests that run are finished here"
        );
        let listener = std::thread::Builder::new().name("upgrade-hear".to_owned());
        let heard = listener.spawn(move || {
            let mut ear = ear;
            loop {
                match ear.next() {
                    Ok(Some(FromHeir::Limits(reply))) => limits.heard(reply),
                    Ok(Some(FromHeir::Models(reply))) => models.heard(reply),
                    Ok(Some(FromHeir::Servers(reply))) => servers.heard(reply),
                    Ok(Some(FromHeir::Ready(_) | FromHeir::Open)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
            error!("upgrade: the new process is gone");
            limits.is_gone();
            models.is_gone();
            servers.is_gone();
        });
        if let Err(error) = heard {
            // Requests that still need something wait until they are cut.
            error!(%error, "upgrade: cannot hear the new process");
        }
        let (told, upstreams) = (mouth.clone(), Arc::clone(&floors.upstreams));
        tokio::spawn(async move {
            let mut last = Vec::new();
            let mut looks = tokio::time::interval(BUSY_EVERY);
            loop {
                looks.tick().await;
                let busy = upstreams.busy();
                if busy != last {
                    last.clone_from(&busy);
                    told.say(&FromElder::Endpoints(busy));
                }
            }
        });
        Ok(Estate { _mouth: mouth })
    }

    /// The heir did not come up: this process is the gateway as before.
    async fn take_back(&mut self, candidate: &Arc<Candidate>, why: String) -> Failure {
        let (candidate, meter, store) = (Arc::clone(candidate), Arc::clone(&self.floors.meter), Arc::clone(self.store));
        let back = blocking(move || {
            candidate.bury();
            for _ in 1..REOPEN_TRIES {
                match store.reopen() {
                    Ok(()) => return meter.take_back().map_err(|error| error.to_string()),
                    Err(error) => warn!(%error, "the store is not there yet"),
                }
                std::thread::sleep(REOPEN_PAUSE);
            }
            store.reopen().map_err(|error| error.to_string())?;
            meter.take_back().map_err(|error| error.to_string())
        })
        .await;
        match back.and_then(|()| self.management.start().map_err(|error| error.to_string())) {
            Ok(()) => Failure::Unchanged(why),
            Err(error) => Failure::Orphaned(why, error),
        }
    }
}

/// Does what blocks elsewhere.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // It is never cancelled.
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
