//! One answer on its way, and those who listen to it.
//!
//! # States
//!
//! `Queued → Sent → Answering → ended`. Before `Answering` a leader that fails steps down: the follower that waited longest
//! becomes the leader, and the flight is `Queued` again. Each leadership is a *term*; what a leader of an earlier term still
//! has to say changes nothing.
//!
//! A flight takes newcomers until it is *closed*: when it ends, when nobody is left, or when its beginning is no longer in
//! memory. Closing is for good; the next identical request begins another flight.
//!
//! # Memory
//!
//! While the answer may be kept, all of it is in memory, and a newcomer gets it from the beginning. Once it may not (too
//! large, or no room), only what the slowest listener has not had yet stays, and one who falls too far behind is cut off.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::heard::{Ended, Failure, Step};
use super::stored::Head;
use crate::cache::Key;
use crate::id::{ModelId, TenantId};

/// Pieces of an answer are copied side by side into pages: the buffers they come in are many times larger than they are.
const PAGE: usize = 4 * 1024;

/// What a flight is about.
#[derive(Debug)]
pub(super) struct Subject {
    /// `None` for an answer that nobody may join, but that may be kept.
    pub(super) shared: bool,
    pub(super) key: Key,
    pub(super) model: ModelId,
    /// Version of the model, and how often its answers had been purged, when the flight began.
    pub(super) era: (u64, u64),
    pub(super) owner: TenantId,
    /// The most bytes of body that are kept.
    pub(super) max_bytes: u64,
    pub(super) ttl: std::time::Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Queued,
    Sent,
    Answering,
}

/// What the flights of a gateway share.
#[derive(Debug)]
pub(super) struct Filling {
    /// Bytes that flights hold now.
    pub(super) held: AtomicU64,
    pub(super) max: u64,
    pub(super) follower_max: u64,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) subject: Subject,
    filling: Arc<Filling>,
    state: Mutex<State>,
    /// Rung for the leader when the last follower has left, or its term has ended.
    pub(super) deserted: Notify,
}

#[derive(Debug)]
struct State {
    term: u64,
    stage: Stage,
    /// The leader's client has left; the flight goes on for the followers.
    leaderless: bool,
    /// Whether a failed upstream was made good by another leader already.
    handed_over: bool,
    closed: bool,
    head: Option<Arc<Head>>,
    pieces: VecDeque<Bytes>,
    /// The number of the first piece that is still there.
    first: usize,
    /// Bytes of body so far, and of it in memory.
    came: u64,
    held: u64,
    page: BytesMut,
    /// Whether all of the body is in memory and may be kept.
    keeping: bool,
    ended: Option<Ended>,
    /// In the order of their coming.
    followers: BTreeMap<u64, Place>,
    next_follower: u64,
    heir: Option<u64>,
}

/// One follower's place.
#[derive(Debug)]
struct Place {
    bell: Arc<Notify>,
    /// The number of the next piece it gets.
    next: usize,
    /// Bytes of body it has had.
    had: u64,
    greeted: bool,
    cut_off: bool,
}

/// What became of a follower's place when it looked.
pub(super) enum Look {
    Nothing,
    Step(Step),
    /// The follower is the leader now, of this term.
    Leads(u64),
}

/// Whether the flight takes newcomers still; if not, it has to leave the table.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    Yes,
    No,
}

impl Flight {
    pub(super) fn new(subject: Subject, filling: Arc<Filling>) -> Arc<Self> {
        Arc::new(Self {
            subject,
            filling,
            deserted: Notify::new(),
            state: Mutex::new(State {
                term: 0,
                stage: Stage::Queued,
                leaderless: false,
                handed_over: false,
                closed: false,
                head: None,
                pieces: VecDeque::new(),
                first: 0,
                came: 0,
                held: 0,
                page: BytesMut::new(),
                keeping: true,
                ended: None,
                followers: BTreeMap::new(),
                next_follower: 0,
                heir: None,
            }),
        })
    }

    // What followers do.

