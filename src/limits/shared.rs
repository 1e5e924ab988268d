//! What threads share of an account. In tests it can be swapped for loom's, so that a model runs this room's own code.

#[cfg(test)]
pub(super) use modelled::{AtomicU64, Mutex};
#[cfg(not(test))]
pub(super) use {parking_lot::Mutex, std::sync::atomic::AtomicU64};

/// The same two, chosen when a value is made: real ones, or inside of a model those that loom schedules.
#[cfg(test)]
pub(super) mod modelled {
    use std::cell::Cell;
    use std::sync::atomic::Ordering;

    thread_local! {
        /// Whether what is made now belongs to a model. Loom runs its threads on the one that began the model.
        pub(in super::super) static MODEL: Cell<bool> = const { Cell::new(false) };
        /// Breaks [`AtomicU64::try_update`] on purpose, to see a model find it.
        pub(in super::super) static BROKEN: Cell<bool> = const { Cell::new(false) };
    }

    #[derive(Debug)]
    pub(in super::super) enum AtomicU64 {
        Real(std::sync::atomic::AtomicU64),
        Model(loom::sync::atomic::AtomicU64),
    }

    impl AtomicU64 {
        pub(in super::super) fn new(value: u64) -> Self {
            if MODEL.get() {
                Self::Model(loom::sync::atomic::AtomicU64::new(value))
            } else {
                Self::Real(std::sync::atomic::AtomicU64::new(value))
            }
        }

        pub(in super::super) fn load(&self, order: Ordering) -> u64 {
            match self {
                Self::Real(real) => real.load(order),
                Self::Model(model) => model.load(order),
            }
        }

        pub(in super::super) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            match self {
                Self::Real(real) => real.fetch_sub(value, order),
                Self::Model(model) => model.fetch_sub(value, order),
            }
        }

        pub(in super::super) fn update(&self, set: Ordering, fetch: Ordering, mut change: impl FnMut(u64) -> u64) -> u64 {
            self.try_update(set, fetch, |value| Some(change(value))).unwrap_or_default()
        }

        pub(in super::super) fn try_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            mut change: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            match self {
                Self::Real(real) => real.try_update(set, fetch, change),
                Self::Model(model) if BROKEN.get() => {
                    let before = model.load(fetch);
                    let after = change(before).ok_or(before)?;
                    model.store(after, set);
                    Ok(before)
                }
                Self::Model(model) => model.fetch_update(set, fetch, change),
            }
        }
    }

    #[derive(Debug)]
    pub(in super::super) enum Mutex<T> {
        Real(parking_lot::Mutex<T>),
        Model(loom::sync::Mutex<T>),
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            if MODEL.get() {
                Self::Model(loom::sync::Mutex::new(T::default()))
            } else {
                Self::Real(parking_lot::Mutex::default())
            }
        }
    }

    pub(in super::super) enum Guard<'a, T> {
        Real(parking_lot::MutexGuard<'a, T>),
        Model(loom::sync::MutexGuard<'a, T>),
    }

    impl<T> Mutex<T> {
        pub(in super::super) fn lock(&self) -> Guard<'_, T> {
            match self {
                Self::Real(real) => Guard::Real(real.lock()),
                Self::Model(model) => Guard::Model(model.lock().expect("nobody panics under it")),
            }
        }
    }

    impl<T> std::ops::Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            match self {
                Self::Real(real) => real,
                Self::Model(model) => model,
            }
        }
    }

    impl<T> std::ops::DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            match self {
                Self::Real(real) => real,
                Self::Model(model) => model,
            }
        }
    }
}
