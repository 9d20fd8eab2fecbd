//! A change to the database, made within the transaction of a batch.

use async_trait::async_trait;
use sqlx::SqliteConnection;

/// One change. It is applied a second time, in a transaction of its own, if another change of its
/// batch fails.
#[async_trait]
pub(super) trait UseCase: Send + Sync + 'static {
    type Output: Send + 'static;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Self::Output>;
}
