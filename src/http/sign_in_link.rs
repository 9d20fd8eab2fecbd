//! The sign-in link that `serve` prints: it opens one session of the key that the service made for
//! itself, so that nobody has to copy the key into a browser.
//!
//! Made by `app`, used by the inspector. Invariants: a link works once and for [`LINK_LIFETIME`];
//! the key cannot be derived from it; only its digest is kept, and only in memory.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock;

/// Enough to find the line in the log.
pub const LINK_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// 256 bits, so that it cannot be guessed.
const SECRET_BYTES: usize = 32;

/// The link that may still be used, if any. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub struct SignInLink(Arc<Mutex<Option<Outstanding>>>);

struct Outstanding {
    digest: [u8; 32],
    ends_at: Timestamp,
}

impl SignInLink {
    /// The path of a new link. An earlier link stops working.
    pub fn make(&self, now: Timestamp) -> String {
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; SECRET_BYTES]>());
        let ends_at = clock::add(now, LINK_LIFETIME);
        *self.outstanding() = Some(Outstanding { digest: Sha256::digest(&secret).into(), ends_at });
        format!("/sign-in/{secret}")
    }

    /// Returns whether the link with this secret would work, without using it up.
    pub(super) fn works(&self, secret: &str, now: Timestamp) -> bool {
        self.outstanding().as_ref().is_some_and(|link| link.is(secret, now))
    }

    /// Uses the link up. Of several concurrent uses, exactly one succeeds.
    pub(super) fn take(&self, secret: &str, now: Timestamp) -> bool {
        self.outstanding().take_if(|link| link.is(secret, now)).is_some()
    }

    fn outstanding(&self) -> MutexGuard<'_, Option<Outstanding>> {
        // Each change is one call, so a panic elsewhere leaves no half-done state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outstanding {
    fn is(&self, secret: &str, now: Timestamp) -> bool {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        bool::from(self.digest.ct_eq(&digest)) && now < self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
    }

    fn secret(path: &str) -> &str {
        path.strip_prefix("/sign-in/").expect("a path")
    }

    #[test]
    fn a_link_works_once_until_its_time_is_up() {
        let link = SignInLink::default();
        assert!(!link.works("", at(0)) && !link.take("", at(0)), "none was made");
        let path = link.make(at(0));
        let one = secret(&path);
        assert!(!link.take("wrong", at(0)));
        assert!(link.works(one, at(0)) && link.works(one, at(599)), "looking does not use it up");
        assert!(!link.works(one, at(600)) && !link.take(one, at(600)), "its time is up");
        assert!(link.take(one, at(1)) && !link.take(one, at(1)) && !link.works(one, at(1)));
        let (first, second) = (link.make(at(2)), link.make(at(2)));
        assert!(!link.take(secret(&first), at(2)), "a later one takes its place");
        assert!(link.take(secret(&second), at(2)));
    }

    #[test]
    fn of_many_who_take_it_at_once_one_gets_in() {
        let link = SignInLink::default();
        for _ in 0..50 {
            let path = link.make(at(0));
            let start = std::sync::Barrier::new(8);
            let taken = std::thread::scope(|scope| {
                let take = || {
                    start.wait();
                    link.take(secret(&path), at(1))
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
                let taken = threads.into_iter().map(|one| one.join().expect("no panic"));
                taken.filter(|taken| *taken).count()
            });
            assert_eq!(taken, 1);
        }
    }
}
