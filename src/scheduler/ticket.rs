//! Requests as the scheduler keeps them, and the first-in-first-out lists they wait in.

use super::Request;
use super::arena::{Arena, Ix, KeyIx, LaneIx, ModelIx, QueueIx, TenantIx, TicketIx};
use super::cost::Cost;
use super::moment::Moment;

/// All requests, waiting or running.
pub(super) type Tickets = Arena<TicketIx, Ticket>;

/// Where a request is. See the states in the room's head comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Linked into a list of its lane and into the timing wheel.
    Queued,
    /// Linked nowhere; holds a slot.
    Running,
}

/// A request. Small, since as many may wait as the queue has places.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) state: State,
    pub(super) tenant: TenantIx,
    /// `NONE` for a key that the scheduler does not know.
    pub(super) key: KeyIx,
    pub(super) model: ModelIx,
    /// The caller's own number for it, handed back in events.
    pub(super) owner: u32,
    /// Input tokens, and the client's bound on output tokens.
    pub(super) input: u32,
    pub(super) output_max: u32,
    /// When it came; when it was granted.
    pub(super) since: Moment,

    /// While queued: its lane, and its key's list in the lane (`NONE` is the lane's plain list).
    pub(super) lane: LaneIx,
    pub(super) queue: QueueIx,
    /// While queued: neighbours in that list.
    pub(super) older: TicketIx,
    pub(super) newer: TicketIx,
    /// While queued: neighbours in the wheel, and the tick at which it is due.
    pub(super) timer_before: TicketIx,
    pub(super) timer_after: TicketIx,
    pub(super) due: u32,
    /// While queued: its place in the order of all arrivals, and its body's size.
    pub(super) arrival: u64,
    pub(super) body_bytes: u64,

    /// While running: what has been charged, and up to which output token.
    pub(super) charged: Cost,
    pub(super) covered: u64,
}

impl Ticket {
    /// A request that has just come, linked nowhere. Token counts over 2^32 count as 2^32.
    pub(super) fn new(request: &Request, tenant: TenantIx, key: KeyIx, model: ModelIx, now: Moment) -> Self {
        let narrow = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        Self {
            state: State::Queued,
            tenant,
            key,
            model,
            owner: request.owner,
            input: narrow(request.input_tokens),
            output_max: request.max_tokens.map_or(u32::MAX, narrow),
            since: now,
            lane: LaneIx::NONE,
            queue: QueueIx::NONE,
            older: TicketIx::NONE,
            newer: TicketIx::NONE,
            timer_before: TicketIx::NONE,
            timer_after: TicketIx::NONE,
            due: 0,
            arrival: 0,
            body_bytes: request.body_bytes,
            charged: Cost::ZERO,
            covered: 0,
        }
    }
}

/// A list of waiting requests, oldest first, linked through the tickets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fifo {
    pub(super) oldest: TicketIx,
    pub(super) newest: TicketIx,
    pub(super) len: u32,
}

impl Default for Fifo {
    fn default() -> Self {
        Self {
            oldest: TicketIx::NONE,
            newest: TicketIx::NONE,
            len: 0,
        }
    }
}

impl Fifo {
    pub(super) fn push(&mut self, tickets: &mut Tickets, ix: TicketIx) {
        let last = self.newest;
        tickets[ix].older = last;
        tickets[ix].newer = TicketIx::NONE;
        if last.is_some() {
            tickets[last].newer = ix;
        } else {
            self.oldest = ix;
        }
        self.newest = ix;
        self.len += 1;
    }

    pub(super) fn unlink(&mut self, tickets: &mut Tickets, ix: TicketIx) {
        let (older, newer) = (tickets[ix].older, tickets[ix].newer);
        if older.is_some() {
            tickets[older].newer = newer;
        } else {
            debug_assert!(self.oldest == ix, "unlinked from a list it is not in");
            self.oldest = newer;
        }
        if newer.is_some() {
            tickets[newer].older = older;
        } else {
            debug_assert!(self.newest == ix, "unlinked from a list it is not in");
            self.newest = older;
        }
        self.len -= 1;
    }
}

// A waiter costs this, its cell's generation, and 40 bytes of mailbox; 200 bytes are promised.
const _: () = assert!(size_of::<Ticket>() <= 128);
