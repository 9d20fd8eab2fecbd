//! Reads jobs, results and deliveries.
//!
//! The statements that other files need too are in `read` and `pages`.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::{SqliteStore, pages, read};
use crate::{
    domain::{
        delivery::Delivery,
        ids::{DeliveryId, JobId},
        job::{Job, JobFlags},
        page::{JobFilter, JobPage, Page, Position},
    },
    store::{Lookup, Querying, StoreError, StoredResult},
};

#[async_trait]
impl Querying for SqliteStore {
    async fn job(&self, id: JobId) -> Result<Lookup<Job>, StoreError> {
        self.read(async |connection| read::job(connection, id).await).await
    }

    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<Position>,
        limit: u32,
    ) -> Result<JobPage, StoreError> {
        let keys = self
            .read(async |connection| pages::job_keys(connection, filter, after, limit).await)
            .await?;
        let _room = self.large.of(keys.bytes).await?;
        self.read(async |connection| pages::jobs(connection, keys).await).await
    }

    async fn job_flags(
        &self,
        ids: &[JobId],
        public_url: Option<&str>,
    ) -> Result<HashMap<JobId, JobFlags>, StoreError> {
        self.read(async |connection| read::job_flags(connection, ids, public_url).await).await
    }

    async fn job_of_engine(&self, engine_job_id: &str) -> Result<Option<JobId>, StoreError> {
        self.read(async |connection| read::job_of_engine(connection, engine_job_id).await).await
    }

    async fn result(&self, id: JobId) -> Result<Lookup<Option<StoredResult>>, StoreError> {
        match self.small_results.ask(id).await? {
            Some(small) => Ok(Lookup::Found(Some(small))),
            None => {
                let bytes = self
                    .read(async |connection| read::result_bytes(connection, id).await)
                    .await?
                    .unwrap_or_default();
                let _room = self.large.of(bytes.unsigned_abs()).await?;
                self.read(async |connection| read::result(connection, id).await).await
            }
        }
    }

    async fn result_digest(&self, id: JobId) -> Result<Option<[u8; 32]>, StoreError> {
        self.digests.ask(id).await
    }

    async fn deliveries(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Delivery>>, StoreError> {
        self.read(async |connection| pages::deliveries(connection, job_id, after, limit).await)
            .await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.read(async |connection| read::delivery(connection, id).await).await
    }

    async fn delivery_body(&self, id: DeliveryId) -> Result<Option<Bytes>, StoreError> {
        let bytes = self
            .read(async |connection| read::delivery_bytes(connection, id).await)
            .await?
            .unwrap_or_default();
        let _room = self.large.of(bytes.unsigned_abs()).await?;
        self.read(async |connection| read::delivery_body(connection, id).await).await
    }
}
