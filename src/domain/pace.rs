//! Measures how fast the other side of a transfer is, over the time that we waited for it.
//!
//! Used for all transfers without a size limit. Only waiting counts, so our own slowness is never
//! blamed on the other side.

use std::time::Duration;

/// The other side was too slow for a whole period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// The measurement of one transfer. Copy a new one for each further transfer.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long the other side may stay below the rate.
    period: Duration,
    /// The bytes that must move within a period.
    least_bytes: u64,
    /// The waiting time since the period began.
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Starts a measurement. The other side is too slow once it stays below `bytes_per_second` for
    /// `period`.
    pub fn new(bytes_per_second: u64, period: Duration) -> Self {
        let least_bytes = period.as_secs_f64() * bytes_per_second as f64;
        Self { period, least_bytes: least_bytes as u64, waited: Duration::ZERO, bytes: 0 }
    }

    /// How much longer to wait for the next bytes.
    pub fn patience(&self) -> Duration {
        self.period.saturating_sub(self.waited)
    }

    /// Records that `bytes` moved after a wait. A period ends early once it has enough bytes.
    ///
    /// # Errors
    /// [`TooSlow`]: the caller should abort the transfer.
    pub fn note(&mut self, waited: Duration, bytes: u64) -> Result<(), TooSlow> {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= self.least_bytes {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        if self.waited >= self.period { Err(TooSlow) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace::new(100, SECOND * 10)
    }

    #[test]
    fn whoever_keeps_up_may_go_on_for_ever() {
        let mut pace = pace();
        for _ in 0..1_000 {
            assert_eq!(pace.note(SECOND, 101), Ok(()));
        }
    }

    #[test]
    fn a_trickle_is_given_up_after_one_period_and_never_waited_for_longer() {
        let mut pace = pace();
        for second in 1..10 {
            assert_eq!(pace.note(SECOND, 1), Ok(()));
            assert_eq!(pace.patience(), SECOND * (10 - second));
        }
        assert_eq!(pace.note(SECOND, 1), Err(TooSlow));
        assert_eq!(pace.patience(), Duration::ZERO);
    }

    #[test]
    fn a_good_beginning_earns_no_credit() {
        let mut pace = pace();
        assert_eq!(pace.note(SECOND, 1_000_000), Ok(()));
        assert_eq!(pace.note(SECOND * 10, 1), Err(TooSlow));
    }
}