    /// Takes a place, if there still are places.
    pub(super) fn join(&self) -> Option<(u64, Arc<Notify>)> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let bell = Arc::new(Notify::new());
        // What is there already is to be had at once.
        bell.notify_one();
        let id = state.next_follower;
        state.next_follower += 1;
        let place = Place {
            bell: Arc::clone(&bell),
            next: 0,
            had: 0,
            greeted: false,
            cut_off: false,
        };
        state.followers.insert(id, place);
        Some((id, bell))
    }

    pub(super) fn look(&self, id: u64) -> Look {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.heir == Some(id) {
            state.heir = None;
            state.followers.remove(&id);
            return Look::Leads(state.term);
        }
        let Some(place) = state.followers.get_mut(&id) else {
            return Look::Nothing;
        };
        if place.cut_off {
            return Look::Step(Step {
                end: Some(Ended::LeftBehind),
                ..Step::default()
            });
        }
        let mut step = Step::default();
        if !place.greeted && state.head.is_some() {
            step.head.clone_from(&state.head);
            place.greeted = true;
        }
        let fresh = state.pieces.iter().skip(place.next - state.first);
        step.pieces.extend(fresh.cloned());
        place.next = state.first + state.pieces.len();
        place.had = state.came;
        step.end.clone_from(&state.ended);
        if step == Step::default() { Look::Nothing } else { Look::Step(step) }
    }

    /// Gives a place back.
    pub(super) fn part(&self, id: u64) -> Open {
        let mut state = self.state.lock();
        state.followers.remove(&id);
        if state.heir == Some(id) {
            return state.next_leader();
        }
        if state.leaderless && !state.is_listened_to() {
            state.closed = true;
            self.deserted.notify_one();
            return Open::No;
        }
        Open::Yes
    }

    /// Whether the leader still waits for its turn.
    pub(super) fn is_queued(&self) -> bool {
        self.state.lock().stage == Stage::Queued
    }

    // What the leader of a term does.

    fn lead(&self, term: u64) -> Option<parking_lot::MutexGuard<'_, State>> {
        let state = self.state.lock();
        (state.term == term && state.ended.is_none() && state.heir.is_none()).then_some(state)
    }

    pub(super) fn sent(&self, term: u64) {
        if let Some(mut state) = self.lead(term) {
            state.stage = Stage::Sent;
        }
    }

    /// The head of the answer is there. `fails` says that it is an answer of the kind that another attempt may better; then
    /// the flight may be handed over, and the head is the leader's alone.
    pub(super) fn begin(&self, term: u64, head: Head, fails: bool) -> Open {
        let Some(mut state) = self.lead(term) else { return Open::Yes };
        if fails && !state.handed_over && !state.followers.is_empty() {
            state.handed_over = true;
            return state.next_leader();
        }
        state.stage = Stage::Answering;
        state.keeping &= head.status == 200 && !head.is_encoded();
        state.head = Some(Arc::new(head));
        state.ring();
        Open::Yes
    }

    pub(super) fn push(&self, term: u64, piece: &[u8]) -> Open {
        let Some(mut state) = self.lead(term) else { return Open::Yes };
        let length = piece.len() as u64;
        state.came += length;
        if state.keeping {
            let before = self.filling.held.load(Ordering::Relaxed);
            state.keeping = state.came <= self.subject.max_bytes && before.saturating_add(length) <= self.filling.max;
        }
        if state.keeping || state.is_listened_to() {
            self.filling.held.fetch_add(length, Ordering::Relaxed);
            state.held += length;
            let copy = state.copy(piece);
            state.pieces.push_back(copy);
        } else {
            state.first += 1 + state.pieces.len();
            state.pieces.clear();
        }
        state.ring();
        if state.keeping {
            return Open::Yes;
        }
        let came = state.came;
        for place in state.followers.values_mut() {
            place.cut_off |= came - place.had > self.filling.follower_max;
        }
        if state.leaderless && !state.is_listened_to() {
            self.deserted.notify_one();
        }
        let wanted = state
            .followers
            .values()
            .filter(|place| !place.cut_off)
            .map(|place| place.next)
            .min();
        let wanted = wanted.unwrap_or(state.first + state.pieces.len());
        let mut freed = 0;
        while state.first < wanted {
            let Some(piece) = state.pieces.pop_front() else { break };
            freed += piece.len() as u64;
            state.first += 1;
        }
        // What was dropped above without a listener is freed with the rest.
        if state.pieces.is_empty() {
            freed = state.held;
        }
        state.held -= freed;
        self.filling.held.fetch_sub(freed, Ordering::Relaxed);
        if state.closed {
            return Open::Yes;
        }
        state.closed = true;
        Open::No
    }

    /// The pieces of an answer that is complete and may be kept, if it was kept so far.
    pub(super) fn kept(&self, term: u64) -> Option<(Arc<Head>, Vec<Bytes>)> {
        let state = self.lead(term)?;
        let head = state.head.clone().filter(|_| state.keeping)?;
        head.fits(state.came).then(|| (head, state.pieces.iter().cloned().collect()))
    }

    /// The end of the answer, if this leader's word counts.
    pub(super) fn end(&self, term: u64, ended: Ended) -> Open {
        let Some(mut state) = self.lead(term) else { return Open::Yes };
        state.finish(ended)
    }

    /// The leader gives up. `blame` is the upstream's failure, if it was one; else it was the leader's own affair.
    pub(super) fn give_up(&self, term: u64, blame: Option<Failure>, closing: &'static [u8]) -> Open {
        let Some(mut state) = self.lead(term) else { return Open::Yes };
        self.deserted.notify_one();
        if state.stage == Stage::Answering {
            return state.finish(Ended::Failed(blame.unwrap_or(Failure::Interrupted), closing));
        }
        match blame {
            Some(failure) if state.handed_over => state.finish(Ended::Failed(failure, b"")),
            blame => {
                state.handed_over |= blame.is_some();
                state.next_leader()
            }
        }
    }

    /// The leader's client has left. Returns whether the flight goes on, because others listen.
    pub(super) fn leave(&self, term: u64) -> bool {
        let Some(mut state) = self.lead(term) else { return false };
        if !state.is_listened_to() {
            // Nobody may join from now on: the upstream is being stopped.
            state.closed = true;
            return false;
        }
        state.leaderless = true;
        true
    }

    /// Whether a leader whose client has left works for nobody.
    pub(super) fn is_deserted(&self, term: u64) -> bool {
        self.lead(term).is_none_or(|state| state.closed && !state.is_listened_to())
    }

    /// Whether somebody listens beside the leader.
    pub(super) fn is_listened_to(&self) -> bool {
        self.state.lock().is_listened_to()
    }
}

impl State {
    fn is_listened_to(&self) -> bool {
        self.followers.values().any(|place| !place.cut_off)
    }

    /// The follower that waited longest becomes the leader of a new term.
    fn next_leader(&mut self) -> Open {
        self.term += 1;
        self.stage = Stage::Queued;
        self.leaderless = false;
        self.heir = self.followers.keys().next().copied();
        match self.heir.and_then(|heir| self.followers.get(&heir)) {
            Some(place) => {
                place.bell.notify_one();
                Open::Yes
            }
            None => {
                self.closed = true;
                Open::No
            }
        }
    }

    fn finish(&mut self, ended: Ended) -> Open {
        self.ended = Some(ended);
        self.closed = true;
        self.ring();
        Open::No
    }

    fn ring(&self) {
        for place in self.followers.values() {
            place.bell.notify_one();
        }
    }

    fn copy(&mut self, piece: &[u8]) -> Bytes {
        if self.page.capacity() < piece.len() {
            self.page = BytesMut::with_capacity(PAGE.max(piece.len()));
        }
        self.page.extend_from_slice(piece);
        self.page.split().freeze()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.filling.held.fetch_sub(self.state.get_mut().held, Ordering::Relaxed);
    }
}
