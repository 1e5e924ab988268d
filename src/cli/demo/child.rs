//! The programs the demo runs: this one again, under other verbs, in a scratch folder that goes away with it.

use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a child may take to end of itself.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// A folder only we may read, removed when dropped.
pub(super) struct Scratch(Option<PathBuf>);

impl Scratch {
    /// Makes one under the system's folder for temporary files.
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = env::temp_dir().join(format!("obleth-demo-{}", uuid::Uuid::now_v7().simple()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(Some(path)))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new("."))
    }

    /// Leaves the folder where it is.
    pub(super) fn keep(mut self) -> Option<PathBuf> {
        self.0.take()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What cannot be removed is in the folder for temporary files all the same.
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// A running child, told to end when dropped.
pub(super) struct Running {
    child: Option<Child>,
    /// The first line of its output.
    greeting: String,
    log: PathBuf,
}

impl Running {
    /// Starts this program with `arguments` and waits for its first line. Its errors go to `NAME.log` in the scratch folder.
    pub(super) fn start(scratch: &Scratch, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let log = scratch.path().join(format!("{name}.log"));
        let program = env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(arguments)
            // The demo's house is not the operator's.
            .env_remove("OBLETH_CONFIG")
            .envs(environment.iter().copied())
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut greeting = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut greeting)?;
        }
        let running = Self {
            child: Some(child),
            greeting: greeting.trim().to_owned(),
            log,
        };
        if running.greeting.is_empty() {
            bail!("{name} ended at once: {}", running.last_words());
        }
        Ok(running)
    }

    /// The URL after `label` in the first line.
    pub(super) fn url(&self, label: &str) -> anyhow::Result<String> {
        let words = self.greeting.split_whitespace();
        let url = words
            .filter_map(|word| word.strip_prefix(label))
            .find(|rest| rest.starts_with("http://"));
        Ok(url.with_context(|| format!("no {label}http:// in {:?}", self.greeting))?.to_owned())
    }

    pub(super) fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The last line it logged.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or("it said nothing").to_owned()
    }

    /// Lets it run on when we end.
    pub(super) fn detach(mut self) {
        self.child = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < ENDS_WITHIN {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
