//! The timing wheel: every deadline of the queue, without a timer per waiter.

use super::arena::{Ix, TicketIx};
use super::ticket::Tickets;

/// Spokes of one tick (50 ms) each: a turn takes 102 s, so with the usual timeout a waiter is looked at once.
const SPOKES: u32 = 2048;
const _: () = assert!(SPOKES.is_power_of_two());

/// A hashed timing wheel (Varghese & Lauck 1987, scheme 6) of lists linked through the tickets. Adding and removing are
/// O(1); a tick costs the length of its spoke.
#[derive(Debug)]
pub(super) struct Wheel {
    spokes: Box<[TicketIx]>,
    /// The last tick whose spoke was looked through.
    done: u32,
    /// Where the look through the next spoke goes on.
    cursor: Cursor,
}

#[derive(Debug, Clone, Copy)]
enum Cursor {
    /// The spoke was not begun.
    Before,
    /// This one is next; `NONE` at the end.
    At(TicketIx),
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            spokes: (0..SPOKES).map(|_| TicketIx::NONE).collect(),
            done: 0,
            cursor: Cursor::Before,
        }
    }
}

impl Wheel {
    /// Files a ticket under its `due` tick, which must be yet to come.
    pub(super) fn insert(&mut self, tickets: &mut Tickets, ix: TicketIx) {
        debug_assert!(tickets[ix].due > self.done, "a deadline in the past never comes round");
        let spoke = &mut self.spokes[(tickets[ix].due % SPOKES) as usize];
        let first = *spoke;
        *spoke = ix;
        tickets[ix].timer_before = TicketIx::NONE;
        tickets[ix].timer_after = first;
        if first.is_some() {
            tickets[first].timer_before = ix;
        }
    }

    /// Takes a ticket out. Not while [`pop_due`](Self::pop_due) is being repeated, but for what that has returned.
    pub(super) fn remove(&mut self, tickets: &mut Tickets, ix: TicketIx) {
        let (before, after) = (tickets[ix].timer_before, tickets[ix].timer_after);
        if before.is_some() {
            tickets[before].timer_after = after;
        } else {
            let spoke = &mut self.spokes[(tickets[ix].due % SPOKES) as usize];
            debug_assert!(*spoke == ix, "filed under its due tick");
            *spoke = after;
        }
        if after.is_some() {
            tickets[after].timer_before = before;
        }
    }

    /// The next ticket due at `tick` or before; it stays filed until it is removed. To be repeated until `None`.
    pub(super) fn pop_due(&mut self, tickets: &Tickets, tick: u32) -> Option<TicketIx> {
        // After a long silence one turn sees everything.
        self.done = self.done.max(tick.saturating_sub(SPOKES));
        while self.done < tick {
            let mut at = match self.cursor {
                Cursor::Before => self.spokes[((self.done + 1) % SPOKES) as usize],
                Cursor::At(ix) => ix,
            };
            while at.is_some() {
                let after = tickets[at].timer_after;
                if tickets[at].due <= tick {
                    self.cursor = Cursor::At(after);
                    return Some(at);
                }
                at = after;
            }
            self.cursor = Cursor::Before;
            self.done += 1;
        }
        None
    }
}
