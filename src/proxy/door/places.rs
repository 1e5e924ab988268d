//! The places at the door: how many connections there are, from where, and which of them wait without a request.
//!
//! One lock guards all of it; it is held for a few map operations, twice per request and twice per connection.
//!
//! A place is one request's at a time. HTTP/2 runs many on a connection, so each of them beyond the first takes a place as a
//! further connection would: otherwise one address with one connection could hold what a hundred may not.
//!
//! Invariant: a seat stands in `waiting` under its turn if and only if no request of its connection runs and it has not been
//! asked to leave.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

/// The table of places.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    per_address: usize,
    state: Mutex<State>,
    /// Told when the last one has gone.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    seats: Slab<Seat>,
    /// Who waits without a request, the longest waiting first.
    waiting: BTreeMap<u64, usize>,
    /// How many of each network.
    networks: HashMap<IpAddr, usize>,
    /// Requests beyond the first of their connections.
    further: usize,
    turn: u64,
}

#[derive(Debug)]
struct Seat {
    network: IpAddr,
    /// Requests that run.
    running: usize,
    /// When it began to wait, as a key of `waiting`.
    turn: Option<u64>,
    asked_to_leave: Arc<Notify>,
}

impl Places {
    pub(super) fn new(limit: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            per_address: if per_address == 0 { usize::MAX } else { per_address },
            state: Mutex::default(),
            emptied: Notify::new(),
        })
    }

    /// A place for a connection from there. If all are taken, whoever waits longest without a request is asked to leave.
    /// `None` if nobody waits, or if its network has its share.
    pub(super) fn take(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let network = network(from);
        let mut state = self.state.lock();
        if !self.has_room(&mut state, network) {
            return None;
        }
        *state.networks.entry(network).or_default() += 1;
        let asked_to_leave = Arc::new(Notify::new());
        let turn = state.next_turn();
        let key = state.seats.insert(Seat {
            network,
            running: 0,
            turn: Some(turn),
            asked_to_leave: Arc::clone(&asked_to_leave),
        });
        state.waiting.insert(turn, key);
        Some(Place {
            places: Arc::clone(self),
            key,
            asked_to_leave,
        })
    }

    /// Whether one more from there finds room, if need be by asking somebody to leave.
    fn has_room(&self, state: &mut State, network: IpAddr) -> bool {
        let taken = state.seats.len() + state.further;
        state.networks.get(&network).is_none_or(|count| *count < self.per_address)
            && (taken < self.limit || (taken < self.most() && state.ask_one_to_leave()))
    }

    /// With those that have been asked to leave and have not gone yet.
    fn most(&self) -> usize {
        self.limit + self.limit / 8 + 1
    }

    /// Resolves when nobody is there.
    pub(super) async fn are_empty(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            // Listening before looking.
            emptied.as_mut().enable();
            if self.state.lock().seats.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Asks whoever waits longest to leave.
    pub(super) fn make_room(&self) {
        self.state.lock().ask_one_to_leave();
    }
}

impl State {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn forget_one_of(&mut self, network: IpAddr) {
        if let Some(count) = self.networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
    }

    fn ask_one_to_leave(&mut self) -> bool {
        let Some((_, key)) = self.waiting.pop_first() else { return false };
        if let Some(seat) = self.seats.get_mut(key) {
            seat.turn = None;
            seat.asked_to_leave.notify_one();
        }
        true
    }
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    key: usize,
    asked_to_leave: Arc<Notify>,
}

impl Place {
    /// A request of an HTTP/2 connection begins, beside others that may run; `false` if it finds no room.
    pub(super) fn enter_beside(&self) -> bool {
        let mut state = self.places.state.lock();
        let Some(&Seat { network, running: 1.., .. }) = state.seats.get(self.key) else {
            drop(state);
            self.enter();
            return true;
        };
        if !self.places.has_room(&mut state, network) {
            return false;
        }
        *state.networks.entry(network).or_default() += 1;
        state.further += 1;
        if let Some(seat) = state.seats.get_mut(self.key) {
            seat.running += 1;
        }
        true
    }

    /// A request begins.
    pub(super) fn enter(&self) {
        let mut state = self.places.state.lock();
        let Some(seat) = state.seats.get_mut(self.key) else { return };
        seat.running += 1;
        if let Some(turn) = seat.turn.take() {
            state.waiting.remove(&turn);
        }
    }

    /// A request that has entered by [`enter_beside`](Self::enter_beside) has ended.
    pub(super) fn leave_others(&self) {
        let mut state = self.places.state.lock();
        let Some(seat) = state.seats.get_mut(self.key).filter(|seat| seat.running > 1) else {
            drop(state);
            return self.leave();
        };
        seat.running -= 1;
        let network = seat.network;
        state.further = state.further.saturating_sub(1);
        state.forget_one_of(network);
    }

