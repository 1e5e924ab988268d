//! Time: where the scheduler's `now` comes from, and the thread that lets deadlines pass while nothing else happens.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::Admission;
use crate::scheduler::{Moment, TICK};

/// A monotonic clock that starts at zero.
#[derive(Debug, Clone)]
pub(super) enum Clock {
    System(Instant),
    #[cfg(test)]
    Pretend(Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    pub(super) fn system() -> Self {
        Self::System(Instant::now())
    }

    pub(super) fn now(&self) -> Moment {
        match self {
            Self::System(start) => Moment::from_start(start.elapsed()),
            #[cfg(test)]
            Self::Pretend(ms) => {
                let ms = ms.load(std::sync::atomic::Ordering::SeqCst);
                Moment::from_start(std::time::Duration::from_millis(ms))
            }
        }
    }
}

/// Wakes the clock thread when somebody begins to wait, and ends it.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<Ring>,
    rung: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Ring {
    #[default]
    Silent,
    Work,
    End,
}

impl Bell {
    /// Somebody waits. Not to be called under the admission lock.
    pub(super) fn ring(&self) {
        let mut state = self.state.lock();
        if *state == Ring::Silent {
            *state = Ring::Work;
            self.rung.notify_one();
        }
    }

    /// There will be no more work.
    pub(super) fn end(&self) {
        *self.state.lock() = Ring::End;
        self.rung.notify_one();
    }

    /// Waits until it is rung. Returns whether to go on.
    fn listen(&self) -> bool {
        let mut state = self.state.lock();
        while *state == Ring::Silent {
            self.rung.wait(&mut state);
        }
        Self::take(&mut state)
    }

    /// Waits for a tick, or the end.
    fn rest(&self) -> bool {
        let mut state = self.state.lock();
        if *state != Ring::End {
            self.rung.wait_for(&mut state, TICK);
        }
        Self::take(&mut state)
    }

    fn take(state: &mut Ring) -> bool {
        let goes_on = *state != Ring::End;
        if goes_on {
            *state = Ring::Silent;
        }
        goes_on
    }
}

/// Starts the thread that ticks for `admission`. It sleeps while nobody waits, holds no reference between ticks, and ends
/// when the admission is dropped. A thread of its own, since an admission is built before any runtime is.
pub(super) fn start(admission: &Arc<Admission>, bell: &Arc<Bell>) {
    let admission = Arc::downgrade(admission);
    let bell = Arc::clone(bell);
    let spawned = std::thread::Builder::new()
        .name("admission-clock".to_owned())
        .spawn(move || run(&admission, &bell));
    if let Err(error) = spawned {
        // Deadlines are then only noticed when requests come and go.
        tracing::error!(%error, "cannot start the admission clock");
    }
}

fn run(admission: &Weak<Admission>, bell: &Bell) {
    let mut goes_on = bell.listen();
    while goes_on {
        let Some(admission) = admission.upgrade() else { return };
        let anybody_waits = admission.tick();
        drop(admission);
        goes_on = if anybody_waits { bell.rest() } else { bell.listen() };
    }
}
