//! `/v1/stats`: how many jobs there are, and how long they take.

use std::collections::BTreeMap;

use axum::{Json, extract::State};

use super::{
    Context,
    access::MayRead,
    error::Problem,
    refusals::{KEY, Refusals, STORE},
};
use crate::{api, domain::job::JobStatus, store::Stats};

/// Shows counts by status and day, and the turnaround.
#[utoipa::path(
    operation_id = "showStats",
    get, path = "/v1/stats", tag = "jobs", description = "Scope: `read`.",
    responses(
        (status = 200, body = api::Stats, description = "The figures"),
        Refusals<{ KEY | STORE }>,
    ),
    security(("key" = [])),
)]
pub async fn show(_: MayRead, State(context): State<Context>) -> Result<Json<api::Stats>, Problem> {
    let stats = context.store.stats(context.clock.now()).await?;
    Ok(Json(render(stats)))
}

fn render(stats: Stats) -> api::Stats {
    let days = stats.days.into_iter().map(|(day, statuses)| {
        let jobs = total(&statuses);
        api::Day { day, jobs, by_status: by_status(statuses) }
    });
    let millis = &stats.turnaround_millis;
    api::Stats {
        jobs: total(&stats.by_status),
        days: days.collect(),
        turnaround: api::Turnaround {
            jobs: millis.len() as u64,
            p50_seconds: percentile_seconds(millis, 50),
            p95_seconds: percentile_seconds(millis, 95),
            p99_seconds: percentile_seconds(millis, 99),
        },
        by_status: by_status(stats.by_status),
    }
}

fn total(statuses: &[(JobStatus, u64)]) -> u64 {
    statuses.iter().map(|(_, jobs)| jobs).sum()
}

fn by_status(statuses: Vec<(JobStatus, u64)>) -> BTreeMap<String, u64> {
    statuses.into_iter().map(|(status, jobs)| (status.as_str().to_owned(), jobs)).collect()
}

fn percentile_seconds(ascending_millis: &[u64], percent: usize) -> Option<f64> {
    percentile(ascending_millis, percent).map(|millis| millis as f64 / 1000.0)
}

/// The nearest-rank percentile of ascending values; `None` if there are none.
pub(super) fn percentile(ascending: &[u64], percent: usize) -> Option<u64> {
    let rank = (ascending.len() * percent).div_ceil(100).max(1);
    ascending.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile_seconds;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).map(|second| second * 1000).collect();
        assert_eq!(percentile_seconds(&hundred, 50), Some(50.0));
        assert_eq!(percentile_seconds(&hundred, 99), Some(99.0));
        assert_eq!(percentile_seconds(&[1500], 50), Some(1.5));
        assert_eq!(percentile_seconds(&[], 50), None);
    }
}
