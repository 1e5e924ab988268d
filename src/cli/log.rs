//! Logs: structured, to standard error, by a thread of their own. Who logs never waits for who reads: when the log is not read
//! fast enough, lines are left out and their number is told.

use std::io::{self, Write, stderr};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat, LogLevel};
use crate::telemetry::RequestLog;

/// How many lines may wait to be written: some 2 MiB.
const WAITING_MAX: usize = 8_192;

/// How long the last lines of the process may take to be written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Starts logging. What is returned writes the last lines when it is dropped.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(how: Log) -> io::Result<Flush> {
    let filter = EnvFilter::new(directives(how.level));
    let lines = Lines::to(stderr())?;
    let flush = Flush(lines.queue.clone());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    match how.format {
        LogFormat::Json => logs
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
        LogFormat::Text => logs.with_ansi(super::terminal::colours(&stderr())).init(),
    }
    Ok(flush)
}

/// Pingora and what is under it write heads and bodies, and with them keys and prompts, and a line for each client that
/// leaves early. They are silent at every level. Lines of requests, if they are wanted, are written at every level.
fn directives(level: LogLevel) -> String {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let requests = RequestLog::TARGET;
    format!("{level},{requests}=info,pingora=off,pingora_core=off,pingora_proxy=off,h2=warn,hyper=warn,hyper_util=warn")
}

/// What the thread is given.
enum Job {
    Line(Vec<u8>),
    /// To be answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// The way to the thread that writes.
struct Lines {
    queue: SyncSender<Job>,
    left_out: Arc<AtomicU64>,
}

impl Lines {
    fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(WAITING_MAX);
        let left_out = Arc::<AtomicU64>::default();
        let told = Arc::clone(&left_out);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(&jobs, writer, &told))?;
        Ok(Self { queue, left_out })
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            lines: self,
            text: Vec::new(),
        }
    }
}

/// One line on its way.
struct Line<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.lines.queue.try_send(Job::Line(mem::take(&mut self.text))).is_err() {
            self.lines.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(jobs: &Receiver<Job>, mut writer: impl Write, left_out: &AtomicU64) {
    while let Ok(job) = jobs.recv() {
        let missing = left_out.swap(0, Ordering::Relaxed);
        if missing > 0 {
            // In the form of both formats' readers: JSON is text as well. Nobody to tell if it cannot be written.
            let _ = writeln!(
                writer,
                "{{\"level\":\"WARN\",\"message\":\"log lines were left out\",\"left_out\":{missing}}}"
            );
        }
        match job {
            Job::Line(text) => {
                let _ = writer.write_all(&text);
            }
            Job::Flush(done) => {
                let _ = writer.flush().and_then(|()| done.send(()).map_err(io::Error::other));
            }
        }
    }
}

/// Writes the last lines when it is dropped.
#[must_use = "the last lines are written when this is dropped"]
pub(super) struct Flush(SyncSender<Job>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // A full queue is that of a log that nobody reads.
        if self.0.try_send(Job::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_WITHIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::{Mutex, MutexGuard};

    use super::*;

    /// A reader that reads when it is let.
    #[derive(Clone, Default)]
    struct Stopped(Arc<Mutex<Vec<u8>>>);

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_does_not_wait_for_who_reads() {
        let log = Stopped::default();
        let lines = Lines::to(log.clone()).unwrap();
        let flush = Flush(lines.queue.clone());
        let stopped = log.0.lock();
        // One may be with the thread already.
        for number in 0..WAITING_MAX + 11 {
            lines.make_writer().write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let left_out = lines.left_out.load(Ordering::Relaxed);
        assert!((10..=11).contains(&left_out), "{left_out}");
        MutexGuard::unlock_fair(stopped);
        // There is room again when the thread has taken some.
        let some = format!("line {}\n", WAITING_MAX / 2);
        while !String::from_utf8_lossy(&log.0.lock()).contains(&some) {
            std::thread::yield_now();
        }
        lines.make_writer().write_all(b"the last\n").unwrap();
        drop(flush);
        let text = String::from_utf8(log.0.lock().clone()).unwrap();
        assert!(text.contains(&format!("\"left_out\":{left_out}")), "{text}");
        assert!(text.ends_with("the last\n"));
    }
}
