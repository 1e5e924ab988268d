//! Limits that go to another process: what was taken is taken there, whatever becomes of it.

use std::collections::VecDeque;

use super::*;
use crate::limits::{Estate, Heir, Parting, Reply};

struct Two {
    elder: House,
    heir: House,
    link: Arc<Heir>,
    estate: Estate,
    told: Arc<Mutex<VecDeque<Parting>>>,
    said: Arc<Mutex<VecDeque<Reply>>>,
}

impl Two {
    fn of(elder: House) -> Self {
        let (told, said): (Arc<Mutex<VecDeque<_>>>, Arc<Mutex<VecDeque<_>>>) = Default::default();
        let link = elder.limits.hand_over(Box::new({
            let told = Arc::clone(&told);
            // As it goes over the line.
            move |parting| {
                let text = serde_json::to_string(&parting).unwrap();
                told.lock().push_back(serde_json::from_str(&text).unwrap());
            }
        }));
        let limits = Limits::new(Settings { epoch: Instant::now() });
        limits.apply_at(&elder.catalog, Moment(0));
        let heir = House {
            limits,
            catalog: elder.catalog.clone(),
            who: elder.who.clone(),
        };
        let answer = {
            let said = Arc::clone(&said);
            Box::new(move |reply| said.lock().push_back(reply))
        };
        let estate = Estate::new(Arc::clone(&heir.limits), answer);
        Self {
            elder,
            heir,
            link,
            estate,
            told,
            said,
        }
    }

    fn talk(&self) {
        while let Some(parting) = { self.told.lock().pop_front() } {
            self.estate.heard(parting, WALL);
        }
        while let Some(reply) = { self.said.lock().pop_front() } {
            self.link.heard(reply);
        }
    }

    /// What a request of the elder's gets that comes now.
    async fn obtain(&self, input: u64) -> Result<Reservation, Exceeded> {
        let limits = &self.elder.limits;
        limits.obtain(&self.elder.who, &ask(input, 0), limits.now(), WALL).await
    }

    /// What the heir's tenant has spent of its life, and what is held.
    fn tenant(&self) -> (u64, u64) {
        let records = self.heir.limits.records.load();
        let mut spent = records.tenants[&self.heir.who.tenant.id].account.spent.lock();
        (spent.spent(crate::quota::Period::Lifetime, WALL).tokens, spent.held().tokens)
    }
}

fn budget(tokens: u64) -> Budget {
    Budget {
        tokens: Some(tokens),
        period: BudgetPeriod::Lifetime,
        ..Budget::default()
    }
}

#[tokio::test]
async fn what_is_spent_and_held_goes_along_and_what_is_settled_later_is_settled_there() {
    let elder = House::of_tenant(10, 1_000, budget(100));
    let now = elder.limits.now();
    elder.reserve(&ask(10, 10), now).unwrap().settle_at(used(10, 5), now);
    let runs = elder.reserve(&ask(10, 30), now).unwrap();
    let breaks = elder.reserve(&ask(1, 1), now).unwrap();
    let two = Two::of(elder);
    two.talk();
    assert_eq!(two.tenant(), (15, 42));
    assert_eq!(two.heir.remaining(now), (Some(7), Some(1_000 - 15 - 42)));

    runs.settle(used(10, 20));
    drop(breaks);
    two.talk();
    assert_eq!(two.tenant(), (45, 0));
    let (requests, tokens) = two.heir.remaining(now);
    assert_eq!(
        (requests, tokens),
        (Some(8), Some(1_000 - 45)),
        "whom nothing became of is not counted"
    );

    // 55 are left, whoever asks.
    assert!(matches!(two.elder.reserve(&ask(1, 1), now), Err(Exceeded::Elsewhere)));
    let (refused, ()) = tokio::join!(two.obtain(56), async { two.talk() });
    assert!(matches!(refused, Err(Exceeded::Budget { .. })), "{refused:?}");
    let (taken, ()) = tokio::join!(two.obtain(55), async { two.talk() });
    assert_eq!(two.tenant(), (45, 55));
    drop(taken.unwrap());
    two.talk();
    assert_eq!(two.tenant(), (45, 0));
    let (taken, ()) = tokio::join!(two.obtain(55), async { two.talk() });
    taken.unwrap().settle(used(55, 0));
    two.talk();
    assert_eq!(two.tenant(), (100, 0));
    assert!(two.heir.reserve(&ask(1, 0), now).is_err());
}

#[tokio::test]
async fn a_process_that_dies_holds_nothing_of_a_budget() {
    let elder = House::of_tenant(0, 0, budget(100));
    let now = elder.limits.now();
    let runs = elder.reserve(&ask(60, 0), now).unwrap();
    let ends = elder.reserve(&ask(30, 0), now).unwrap();
    let two = Two::of(elder);
    ends.settle(used(20, 0));
    two.talk();
    assert_eq!(two.tenant(), (20, 60));
    assert!(two.heir.reserve(&ask(21, 0), now).is_err());
    let (heir, limits) = (two.heir.who.clone(), Arc::clone(&two.heir.limits));
    drop(two.estate);
    two.link.is_gone();
    let left = limits.reserve(&heir, &ask(80, 0), now, WALL);
    assert!(left.is_ok());
    let refused = two.elder.limits.obtain(&two.elder.who, &ask(1, 0), now, WALL).await;
    assert!(matches!(refused, Err(Exceeded::Elsewhere)));
    drop(runs);
}

#[test]
fn whoever_settles_while_it_is_handed_over_is_counted_once() {
    for _ in 0..50 {
        let elder = House::of_tenant(0, 0, budget(1_000_000));
        let now = elder.limits.now();
        let taken: Vec<Reservation> = (0..64).map(|_| elder.reserve(&ask(10, 10), now).unwrap()).collect();
        let mut taken = taken.into_iter();
        let two = thread::scope(|scope| {
            for _ in 0..4 {
                let mine: Vec<Reservation> = taken.by_ref().take(16).collect();
                scope.spawn(move || mine.into_iter().for_each(|reservation| reservation.settle(used(10, 3))));
            }
            Two::of(elder)
        });
        two.talk();
        assert_eq!(two.tenant(), (64 * 13, 0));
    }
}
