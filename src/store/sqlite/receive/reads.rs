//! The queries of a batch of arrivals, in one text.
//!
//! Invariant: each query uses an index, and costs the same however much the jobs have received
//! before.

use sqlx::{QueryBuilder, Sqlite};

use crate::{
    domain::bounds::MAX_OUTPUTS,
    store::{Addressee, Arrival},
};

/// Four statements: the last seqs, the jobs that arrivals are for, their outputs, their deliveries
/// with the same bytes.
pub(in super::super) fn push_reads(query: &mut QueryBuilder<Sqlite>, arrivals: &[&Arrival]) {
    query.push(
        "select (select coalesce(max(seq), 0) from deliveries) as delivery,
                (select coalesce(max(seq), 0) from jobs) as job,
                (select key_number from instance where id = 1) as key_number;
         select seq, id, origin, created_at, status, success, finished_at, engine_job_id, result_delivery,
                result_reading, delivery_count, warnings, inbox_key, relay_url, key_number,
                earlier_keys, kept_after_result, bytes_beside_result, kept_malformed, unkept_count
         from jobs where ",
    );
    push_addressees(query, arrivals, "id", "inbox_key");
    query.push(
        "; select job_seq, name, kind, kind_index, extension, structures, status, url
         from job_outputs where job_seq in (select seq from jobs where ",
    );
    push_addressees(query, arrivals, "id", "inbox_key");
    query.push(format!(") and position < {MAX_OUTPUTS} order by job_seq, position;"));
    push_known(query, arrivals);
    query.push(";");
}

/// Deliveries of the arrivals' jobs with the same bytes as an arrival.
fn push_known(query: &mut QueryBuilder<Sqlite>, arrivals: &[&Arrival]) {
    let (jobs, inbox) = by_kind(arrivals);
    let parts = [("jobs.id", jobs), ("jobs.inbox_key", inbox)];
    let some = parts.into_iter().filter(|(_, arrivals)| !arrivals.is_empty());
    for (position, (column, arrivals)) in some.enumerate() {
        query.push(if position == 0 { "" } else { " union all " });
        query.push("select deliveries.job_seq, deliveries.seq, sha256, repeats from (");
        query.push_values(arrivals, |mut row, arrival| {
            match arrival.addressee {
                Addressee::Job(id) => row.push_bind(id.0),
                Addressee::Inbox(key) => row.push_bind(key.to_vec()),
            };
            row.push_bind(&arrival.sha256[..]);
        });
        // The join order is fixed, or whole tables would be scanned.
        query.push(") as given cross join jobs on ").push(column).push(" = given.column1");
        query.push(
            " cross join deliveries
                 on deliveries.job_seq = jobs.seq and deliveries.sha256 = given.column2",
        );
    }
}

/// Those for a job, those for the inbox.
fn by_kind<'a>(arrivals: &[&'a Arrival]) -> (Vec<&'a Arrival>, Vec<&'a Arrival>) {
    arrivals.iter().partition(|arrival| matches!(arrival.addressee, Addressee::Job(_)))
}

/// `ID in (…)` and `KEY in (…)` for the addressees of the arrivals, joined by "or" if there are
/// both. An empty list is left out, because the whole table would be scanned.
pub(super) fn push_addressees(
    query: &mut QueryBuilder<Sqlite>,
    arrivals: &[&Arrival],
    id_column: &str,
    key_column: &str,
) {
    let (jobs, inbox) = by_kind(arrivals);
    for (position, (column, arrivals)) in [(id_column, jobs), (key_column, inbox)]
        .into_iter()
        .filter(|(_, some)| !some.is_empty())
        .enumerate()
    {
        query.push(if position == 0 { "" } else { " or " });
        query.push(column).push(" in (");
        let mut list = query.separated(", ");
        for arrival in arrivals {
            match arrival.addressee {
                Addressee::Job(id) => list.push_bind(id.0),
                Addressee::Inbox(key) => list.push_bind(key.to_vec()),
            };
        }
        query.push(")");
    }
}
