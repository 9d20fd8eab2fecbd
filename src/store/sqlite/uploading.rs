//! The progress of a job's inputs: uploaded, Engine notified.
//!
//! Executed by the writer. Invariant: an input's state never goes back, and each step is one event.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use sqlx::SqliteConnection;

use super::{SqliteStore, read, rows, use_case::UseCase};
use crate::{
    domain::{
        bounds::MAX_EVENT_NAMES_BYTES,
        event::{EventType, NewEvent},
        ids::JobId,
        job::Job,
    },
    store::{Lookup, StoreError, Uploading},
};

#[async_trait]
impl Uploading for SqliteStore {
    async fn record_upload(
        &self,
        id: JobId,
        input: &str,
        bytes: Option<u64>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        let input = input.to_owned();
        self.write(RecordUpload { id, input, bytes, now }).await
    }

    async fn record_notified(
        &self,
        id: JobId,
        inputs: Vec<String>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        self.write(RecordNotified { id, inputs, now }).await
    }
}

/// Records that an input's bytes are at the Engine's storage.
pub(super) struct RecordUpload {
    pub id: JobId,
    pub input: String,
    /// `None`: its caller uploaded it.
    pub bytes: Option<u64>,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for RecordUpload {
    type Output = Lookup<Job>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<Job>> {
        let changed = sqlx::query(
            "update job_inputs set state = 'uploaded'
             where job_seq = (select seq from jobs where id = ?) and name = ?
                 and state in ('awaiting', 'uploaded')",
        )
        .bind(self.id.0)
        .bind(&self.input)
        .execute(&mut *connection)
        .await?
        .rows_affected();
        if changed > 0 {
            let event = NewEvent::new(self.id, EventType::InputUploaded, self.now)
                .with(json!({ "input": self.input, "bytes": self.bytes }));
            rows::insert_events(connection, &[event]).await?;
        }
        read::job(connection, self.id).await
    }
}

/// Records that the Engine was notified of these inputs.
pub(super) struct RecordNotified {
    pub id: JobId,
    pub inputs: Vec<String>,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for RecordNotified {
    type Output = Lookup<Job>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<Job>> {
        let mut changed = 0;
        for input in &self.inputs {
            changed += sqlx::query(
                "update job_inputs set state = 'notified'
                 where job_seq = (select seq from jobs where id = ?) and name = ?
                     and state in ('awaiting', 'uploaded')",
            )
            .bind(self.id.0)
            .bind(input)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        }
        if changed > 0 {
            let event = NewEvent::new(self.id, EventType::InputNotified, self.now)
                .with(json!({ "inputs": named(&self.inputs) }));
            rows::insert_events(connection, &[event]).await?;
        }
        read::job(connection, self.id).await
    }
}

/// The first names, as many as fit into an event.
fn named(names: &[String]) -> &[String] {
    let mut bytes = 0;
    let fits = |name: &&String| {
        bytes += name.len();
        bytes <= MAX_EVENT_NAMES_BYTES
    };
    &names[..names.iter().take_while(fits).count()]
}
