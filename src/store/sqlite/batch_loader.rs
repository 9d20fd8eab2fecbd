//! Batches concurrent queries: those that come while the readers are busy are answered together, by
//! one statement.
//!
//! Used by the store. A single query costs a round trip to a reader's thread and a transaction,
//! which are most of its price. Invariants: an answer never waits for a later query, and a
//! statement answers at most [`MOST`] queries.

use std::{collections::HashMap, sync::Arc};

use futures_util::TryStreamExt;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    connections::{Connections, READERS, closed},
    read, rows,
};
use crate::{
    domain::ids::JobId,
    store::{StoreError, StoredResult},
};

/// Queries per statement: beyond this, sharing gains little and the other readers idle.
const MOST: usize = 16;

/// One kind of query about a job.
pub(super) struct Topic<A> {
    /// A statement without its conditions; its rows contain the job's `id`.
    select: &'static str,
    /// A condition in addition to the jobs' ids.
    only: &'static str,
    answer: fn(&SqliteRow) -> sqlx::Result<A>,
}

/// Results of at most 64 KiB: larger ones are read separately, so that few are in memory.
pub(super) const SMALL_RESULTS: Topic<StoredResult> = Topic {
    select: read::SELECT_RESULTS,
    only: " and deliveries.size_bytes <= 65536",
    answer: rows::result,
};

/// The SHA-256 of results.
pub(super) const DIGESTS: Topic<[u8; 32]> = Topic {
    select: "select jobs.id, deliveries.sha256
         from jobs join deliveries on deliveries.seq = jobs.result_delivery",
    only: "",
    answer: |row| rows::digest(row, "sha256"),
};

impl<A> Topic<A> {
    pub(super) fn question(&self, ids: &[JobId]) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new(self.select);
        query.push(" where jobs.id in (");
        let mut list = query.separated(", ");
        for id in ids {
            list.push_bind(id.0);
        }
        query.push(")").push(self.only);
        query
    }
}

/// Answers the queries of one topic. Its tasks end when it is dropped.
pub(super) struct BatchLoader<A> {
    questions: mpsc::Sender<Question<A>>,
}

struct Question<A> {
    id: JobId,
    reply: oneshot::Sender<Result<Option<A>, StoreError>>,
}

impl<A: Clone + Send + Sync + 'static> BatchLoader<A> {
    /// Starts one task for each reader: queries that come while all are busy are answered together
    /// by the next free task.
    pub(super) fn start(topic: &'static Topic<A>, readers: &Arc<Connections>) -> Self {
        let (questions, asked) = mpsc::channel(READERS as usize * MOST);
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..READERS {
            tokio::spawn(answer_all(topic, readers.clone(), asked.clone()));
        }
        Self { questions }
    }

    /// The answer for a job; `None` if there is none.
    pub(super) async fn ask(&self, id: JobId) -> Result<Option<A>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question { id, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

async fn answer_all<A: Clone>(
    topic: &Topic<A>,
    readers: Arc<Connections>,
    asked: Arc<Mutex<mpsc::Receiver<Question<A>>>>,
) {
    let mut questions = Vec::with_capacity(MOST);
    while asked.lock().await.recv_many(&mut questions, MOST).await > 0 {
        let ids: Vec<JobId> = questions.iter().map(|question| question.id).collect();
        let found = look_up(topic, &readers, &ids).await;
        for question in questions.drain(..) {
            let answer = match &found {
                Ok(answers) => Ok(answers.get(&question.id).cloned()),
                Err(error) => Err(error.clone()),
            };
            // The caller may have gone away.
            let _ = question.reply.send(answer);
        }
    }
}

async fn look_up<A>(
    topic: &Topic<A>,
    readers: &Connections,
    ids: &[JobId],
) -> Result<HashMap<JobId, A>, StoreError> {
    let mut reader = readers.lend().await?;
    let found = answers(&mut reader, topic, ids).await;
    reader.hand_back(found)
}

async fn answers<A>(
    connection: &mut SqliteConnection,
    topic: &Topic<A>,
    ids: &[JobId],
) -> sqlx::Result<HashMap<JobId, A>> {
    let mut query = topic.question(ids);
    let mut answers = HashMap::with_capacity(ids.len());
    let mut found = query.build().fetch(connection);
    while let Some(row) = found.try_next().await? {
        answers.insert(JobId(row.try_get("id")?), (topic.answer)(&row)?);
    }
    Ok(answers)
}
