//! Requests that another process has at the same endpoints: the one before, which was upgraded and keeps its requests. They count
//! against an endpoint's cap as this process's own do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::pool::Pool;
use super::{Owner, Upstreams};

/// How many requests an endpoint with a cap has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busy {
    owner: Owner,
    url: String,
    requests: u32,
}

/// What another process has, as it last said. Dropped, it has nothing.
#[derive(Default)]
pub struct Elsewhere {
    marks: HashMap<(Owner, String), Mark>,
}

struct Mark {
    requests: u32,
    pool: Arc<Pool>,
    in_flight: Arc<AtomicU32>,
}

impl Mark {
    fn set(&mut self, requests: u32) {
        let before = std::mem::replace(&mut self.requests, requests);
        if requests >= before {
            self.in_flight.fetch_add(requests - before, Ordering::Relaxed);
        } else {
            self.in_flight.fetch_sub(before - requests, Ordering::Relaxed);
            self.pool.changed.notify_waiters();
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Upstreams {
    /// How many requests each endpoint with a cap has, where it has any.
    #[must_use]
    pub fn busy(&self) -> Vec<Busy> {
        let mut all = Vec::new();
        for (owner, pool) in self.pools.load().iter() {
            pool.look(|inner| {
                let capped = inner
                    .sites
                    .iter()
                    .map(|site| &site.endpoint)
                    .filter(|endpoint| endpoint.plan.cap.is_some());
                all.extend(capped.filter_map(|endpoint| {
                    let requests = endpoint.in_flight.load(Ordering::Relaxed);
                    (requests > 0).then(|| Busy {
                        owner: *owner,
                        url: endpoint.plan.url.to_string(),
                        requests,
                    })
                }));
            });
        }
        all
    }
}

impl Elsewhere {
    /// Takes in what the other process has now: all of it.
    pub fn set(&mut self, upstreams: &Upstreams, busy: Vec<Busy>) {
        let mut before = std::mem::take(&mut self.marks);
        for Busy { owner, url, requests } in busy {
            let key = (owner, url);
            let mark = before.remove(&key).or_else(|| {
                let pool = Arc::clone(upstreams.pools.load().get(&key.0)?);
                let in_flight = pool.look(|inner| {
                    let site = inner.sites.iter().find(|site| site.endpoint.plan.url.as_str() == key.1)?;
                    Some(Arc::clone(&site.endpoint.in_flight))
                })?;
                Some(Mark {
                    requests: 0,
                    pool,
                    in_flight,
                })
            });
            if let Some(mut mark) = mark {
                mark.set(requests);
                self.marks.insert(key, mark);
            }
        }
    }
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elsewhere").field("endpoints", &self.marks.len()).finish()
    }
}
