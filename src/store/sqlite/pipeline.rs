//! A transaction whose statements are sent together: a round trip to the database's thread costs as
//! much as a small statement.
//!
//! Used by the writer, and by the use cases that run in batches. Invariants: statements run in the
//! order they were written, and all earlier ones have run before rows are returned.

use std::mem;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::statements;

/// A text longer than this, in bytes, is sent before more is added. A text is prepared once and
/// cached; one that depends on several numbers of rows would hardly recur.
const LONG: usize = 2_000;

/// Texts longer than this, in bytes, are not cached: a prepared statement takes about forty times
/// its text, and a text of this length is enough for a full batch.
const LONGEST_KEPT: usize = 8_000;

/// See the module.
pub(super) struct Pipeline<'a> {
    connection: &'a mut SqliteConnection,
    waiting: QueryBuilder<Sqlite>,
    /// Whether the text depends on what callers send, so that it would hardly recur.
    is_of_any_length: bool,
    has_begun: bool,
}

impl<'a> Pipeline<'a> {
    /// A write transaction. It begins when the first statements are sent.
    pub(super) fn begin(connection: &'a mut SqliteConnection) -> Self {
        let waiting = QueryBuilder::new("begin immediate;");
        Self { connection, waiting, is_of_any_length: false, has_begun: false }
    }

    /// Runs within a transaction that the caller begins and ends.
    pub(super) fn within(connection: &'a mut SqliteConnection) -> Self {
        let waiting = QueryBuilder::default();
        Self { connection, waiting, is_of_any_length: false, has_begun: true }
    }

    /// Whether any statement has run.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Where to write the next statements, each ending with a semicolon.
    pub(super) async fn next(&mut self) -> sqlx::Result<&mut QueryBuilder<Sqlite>> {
        if self.waiting.sql().as_str().len() > LONG {
            self.flush().await?;
        }
        Ok(&mut self.waiting)
    }

    /// The same for a statement whose number of rows depends on callers: a long one is not cached.
    pub(super) async fn next_of_any_length(&mut self) -> sqlx::Result<&mut QueryBuilder<Sqlite>> {
        if self.waiting.sql().as_str().len() > LONG {
            self.flush().await?;
        }
        self.is_of_any_length = true;
        Ok(&mut self.waiting)
    }

    /// Rows of the last `STATEMENTS` statements that were written.
    pub(super) async fn rows<const STATEMENTS: usize>(
        &mut self,
    ) -> sqlx::Result<[Vec<SqliteRow>; STATEMENTS]> {
        let mut answers = self.run().await?;
        let before = answers.len().saturating_sub(STATEMENTS);
        statements::each(answers.split_off(before))
    }

    /// Runs all statements written so far.
    pub(super) async fn flush(&mut self) -> sqlx::Result<()> {
        if self.waiting.sql().as_str().is_empty() {
            return Ok(());
        }
        self.run().await.map(|_| ())
    }

    /// The connection, after all statements written so far have run.
    pub(super) async fn connection(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        self.flush().await?;
        Ok(self.connection)
    }

    /// Commits; after `Ok`, all that was written is on disk.
    pub(super) async fn commit(&mut self) -> sqlx::Result<()> {
        self.waiting.push("commit;");
        self.flush().await
    }

    async fn run(&mut self) -> sqlx::Result<Vec<Vec<SqliteRow>>> {
        let mut answers = Vec::new();
        let text = mem::take(&mut self.waiting);
        let longest = if mem::take(&mut self.is_of_any_length) { LONG } else { LONGEST_KEPT };
        let is_kept = text.sql().as_str().len() <= longest;
        let outcome = statements::fetch_into(self.connection, text, is_kept, &mut answers).await;
        self.has_begun |= !answers.is_empty();
        outcome.map(|()| answers)
    }
}
