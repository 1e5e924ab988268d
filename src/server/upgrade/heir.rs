//! The process that takes over.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use fail::fail_point;
use rustix::net::{AddressFamily, getsockname};
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::line::{Ear, FromElder, FromHeir, Mouth, protocol};
use super::{STORE_WITHIN, VARIABLE, passing};
use crate::server::{Floors, StartError};
use crate::upstreams::Elsewhere;
use crate::{admission, limits};

/// What there is to take over, and the line to whom it is taken from.
pub(in crate::server) struct Inheritance {
    sockets: Vec<(SocketAddr, TcpListener)>,
    ear: Ear,
    mouth: Mouth,
}

impl Inheritance {
    /// What the process before hands over; `None` where nobody does.
    ///
    /// # Errors
    /// It was said that somebody does, and nobody is there.
    pub(in crate::server) fn from_environment() -> Result<Option<Self>, StartError> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let receive = || {
            let line = io::stdin().as_fd().try_clone_to_owned()?;
            if getsockname(&line).map(|address| address.address_family()) != Ok(AddressFamily::UNIX) {
                return Err(io::Error::other("the standard input is no Unix socket"));
            }
            let line = UnixStream::from(line);
            line.set_read_timeout(Some(STORE_WITHIN))?;
            let sockets = passing::receive(&line)?;
            line.set_read_timeout(None)?;
            Ok(Self {
                sockets,
                mouth: Mouth::start(line.try_clone()?)?,
                ear: Ear::new(line),
            })
        };
        let received = receive();
        received.map(Some).map_err(|error| StartError::Upgrade(error.to_string()))
    }

    /// The socket that was configured so.
    pub(in crate::server) fn socket(&mut self, configured: SocketAddr) -> Option<TcpListener> {
        let at = self.sockets.iter().position(|(address, _)| *address == configured)?;
        Some(self.sockets.remove(at).1)
    }

    /// Says that this process could serve, and waits for the store.
    ///
    /// # Errors
    /// The process before has ended, or thought better of it.
    pub(in crate::server) fn await_store(&mut self) -> Result<(), StartError> {
        fail_point!("upgrade::ready");
        self.mouth.say(&FromHeir::Ready(protocol()));
        match self.ear.next_within(STORE_WITHIN) {
            Ok(FromElder::Store) => Ok(()),
            Ok(other) => Err(StartError::Upgrade(format!("it said {other:?}"))),
            Err(why) => Err(StartError::Upgrade(why)),
        }
    }

    /// Says that this process has the store, and takes over what the process before knows and has. Returns whether it did: if it
    /// has died instead, this is a start like any other. Once that is done its further requests are heard, on a thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(in crate::server) fn take_over(self, floors: &Floors, runtime: &Handle) -> io::Result<bool> {
        fail_point!("upgrade::open");
        let Self { mut ear, mouth, .. } = self;
        let mut requests = Requests::new(floors, &mouth, runtime);
        mouth.say(&FromHeir::Open);
        loop {
            match ear.next() {
                Ok(Some(FromElder::Serve)) => break,
                Ok(Some(message)) => requests.heard(message),
                Ok(None) | Err(_) => {
                    warn!("upgrade: the process before has died; what it knew is taken from the ledger");
                    return Ok(false);
                }
            }
        }
        floors.predecessor.begins();
        let predecessor = Arc::clone(&floors.predecessor);
        let listener = std::thread::Builder::new().name("upgrade-hear".to_owned());
        listener.spawn(move || {
            while let Ok(Some(message)) = ear.next() {
                requests.heard(message);
            }
            drop(requests);
            predecessor.ends();
            info!("upgrade: the process before has ended");
        })?;
        Ok(true)
    }
}

/// The requests of the process before.
struct Requests {
    limits: limits::Estate,
    calendar: Arc<limits::Limits>,
    models: admission::Estate,
    servers: admission::Estate,
    elsewhere: Elsewhere,
    upstreams: Arc<crate::upstreams::Upstreams>,
}

impl Requests {
    fn new(floors: &Floors, mouth: &Mouth, runtime: &Handle) -> Self {
        let say = || {
            let mouth = mouth.clone();
            move |message: FromHeir| mouth.say(&message)
        };
        let (to_limits, to_models, to_servers) = (say(), say(), say());
        Self {
            limits: limits::Estate::new(
                Arc::clone(&floors.limits),
                Box::new(move |reply| to_limits(FromHeir::Limits(reply))),
            ),
            calendar: Arc::clone(&floors.limits),
            models: admission::Estate::new(
                Arc::clone(&floors.admission),
                runtime.clone(),
                Arc::new(move |reply| to_models(FromHeir::Models(reply))),
            ),
            servers: admission::Estate::new(
                Arc::clone(&floors.mcp_slots),
                runtime.clone(),
                Arc::new(move |reply| to_servers(FromHeir::Servers(reply))),
            ),
            elsewhere: Elsewhere::default(),
            upstreams: Arc::clone(&floors.upstreams),
        }
    }

    fn heard(&mut self, message: FromElder) {
        match message {
            FromElder::Limits(parting) => {
                let calendar = self.calendar.calendar(crate::server::ledger::now(), self.calendar.now());
                self.limits.heard(parting, calendar);
            }
            FromElder::Models(parting) => self.models.heard(parting),
            FromElder::Servers(parting) => self.servers.heard(parting),
            FromElder::Endpoints(busy) => self.elsewhere.set(&self.upstreams, busy),
            FromElder::Store | FromElder::Serve => {}
        }
    }
}
