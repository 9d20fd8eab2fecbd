//! Tests that the queries of every callback, submission and result use an index, so that they do
//! not slow down with the number of jobs.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::{
    AssertSqlSafe, Connection, QueryBuilder, Row, Sqlite, SqliteConnection,
    sqlite::SqliteConnectOptions,
};

use super::{
    batch_loader::{DIGESTS, SMALL_RESULTS},
    open, read, receive, submit,
};
use crate::{
    domain::ids::{DeliveryId, JobId},
    store::{Addressee, Arrival, Idempotency},
};

/// The largest batch of the writer.
const MANY: usize = 64;

fn arrivals(make: impl Fn(usize) -> Addressee) -> Vec<Arrival> {
    let now = Timestamp::UNIX_EPOCH;
    let arrival = |number| Arrival {
        addressee: make(number),
        delivery_id: DeliveryId::new(now),
        ..Arrival::of_engine(JobId::new(now), "{}".into(), now, &[])
    };
    (0..MANY).map(arrival).collect()
}

/// The steps of the query plans of a text's statements that touch one table.
async fn steps(connection: &mut SqliteConnection, text: &str, table: &str) -> Vec<String> {
    let mut steps = Vec::new();
    for statement in text.split(';').filter(|statement| !statement.trim().is_empty()) {
        let explain = AssertSqlSafe(format!("explain query plan {statement}"));
        for step in sqlx::query(explain).fetch_all(&mut *connection).await.expect("a plan") {
            let step: String = step.try_get("detail").expect("a text");
            if step.split(' ').nth(1) == Some(table) {
                steps.push(step);
            }
        }
    }
    steps
}

#[tokio::test]
async fn whether_an_arrival_is_known_costs_the_same_however_many_its_job_has() {
    let options = SqliteConnectOptions::new().in_memory(true);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("a database");
    open::migrate(&mut connection, "memory".as_ref()).await.expect("a schema");
    let arrivals = arrivals(|number| match number % 2 {
        0 => Addressee::Job(JobId::new(Timestamp::UNIX_EPOCH)),
        _ => Addressee::Inbox([number as u8; 32]),
    });
    let mut query = QueryBuilder::<Sqlite>::default();
    receive::reads::push_reads(&mut query, &arrivals.iter().collect::<Vec<_>>());
    let steps = steps(&mut connection, query.sql().as_str(), "deliveries").await;
    // One step for the last seq, one for jobs and one for the inbox.
    assert_eq!(steps.len(), 3, "{steps:#?}");
    for step in &steps[1..] {
        assert!(step.ends_with("(job_seq=? AND sha256=?)"), "{step}");
    }
}

/// The table scans in the query plan of each statement.
async fn scans(connection: &mut SqliteConnection, text: &str) -> Vec<String> {
    let tables: HashSet<String> =
        sqlx::query_scalar("select name from sqlite_master where type = 'table'")
            .fetch_all(&mut *connection)
            .await
            .expect("a schema")
            .into_iter()
            .collect();
    let mut scans = Vec::new();
    for statement in text.split(';').filter(|statement| !statement.trim().is_empty()) {
        let explain = AssertSqlSafe(format!("explain query plan {statement}"));
        let plan = sqlx::query(explain).fetch_all(&mut *connection).await.expect("a plan");
        assert!(!plan.is_empty(), "{statement}");
        for step in plan {
            let step: String = step.try_get("detail").expect("a text");
            let scanned = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            if scanned.is_some_and(|table| tables.contains(table)) {
                scans.push(format!("{step}: {statement}"));
            }
        }
    }
    scans
}

#[tokio::test]
async fn nothing_that_is_asked_often_scans_a_table() {
    let options = SqliteConnectOptions::new().in_memory(true);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("a database");
    open::migrate(&mut connection, "memory".as_ref()).await.expect("a schema");
    assert_eq!(scans(&mut connection, "select warnings from jobs").await.len(), 1, "it is seen");

    let id = JobId::new(Timestamp::UNIX_EPOCH);
    let mut texts = Vec::new();
    for make in [
        (|_| Addressee::Job(JobId::new(Timestamp::UNIX_EPOCH))) as fn(usize) -> Addressee,
        |number| Addressee::Inbox([number as u8; 32]),
        |number| match number % 2 {
            0 => Addressee::Job(JobId::new(Timestamp::UNIX_EPOCH)),
            _ => Addressee::Inbox([number as u8; 32]),
        },
    ] {
        let arrivals = arrivals(make);
        for arrivals in [&arrivals[..], &arrivals[..1]] {
            let mut query = QueryBuilder::<Sqlite>::default();
            receive::reads::push_reads(&mut query, &arrivals.iter().collect::<Vec<_>>());
            texts.push(query.sql().as_str().to_owned());
        }
    }
    let key = Idempotency { api_key: "a".into(), key_sha256: [1; 32], fingerprint: [1; 32] };
    for many in [1, MANY] {
        let mut query = QueryBuilder::<Sqlite>::default();
        submit::push_known(&mut query, &vec![&key; many]);
        read::push_jobs_of(&mut query, &vec![id; many]);
        texts.push(query.sql().as_str().to_owned());
        let ids = vec![id; many];
        for question in [SMALL_RESULTS.question(&ids), DIGESTS.question(&ids)] {
            texts.push(question.sql().as_str().to_owned());
        }
    }
    for text in texts {
        let scans = scans(&mut connection, &text).await;
        assert!(scans.is_empty(), "{scans:#?}");
    }
}
