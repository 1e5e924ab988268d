//! Slots that go to another process: there is one scheduler, whosever requests they are.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::*;
use crate::admission::{Estate, Heir, Parting, Reply};

/// Two processes, and what they have said to each other and not heard yet.
struct Two {
    elder: House,
    heir: House,
    link: Arc<Heir>,
    estate: Option<Estate>,
    told: Arc<Mutex<VecDeque<Parting>>>,
    said: Arc<Mutex<VecDeque<Reply>>>,
}

impl Two {
    /// The elder hands over.
    fn of(elder: House, slots: u32) -> Self {
        let mut heir = House::new(slots);
        heir.catalog = elder.catalog.clone();
        heir.apply();
        let (told, said): (Arc<Mutex<VecDeque<_>>>, Arc<Mutex<VecDeque<_>>>) = Default::default();
        let link = elder.admission.hand_over(Box::new({
            let told = Arc::clone(&told);
            move |parting| told.lock().push_back(parting)
        }));
        let answer = {
            let said = Arc::clone(&said);
            Arc::new(move |reply| said.lock().push_back(reply))
        };
        let estate = Estate::new(Arc::clone(&heir.admission), tokio::runtime::Handle::current(), answer);
        Self {
            elder,
            heir,
            link,
            estate: Some(estate),
            told,
            said,
        }
    }

    /// Lets each hear what the other has said, until nobody says any more.
    async fn talk(&self) {
        for _ in 0..10 {
            while let Some(parting) = { self.told.lock().pop_front() } {
                self.estate.as_ref().unwrap().heard(parting);
            }
            tokio::task::yield_now().await;
            while let Some(reply) = { self.said.lock().pop_front() } {
                self.link.heard(reply);
            }
        }
    }
}

#[tokio::test]
async fn who_runs_has_a_slot_there_and_who_waits_gets_the_next() {
    let mut elder = House::new(1);
    let acme = elder.tenant("acme");
    let runs = elder.ask(ask(&acme)).now().unwrap();
    let mut waits = elder.ask(ask(&acme));
    let two = Two::of(elder, 1);
    assert!(waits.waits(), "it asks there");
    two.talk().await;
    assert_eq!(two.heir.counts(), (1, 1));
    let mut comes = two.heir.ask(ask(&acme));
    assert!(comes.waits());
    runs.settle(100, 20);
    two.talk().await;
    assert_eq!(two.heir.counts(), (1, 1), "of two that wait one runs");
    let waits = waits.now().expect("who came first is first");
    waits.settle(100, 20);
    two.talk().await;
    comes.now().expect("the last").settle(100, 20);
    assert_eq!(two.heir.counts(), (0, 0));
    let mut late = two.elder.ask(ask(&acme));
    assert!(late.waits());
    two.talk().await;
    drop(late.now().unwrap());
    let left = two.elder.ask(ask(&acme));
    two.talk().await;
    assert_eq!(two.heir.counts(), (1, 0));
    drop(left);
    two.talk().await;
    assert_eq!(two.heir.counts(), (0, 0));
}

#[tokio::test]
async fn a_place_that_is_left_there_is_left_and_a_process_that_dies_leaves_nothing() {
    let mut elder = House::new(1);
    let acme = elder.tenant("acme");
    let runs = elder.ask(ask(&acme)).now().unwrap();
    let mut waits = elder.ask(ask(&acme));
    let mut leaves = elder.ask(ask(&acme));
    let mut two = Two::of(elder, 1);
    assert!(waits.waits() && leaves.waits());
    two.talk().await;
    assert_eq!(two.heir.counts(), (1, 2));
    drop(leaves);
    two.talk().await;
    assert_eq!(two.heir.counts(), (1, 1));
    two.estate = None;
    tokio::task::yield_now().await;
    assert_eq!(two.heir.counts(), (0, 0));
    two.link.is_gone();
    assert_eq!(waits.now().unwrap_err(), Refusal::ShuttingDown);
    assert_eq!(two.elder.ask(ask(&acme)).now().unwrap_err(), Refusal::ShuttingDown);
    drop(runs);
}