    /// A request has ended.
    pub(super) fn leave(&self) {
        let mut state = self.places.state.lock();
        let turn = state.next_turn();
        let Some(seat) = state.seats.get_mut(self.key) else { return };
        seat.running = seat.running.saturating_sub(1);
        if seat.running == 0 && seat.turn.is_none() {
            seat.turn = Some(turn);
            state.waiting.insert(turn, self.key);
        }
    }

    /// Resolves when somebody else needs the place more. Who was asked while idle and has a request by now stays: it may have
    /// been sent on already.
    pub(super) async fn asked_to_leave(&self) {
        loop {
            self.asked_to_leave.notified().await;
            let works = |seat: &Seat| seat.running > 0;
            if !self.places.state.lock().seats.get(self.key).is_some_and(works) {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state.lock();
        let Some(seat) = state.seats.try_remove(self.key) else { return };
        if let Some(turn) = seat.turn {
            state.waiting.remove(&turn);
        }
        state.forget_one_of(seat.network);
        if state.seats.is_empty() {
            self.places.emptied.notify_waiters();
        }
    }
}

/// What counts as one address: of IPv6 the /64, which one host has whole (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(place: &Place) -> bool {
        use std::future::Future;
        let mut asked = std::pin::pin!(place.asked_to_leave());
        asked
            .as_mut()
            .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
            .is_ready()
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn who_waits_longest_makes_room_and_who_works_does_not() {
        let places = Places::new(3, 0);
        let [works, waits, idle] = [(); 3].map(|()| places.take(HERE).unwrap());
        works.enter();
        idle.enter();
        idle.leave();
        let fresh = places.take(HERE).expect("room is made");
        assert!(asked(&waits) && !asked(&works) && !asked(&idle));
        drop(waits);
        idle.enter();
        fresh.enter();
        assert!(places.take(HERE).is_none(), "everybody works");
        drop((works, idle, fresh));
        let state = places.state.lock();
        assert!(
            state.seats.is_empty() && state.waiting.is_empty() && state.networks.is_empty(),
            "{state:?}"
        );
    }

    #[test]
    fn who_was_asked_and_has_begun_to_work_stays_until_it_is_asked_again() {
        let places = Places::new(1, 0);
        let first = places.take(HERE).unwrap();
        let second = places.take(HERE).expect("the first is asked to leave");
        first.enter();
        assert!(!asked(&first));
        first.leave();
        assert!(!asked(&first), "that was before");
        drop(second);
        assert!(places.take(HERE).is_some());
        assert!(asked(&first));
    }

    #[test]
    fn who_was_asked_and_does_not_go_bounds_who_may_come() {
        let places = Places::new(8, 0);
        let taken: Vec<Place> = (0..100).map_while(|_| places.take(HERE)).collect();
        assert_eq!(taken.len(), places.most());
    }

    #[test]
    fn an_address_has_its_share_and_a_network_of_ipv6_counts_as_one() {
        let places = Places::new(10, 2);
        let from = |text: &str| text.parse::<IpAddr>().unwrap();
        let _taken = [places.take(from("2001:db8::1")), places.take(from("2001:db8::ffff:1"))].map(|place| place.expect("a place"));
        assert!(places.take(from("2001:db8::2")).is_none());
        let other = places.take(from("2001:db8:0:1::1"));
        assert!(other.is_some() && places.take(from("::ffff:10.0.0.1")).is_some());
        let _v4 = [places.take(from("10.0.0.1")), places.take(from("::ffff:10.0.0.1"))].map(|place| place.expect("a place"));
        assert!(places.take(from("10.0.0.1")).is_none());
    }

    #[test]
    fn requests_beside_each_other_take_as_many_places_as_connections_would() {
        let places = Places::new(4, 3);
        let from = |text: &str| places.take(text.parse().unwrap());
        let crowded = from("10.0.0.1").unwrap();
        assert!(crowded.enter_beside() && crowded.enter_beside() && crowded.enter_beside());
        assert!(!crowded.enter_beside() && from("10.0.0.1").is_none(), "its network has its share");
        let other = from("10.0.0.2").unwrap();
        other.enter();
        assert!(from("10.0.0.3").is_none(), "the house is full of requests");
        crowded.leave_others();
        let third = from("10.0.0.3").expect("one has ended");
        drop(third);
        for _ in 0..2 {
            assert!(!asked(&crowded));
            crowded.leave_others();
        }
        assert_eq!(places.state.lock().further, 0);
        assert_eq!(places.state.lock().networks.len(), 2);
        // Idle: it makes room for the fifth.
        let _rest = ["10.0.0.4", "10.0.0.5", "10.0.0.6"].map(|address| from(address).expect("a place"));
        assert!(asked(&crowded));
        drop(crowded);
        assert_eq!(places.state.lock().networks.len(), 4);
    }
}
