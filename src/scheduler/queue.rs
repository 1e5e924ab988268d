//! The queue's edges: who may come in (R12), who leaves, and the counts of both.

use std::time::Duration;

use super::arena::{Handle, Ix, TenantIx, TicketIx};
use super::request::{Event, Refused};
use super::ticket::Ticket;
use super::{Scheduler, Settings};

impl Scheduler {
    /// (new) => Queued.
    pub(super) fn enqueue(&mut self, mut ticket: Ticket, patience: Option<Duration>) -> Result<Handle<TicketIx>, Refused> {
        let tenant = ticket.tenant;
        let patience = patience.unwrap_or(Duration::MAX).min(self.settings.queue_timeout);
        ticket.due = self.now.after(patience).tick_reached();
        if ticket.due <= self.tick || patience.is_zero() {
            let retry_after = self.drains_in(tenant);
            return Err(Refused::NoPatience { retry_after });
        }
        if !self.has_place(tenant, ticket.body_bytes) {
            let retry_after = self.drains_in(tenant);
            return Err(Refused::QueueFull { retry_after });
        }
        ticket.arrival = self.arrivals;
        self.arrivals += 1;
        let ix = self.tickets.insert(ticket);
        self.count_queued(ix);
        self.link(ix);
        self.wheel.insert(&mut self.tickets, ix);
        Ok(self.tickets.handle(ix))
    }

    /// Queued => gone. Tells the waiter.
    pub(super) fn dismiss(&mut self, ix: TicketIx) {
        let owner = self.tickets[ix].owner;
        self.withdraw(ix);
        self.events.push_back(Event::Dismissed { owner });
    }

    /// Queued => gone.
    pub(super) fn withdraw(&mut self, ix: TicketIx) {
        self.wheel.remove(&mut self.tickets, ix);
        self.unlink(ix);
        self.discount_queued(ix);
        let Ticket { tenant, key, model, .. } = self.tickets[ix];
        self.tickets.remove(ix);
        self.retire(tenant, key, model);
    }

    /// R12: a tenant, and a group, may have waiting no more than a multiple of what is still free. Whoever floods fills
    /// only its own part, whatever the number of those who share the queue.
    pub(super) fn has_place(&self, tenant: TenantIx, body_bytes: u64) -> bool {
        let Settings {
            max_queued,
            max_queued_bytes,
            tenant_queue_alpha,
            group_queue_alpha,
            ..
        } = self.settings;
        let tenant = &self.tenants[tenant];
        let group = &self.groups[tenant.group];
        let free = max_queued.saturating_sub(self.node.queued);
        let free_bytes = max_queued_bytes.saturating_sub(self.node.queued_bytes);
        tenant.queued < tenant.max_queued
            && tenant.queued < free.saturating_mul(tenant_queue_alpha)
            && group.queued < free.saturating_mul(group_queue_alpha)
            && body_bytes <= free_bytes
            && tenant.queued_bytes < free_bytes.saturating_mul(u64::from(tenant_queue_alpha))
            && group.queued_bytes < free_bytes.saturating_mul(u64::from(group_queue_alpha))
    }

    pub(super) fn drains_in(&self, tenant: TenantIx) -> Duration {
        let tenant = &self.tenants[tenant];
        tenant.backlog.drains_in(tenant.queued, self.now, self.settings.queue_timeout)
    }

    pub(super) fn count_queued(&mut self, ix: TicketIx) {
        let &Ticket {
            tenant,
            key,
            model,
            body_bytes,
            ..
        } = &self.tickets[ix];
        self.node.queued += 1;
        self.node.queued_bytes += body_bytes;
        self.models[model].queued += 1;
        if key.is_some() {
            self.keys[key].queued += 1;
        }
        let tenant = &mut self.tenants[tenant];
        if tenant.queued == 0 {
            tenant.backlog.begin(self.now, tenant.served);
        }
        let group = &mut self.groups[tenant.group];
        self.node.join(group, tenant);
        tenant.queued += 1;
        tenant.queued_bytes += body_bytes;
        group.queued += 1;
        group.queued_bytes += body_bytes;
    }

    pub(super) fn discount_queued(&mut self, ix: TicketIx) {
        let &Ticket {
            tenant,
            key,
            model,
            body_bytes,
            ..
        } = &self.tickets[ix];
        self.node.queued -= 1;
        self.node.queued_bytes -= body_bytes;
        self.models[model].queued -= 1;
        if key.is_some() {
            self.keys[key].queued -= 1;
        }
        let tenant = &mut self.tenants[tenant];
        tenant.queued -= 1;
        tenant.queued_bytes -= body_bytes;
        tenant.active_tick = self.tick;
        let group = &mut self.groups[tenant.group];
        group.queued -= 1;
        group.queued_bytes -= body_bytes;
        group.active_tick = self.tick;
        self.node.part(group, tenant);
    }
}
