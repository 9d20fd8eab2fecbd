//! A transaction whose statements travel together: a hop to the database's thread and back costs as
//! much as a small statement.
//!
//! Used by the writer, and by the use cases that are carried out many at a time. The invariants:
//! statements are carried out in the order they were written, and all that was written before is
//! carried out before rows are answered.

use std::mem;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::statements;

/// Bytes of text from which on it travels alone. A text is prepared once and kept; where it depends
/// on several numbers of rows, it would hardly come again.
const LONG: usize = 2_000;

/// Longer texts are not kept: a prepared statement takes some forty times its text, and a text of
/// this length serves a full batch.
const LONGEST_KEPT: usize = 8_000;

/// See the module.
pub(super) struct Pipeline<'a> {
    connection: &'a mut SqliteConnection,
    waiting: QueryBuilder<Sqlite>,
    /// Whether the text depends on what callers send, so that it would hardly come again.
    is_of_any_length: bool,
    has_begun: bool,
}

impl<'a> Pipeline<'a> {
    /// A transaction that writes. It begins with what is carried out first.
    pub(super) fn begin(connection: &'a mut SqliteConnection) -> Self {
        let waiting = QueryBuilder::new("begin immediate;");
        Self { connection, waiting, is_of_any_length: false, has_begun: false }
    }

    /// Within a transaction that somebody else began, and ends.
    pub(super) fn within(connection: &'a mut SqliteConnection) -> Self {
        let waiting = QueryBuilder::default();
        Self { connection, waiting, is_of_any_length: false, has_begun: true }
    }

    /// Whether any statement was carried out.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Where the next statements are written, each closed by a semicolon.
    pub(super) async fn next(&mut self) -> sqlx::Result<&mut QueryBuilder<Sqlite>> {
        if self.waiting.sql().as_str().len() > LONG {
            self.flush().await?;
        }
        Ok(&mut self.waiting)
    }

    /// The same for a statement with as many rows as callers like: where it is long, it is not kept.
    pub(super) async fn next_of_any_length(&mut self) -> sqlx::Result<&mut QueryBuilder<Sqlite>> {
        if self.waiting.sql().as_str().len() > LONG {
            self.flush().await?;
        }
        self.is_of_any_length = true;
        Ok(&mut self.waiting)
    }

    /// Rows of so many statements that were written last.
    pub(super) async fn rows<const STATEMENTS: usize>(
        &mut self,
    ) -> sqlx::Result<[Vec<SqliteRow>; STATEMENTS]> {
        let mut answers = self.run().await?;
        let before = answers.len().saturating_sub(STATEMENTS);
        statements::each(answers.split_off(before))
    }

    /// Carries out all that was written.
    pub(super) async fn flush(&mut self) -> sqlx::Result<()> {
        if self.waiting.sql().as_str().is_empty() {
            return Ok(());
        }
        self.run().await.map(|_| ())
    }

    /// The connection, once all that was written is carried out.
    pub(super) async fn connection(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        self.flush().await?;
        Ok(self.connection)
    }

    /// All that was written is on disk.
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
