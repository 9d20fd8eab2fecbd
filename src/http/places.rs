//! Places for long-running requests: waiting calls, event streams, uploads, exports and downloads.
//!
//! Taken by the handlers, under the name of the request's key. Invariant: no key has more than its
//! share, and all together have far fewer places than there are connections, so that no key shuts
//! the others out and long requests never use up the connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{body::Body, response::Response};

use super::{kept::Kept, limits::Overloaded};

/// Places of all keys together: a sixteenth of the connections of a door
/// (`service.max_connections`). An upload may hold half a megabyte of its file, the others far
/// less.
pub(super) const MOST: usize = 256;

/// Places of one key: eight keys can be busy at once.
pub(super) const MOST_PER_KEY: usize = 32;

/// Cheap to clone; clones share the places.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    most: usize,
    most_per_key: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Holds only keys that have a place, so it has no more entries than there are places.
    by_key: HashMap<String, usize>,
}

/// One place; given back when it is dropped.
pub(super) struct Place {
    key: String,
    places: Places,
}

impl Places {
    pub(super) fn new(most: usize, most_per_key: usize) -> Self {
        Self(Arc::new(Shared { most, most_per_key, taken: Mutex::default() }))
    }

    /// A place for a request with the key of this name. Where there are no keys, all requests share
    /// the empty name.
    ///
    /// # Errors
    /// [`Overloaded`]: the key has its share, or no place is left.
    pub(super) fn take(&self, key: &str) -> Result<Place, Overloaded> {
        let mut taken = self.taken();
        let of_key = taken.by_key.get(key).copied().unwrap_or(0);
        if taken.all >= self.0.most || of_key >= self.0.most_per_key {
            return Err(Overloaded);
        }
        taken.all += 1;
        taken.by_key.insert(key.to_owned(), of_key + 1);
        Ok(Place { key: key.to_owned(), places: self.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // No change can panic halfway.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(of_key) = taken.by_key.get_mut(&self.key) {
            *of_key -= 1;
            if *of_key == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

impl Place {
    /// Keeps the place until the answer's body has been sent, or its reader has disconnected.
    pub(super) fn until_sent(self, answer: Response) -> Response {
        answer.map(|body| Body::new(Kept::new(body, self)))
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_key_has_its_share_and_all_together_have_theirs() {
        let places = Places::new(5, 2);
        let held: Vec<_> = ["a", "a", "b", "b", ""].map(|key| places.take(key)).into();
        assert!(held.iter().all(Result::is_ok));
        assert!(places.take("c").is_err(), "all are taken");
        drop(held);
        let held: Vec<_> = ["a", "a"].map(|key| places.take(key)).into();
        assert!(held.iter().all(Result::is_ok));
        assert!(places.take("a").is_err(), "it has its share");
        assert!(places.take("b").is_ok());
        drop(held);
        let taken = places.taken();
        assert!(taken.all == 0 && taken.by_key.is_empty(), "nothing is left of who has gone");
    }

    #[test]
    fn an_answer_keeps_its_place_until_it_is_dropped() {
        let places = Places::new(1, 1);
        let answer = places.take("a").expect("one").until_sent("content".into_response());
        assert!(places.take("a").is_err());
        drop(answer);
        assert!(places.take("a").is_ok());
    }
}
