//! A child process of the program under test, which says on its first line where it listens.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A running child. Killed when dropped.
pub(super) struct Process {
    child: Child,
    /// What it said first.
    pub(super) greeting: String,
}

impl Process {
    /// Starts `obleth` and waits for its first line.
    pub(super) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut greeting = String::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut greeting).unwrap();
        // Read to the end, so that the child never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let process = Self {
            child,
            greeting: greeting.trim().to_owned(),
        };
        assert!(!process.greeting.is_empty(), "the program ended at once: {command:?}");
        process
    }

    /// The address behind `name=http://…` (or behind the last `http://`) of the greeting; `https` is as good.
    pub(super) fn address(&self, name: &str) -> std::net::SocketAddr {
        let greeting = self.greeting.replace("https://", "http://");
        let marker = format!("{name}http://");
        let rest = greeting
            .rsplit_once(&marker)
            .unwrap_or_else(|| panic!("no {marker} in {:?}", self.greeting))
            .1;
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(super) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it and waits until it is gone.
    pub(super) fn end(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit code, if it has ended.
    pub(super) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
