//! What each tenant and key has used in its life.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::rollup::Sums;
use super::{integer, unsigned};
use crate::units::PicoUsd;

/// Pico-dollars in a dollar.
const USD: u128 = 1_000_000_000_000;

/// What a batch adds to each life, by the tenant's or key's id.
#[derive(Debug, Default)]
pub(super) struct Lives(HashMap<[u8; 16], (u64, u128)>);

impl Lives {
    pub(super) fn add(&mut self, owner: [u8; 16], sums: &Sums) {
        let (tokens, cost) = self.0.entry(owner).or_default();
        *tokens = tokens.saturating_add(sums.total_tokens());
        *cost = cost.saturating_add(sums.cost().0);
    }

    pub(super) fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut add = connection.prepare_cached(
            "INSERT INTO lifetimes VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (owner) DO UPDATE SET
             tokens = iif(tokens > 9223372036854775807 - excluded.tokens, 9223372036854775807, tokens + excluded.tokens),
             usd = iif(usd > 9223372036854775806 - excluded.usd, 9223372036854775807, usd + excluded.usd + (pico + excluded.pico) / 1000000000000),
             pico = (pico + excluded.pico) % 1000000000000",
        )?;
        for (owner, (tokens, cost)) in self.0 {
            let usd = u64::try_from(cost / USD).unwrap_or(u64::MAX);
            let pico = i64::try_from(cost % USD).unwrap_or(0);
            add.execute(params![owner, integer(tokens), integer(usd), pico])?;
        }
        Ok(())
    }
}

/// Reads `usd` and `pico` from columns `first` and the next.
pub(super) fn cost(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<PicoUsd> {
    let (usd, pico) = (unsigned(row, first)?, unsigned(row, first + 1)?);
    Ok(PicoUsd(u128::from(usd) * USD + u128::from(pico)))
}
