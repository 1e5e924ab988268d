//! The line between two processes: a message is a line of JSON.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{admission, limits, metering, upstreams};

/// What two processes must agree on: these messages (the number goes up when they change, or what they mean), and the records of
/// the ledger that one writes and the other reads.
pub(super) const PROTOCOL: (u32, &str) = (1, metering::RECORDS);

/// [`PROTOCOL`] as it is said.
pub(super) fn protocol() -> String {
    let (messages, records) = PROTOCOL;
    format!("{messages} {records}")
}

/// What the elder says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromElder {
    /// The store is closed and the ledger handed over: open it.
    Store,
    /// Of the limits.
    Limits(limits::Parting),
    /// Of models' slots.
    Models(admission::Parting),
    /// Of MCP servers' slots.
    Servers(admission::Parting),
    /// How many requests its endpoints have.
    Endpoints(Vec<upstreams::Busy>),
    /// All is said: serve.
    Serve,
}

/// What the heir says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromHeir {
    /// It could serve, and speaks this ([`PROTOCOL`]).
    Ready(String),
    /// It has the store.
    Open,
    /// Of the limits.
    Limits(limits::Reply),
    /// Of models' slots.
    Models(admission::Reply),
    /// Of MCP servers' slots.
    Servers(admission::Reply),
}

/// What comes over the line.
pub(super) struct Ear(BufReader<UnixStream>);

impl Ear {
    pub(super) fn new(line: UnixStream) -> Self {
        Self(BufReader::new(line))
    }

    /// The next message; `None` once the other side is gone.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut text = String::new();
        if self.0.read_line(&mut text)? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).map_err(io::Error::other)
    }

    /// The next message, if it comes in time.
    pub(super) fn next_within<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, String> {
        let wait = |ear: &mut Self| {
            ear.0.get_ref().set_read_timeout(Some(within))?;
            let next = ear.next();
            ear.0.get_ref().set_read_timeout(None)?;
            next
        };
        match wait(self) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err("it has ended".to_owned()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(format!("it has said nothing for {} s", within.as_secs()))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Says things from any thread without waiting for who hears them. How much waits to be said is bounded by the requests that a
/// process can have.
#[derive(Clone)]
pub(super) struct Mouth(Sender<String>);

impl Mouth {
    /// Starts the thread that writes. It ends when the other side is gone, or everybody here who might say something.
    pub(super) fn start(line: UnixStream) -> io::Result<Self> {
        let (say, said) = channel();
        let thread = std::thread::Builder::new().name("upgrade-say".to_owned());
        thread.spawn(move || write(line, &said))?;
        Ok(Self(say))
    }

    pub(super) fn say<T: Serialize>(&self, message: &T) {
        match serde_json::to_string(message) {
            Ok(text) => {
                // Nobody hears it any more; who reads the line sees that, too.
                let _ = self.0.send(text + "\n");
            }
            Err(error) => warn!(%error, "a message of the upgrade cannot be written"),
        }
    }
}

fn write(mut line: UnixStream, said: &Receiver<String>) {
    while let Ok(mut text) = said.recv() {
        // Many small ones at once.
        text.extend(said.try_iter());
        if line.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}
