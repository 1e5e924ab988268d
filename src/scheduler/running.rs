//! Who runs now: for a process that takes the slots over with what is in them.

use super::Scheduler;
use super::arena::{Handle, Ix, KeyIx, TicketIx};
use super::ticket::State;
use crate::id::{ModelId, TenantId};

/// A request that has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub ticket: Handle<TicketIx>,
    /// Who pays.
    pub tenant: TenantId,
    /// With which key; `None` if the scheduler does not know it (any more).
    pub key: Option<Handle<KeyIx>>,
    /// For which model; `None` if the scheduler does not know it (any more).
    pub model: Option<ModelId>,
    /// Input tokens by the gateway's own count.
    pub input_tokens: u64,
    /// The client's bound on output tokens.
    pub max_tokens: Option<u64>,
}

impl Scheduler {
    /// Everybody who has a slot. Looks at all tickets: not for the request path.
    #[must_use]
    pub fn everybody_running(&self) -> Vec<Running> {
        let running = self.tickets.iter().filter(|(_, ticket)| ticket.state == State::Running);
        let shown = running.map(|(ix, ticket)| Running {
            ticket: self.tickets.handle(ix),
            tenant: self.tenants[ticket.tenant].id,
            key: ticket.key.is_some().then(|| self.keys.handle(ticket.key)),
            model: self.models[ticket.model].id,
            input_tokens: u64::from(ticket.input),
            max_tokens: (ticket.output_max < u32::MAX).then_some(u64::from(ticket.output_max)),
        });
        shown.collect()
    }
}
