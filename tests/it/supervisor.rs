//! What systemd is told: ready, reloading and ready again, alive, stopping.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::support::Gateway;

struct Systemd(UnixDatagram);

impl Systemd {
    /// The next message that says this; others may come before it.
    fn hears(&self, what: &str) -> String {
        let start = Instant::now();
        let mut heard = Vec::new();
        let mut piece = [0; 4096];
        while start.elapsed() < Duration::from_secs(20) {
            let Ok(count) = self.0.recv(&mut piece) else { continue };
            let text = String::from_utf8(piece[..count].to_vec()).unwrap();
            if text.lines().any(|line| line.starts_with(what)) {
                return text;
            }
            heard.push(text);
        }
        panic!("{what} was not said, but {heard:?}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_of_start_reload_life_and_end() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("notify");
    let systemd = Systemd(UnixDatagram::bind(&path).unwrap());
    systemd.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let mut gateway = Gateway::start_configured_with("", &env);
    assert!(systemd.hears("READY=1").contains(&format!("STATUS=serving on {}", gateway.data)));
    systemd.hears("WATCHDOG=1");
    systemd.hears("WATCHDOG=1");
    gateway.hang_up();
    assert!(
        systemd.hears("RELOADING=1").contains("MONOTONIC_USEC="),
        "systemd 253 and later want its time"
    );
    assert!(systemd.hears("READY=1").contains("was applied"));
    std::fs::write(gateway.file(), "groups: 7\n").unwrap();
    gateway.hang_up();
    assert!(systemd.hears("READY=1").contains("was refused"));
    gateway.terminate();
    systemd.hears("STOPPING=1");
    assert!(gateway.ended(Duration::from_secs(10)).await.success());
}
