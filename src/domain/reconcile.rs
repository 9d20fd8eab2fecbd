//! When a job in flight is looked up at the Engine, and when it is given up.
//!
//! The reconcile worker asks after each look-up. Invariant: a job is given up only after several
//! look-ups, the last of them at its planned time, so a jump of the clock alone never gives up a
//! job.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::ids::JobId;

/// The pause between look-ups doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 60 * 60);

/// A look-up that is this late does not give a job up.
const LATE: Duration = Duration::from_secs(4 * 60 * 60);

/// Look-ups before a job is given up, however old it is.
const LOOKS_BEFORE_GIVING_UP: u32 = 5;

/// Limits of a learned due time: a shorter one asks too often, a longer one helps too late.
const LEARNED_FLOOR: Duration = Duration::from_secs(5 * 60);
const LEARNED_CEILING: Duration = Duration::from_secs(2 * 60 * 60);

/// The finished jobs that are needed to learn a due time; with fewer, [`UNLEARNED`] applies.
const LEARNED_FROM: usize = 20;
const UNLEARNED: Duration = Duration::from_secs(30 * 60);

/// The times from the settings, with `after` learned if the settings say so.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// A job without a callback is due this long after its submission.
    pub after: Duration,
    /// The first pause between look-ups.
    pub every: Duration,
    /// A job is given up this long after its submission.
    pub give_up: Duration,
}

/// A job in flight that is due for a look-up.
#[derive(Clone, Debug)]
pub struct DueJob {
    pub id: JobId,
    /// Without an id it cannot be looked up; only a callback can finish it.
    pub engine_job_id: Option<String>,
    /// When it was submitted.
    pub asked_at: Timestamp,
    /// When this look-up was planned for.
    pub planned_at: Timestamp,
    /// Earlier look-ups, not including this one.
    pub lookups: u32,
}

/// What follows a look-up without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another look-up at this time; if it is past its due time, the job is overdue from now on.
    Look { at: Timestamp, is_overdue: bool },
    /// No more look-ups.
    GiveUp,
}

/// Decides what follows a look-up at `now` without a result.
pub fn after_look(schedule: Schedule, job: &DueJob, now: Timestamp) -> Next {
    let waited = now.duration_since(job.asked_at);
    let has_waited = |duration: Duration| waited >= signed(duration);
    // Long after the planned time, the clock has jumped or the service was down. The next look-up
    // decides.
    let is_late = now.duration_since(job.planned_at) > signed(LATE.max(schedule.every));
    let is_tried = job.lookups + 1 >= LOOKS_BEFORE_GIVING_UP;
    if has_waited(schedule.give_up) && is_tried && !is_late {
        return Next::GiveUp;
    }
    let doubled = schedule.every.saturating_mul(1 << job.lookups.min(16));
    let pause = doubled.min(LONGEST_PAUSE.max(schedule.every));
    let at = now.checked_add(signed(pause)).unwrap_or(Timestamp::MAX);
    Next::Look { at, is_overdue: has_waited(schedule.after) }
}

/// The due time learned from the run times of finished jobs (ascending, in milliseconds): their
/// 95th percentile, within limits.
pub fn learned_after(turnaround_millis: &[u64]) -> Duration {
    if turnaround_millis.len() < LEARNED_FROM {
        return UNLEARNED;
    }
    let rank = (turnaround_millis.len() * 95).div_ceil(100) - 1;
    Duration::from_millis(turnaround_millis[rank]).clamp(LEARNED_FLOOR, LEARNED_CEILING)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn schedule() -> Schedule {
        Schedule { after: 30 * MINUTE, every: 10 * MINUTE, give_up: 48 * 60 * MINUTE }
    }

    fn job(lookups: u32) -> DueJob {
        let asked_at = Timestamp::from_second(1_800_000_000).expect("in range");
        DueJob {
            id: JobId::new(asked_at),
            engine_job_id: None,
            asked_at,
            planned_at: asked_at,
            lookups,
        }
    }

    fn look_after(waited: Duration, lookups: u32) -> Next {
        let now = job(lookups).asked_at + signed(waited);
        after_look(schedule(), &DueJob { planned_at: now, ..job(lookups) }, now)
    }

    fn pause(lookups: u32) -> SignedDuration {
        let job = job(lookups);
        match after_look(schedule(), &job, job.asked_at) {
            Next::Look { at, .. } => at.duration_since(job.asked_at),
            Next::GiveUp => panic!("given up at once"),
        }
    }

    #[test]
    fn the_pause_doubles_up_to_a_limit() {
        assert_eq!(pause(0), signed(10 * MINUTE));
        assert_eq!(pause(1), signed(20 * MINUTE));
        assert_eq!(pause(3), signed(80 * MINUTE));
        assert_eq!(pause(4), signed(120 * MINUTE));
        assert_eq!(pause(40), signed(120 * MINUTE));
    }

    #[test]
    fn a_job_is_overdue_once_its_due_time_has_passed() {
        let is_overdue =
            |waited| matches!(look_after(waited, 0), Next::Look { is_overdue: true, .. });
        assert!(!is_overdue(29 * MINUTE));
        assert!(is_overdue(30 * MINUTE));
    }

    #[test]
    fn a_clock_that_jumps_ahead_gives_nothing_up_by_itself() {
        let years = 24 * 365 * 60 * MINUTE;
        assert!(matches!(look_after(years, 0), Next::Look { is_overdue: true, .. }));
        assert_eq!(look_after(years, 4), Next::GiveUp);
        let jumped = job(4).asked_at + signed(years);
        assert!(matches!(after_look(schedule(), &job(4), jumped), Next::Look { .. }));
        assert_eq!(look_after(48 * 60 * MINUTE, 20), Next::GiveUp);
        assert!(matches!(look_after(47 * 60 * MINUTE, 20), Next::Look { .. }));
        // Back to 1970: the job only waits.
        let job = job(3);
        assert!(matches!(after_look(schedule(), &job, Timestamp::UNIX_EPOCH), Next::Look { .. }));
    }

    #[test]
    fn a_due_time_is_learned_from_enough_jobs_and_within_bounds() {
        assert_eq!(learned_after(&[1_000; 19]), UNLEARNED);
        assert_eq!(learned_after(&[1_000; 20]), LEARNED_FLOOR);
        assert_eq!(learned_after(&[900_000; 20]), Duration::from_secs(900));
        assert_eq!(learned_after(&[90_000_000; 20]), LEARNED_CEILING);
    }
}
