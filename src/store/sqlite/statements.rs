//! Several statements in one text: one round trip to the database's thread for all of them.

use std::mem;

use futures_util::TryStreamExt;
use sqlx::{Either, Executor, QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

/// The rows of each statement of one text, in one round trip to the database's thread.
pub(super) async fn fetch_each<const STATEMENTS: usize>(
    connection: &mut SqliteConnection,
    query: QueryBuilder<Sqlite>,
) -> sqlx::Result<[Vec<SqliteRow>; STATEMENTS]> {
    let mut answers = Vec::with_capacity(STATEMENTS);
    fetch_into(connection, query, true, &mut answers).await?;
    each(answers)
}

/// Adds the rows of each statement, up to the one that fails. `is_kept` says whether the statements
/// stay prepared for the next time.
pub(super) async fn fetch_into(
    connection: &mut SqliteConnection,
    mut query: QueryBuilder<Sqlite>,
    is_kept: bool,
    answers: &mut Vec<Vec<SqliteRow>>,
) -> sqlx::Result<()> {
    let mut rows = Vec::new();
    let mut found = connection.fetch_many(query.build().persistent(is_kept));
    while let Some(one) = found.try_next().await? {
        match one {
            Either::Right(row) => rows.push(row),
            Either::Left(_) => answers.push(mem::take(&mut rows)),
        }
    }
    Ok(())
}

/// The rows of each statement, once all of them have been answered.
pub(super) fn each<const STATEMENTS: usize>(
    answers: Vec<Vec<SqliteRow>>,
) -> sqlx::Result<[Vec<SqliteRow>; STATEMENTS]> {
    let unanswered = |_| sqlx::Error::Protocol("a statement was not answered".into());
    answers.try_into().map_err(unanswered)
}
