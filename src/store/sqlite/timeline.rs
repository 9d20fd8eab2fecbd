//! Events: each job's timeline, and all of them in the order of their commits.

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{SqliteStore, pages, read, rows, use_case::UseCase};
use crate::{
    domain::{
        bounds::MAX_EVENT_BYTES,
        event::{Event, NewEvent},
        ids::JobId,
        page::Page,
    },
    store::{Lookup, StoreError, Timeline},
};

#[async_trait]
impl Timeline for SqliteStore {
    async fn note(&self, event: NewEvent) -> Result<Lookup<()>, StoreError> {
        self.write(Note(event)).await
    }

    async fn events(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Event>>, StoreError> {
        self.read(async |connection| events(connection, job_id, after, limit).await).await
    }

    async fn events_after(
        &self,
        seq: i64,
        job_id: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        self.read(async |connection| events_after(connection, seq, job_id, limit).await).await
    }

    async fn last_event(&self) -> Result<i64, StoreError> {
        self.read(async |connection| last_event(connection).await).await
    }
}

/// Adds an event; changes nothing else.
pub(super) struct Note(pub NewEvent);

#[async_trait]
impl UseCase for Note {
    type Output = Lookup<()>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<()>> {
        let known: bool = sqlx::query_scalar("select exists (select 1 from jobs where id = ?)")
            .bind(self.0.job_id.0)
            .fetch_one(&mut *connection)
            .await?;
        if !known {
            return read::missing(connection, self.0.job_id).await;
        }
        rows::insert_events(connection, std::slice::from_ref(&self.0)).await?;
        Ok(Lookup::Found(()))
    }
}

/// The columns of an event. Data beyond its bound is older than that bound and is left out.
fn push_select_events(query: &mut QueryBuilder<Sqlite>) {
    query.push(format!(
        "select seq, job_id, type, at,
             iif(octet_length(data) <= {MAX_EVENT_BYTES}, data, '{{}}') as data from events"
    ));
}

/// At most `limit` events of a job after the one numbered `after`, in their order.
pub(super) async fn events(
    connection: &mut SqliteConnection,
    job_id: JobId,
    after: Option<i64>,
    limit: u32,
) -> sqlx::Result<Lookup<Page<Event>>> {
    let mut sizes = QueryBuilder::new(
        "select seq, octet_length(data) + 256 as bytes from events where job_id = ",
    );
    sizes.push_bind(job_id.0).push(" and seq > ").push_bind(after.unwrap_or_default());
    let (last, next) = pages::cut(connection, sizes, limit).await?;
    let mut query = QueryBuilder::default();
    push_select_events(&mut query);
    query.push(" where job_id = ").push_bind(job_id.0);
    query.push(" and seq > ").push_bind(after.unwrap_or_default());
    query.push(" and seq <= ").push_bind(last).push(" order by seq");
    let found = query.build().fetch_all(&mut *connection).await?;
    let rows = found.iter().map(rows::event).collect::<sqlx::Result<Vec<_>>>()?;
    pages::page(connection, job_id, Page { rows, next }).await
}

/// At most `limit` events of all jobs, or of one, after the one numbered `seq`.
pub(super) async fn events_after(
    connection: &mut SqliteConnection,
    seq: i64,
    job_id: Option<JobId>,
    limit: u32,
) -> sqlx::Result<Vec<Event>> {
    let mut query = QueryBuilder::<Sqlite>::default();
    push_select_events(&mut query);
    query.push(" where seq > ").push_bind(seq);
    if let Some(job_id) = job_id {
        query.push(" and job_id = ").push_bind(job_id.0);
    }
    query.push(" order by seq limit ").push_bind(limit);
    query.build().fetch_all(connection).await?.iter().map(rows::event).collect()
}

pub(super) async fn last_event(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select coalesce(max(seq), 0) from events").fetch_one(connection).await
}
