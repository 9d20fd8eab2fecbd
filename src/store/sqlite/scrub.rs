//! Scrubbing: overwrites what SQLite left of moved rows in the free space of pages.
//!
//! Called at the end of every erasure. `secure_delete` overwrites a row in place, but not the
//! copies left behind when pages are split and merged. Those are reached through SQLite's own
//! `sqlite_dbpage`, which `.cargo/config.toml` builds in. Invariant: only the bytes between a
//! page's list of rows and its first row change, and they are unused.

use std::ops::Range;

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{connections::Connections, use_case::UseCase, writer::Writer};
use crate::store::StoreError;

/// Pages that one statement reads: it holds the log for a few milliseconds.
const SLICE: u32 = 2_048;

/// Pages per change: few, so that the writer is free in between.
const BATCH: usize = 64;

/// The first page to scrub: page 1 holds only the schema.
const FIRST: u32 = 2;

/// From this number of pages on, a page number at the start of a page can look like a page type; at
/// 4 KiB a page, that is 128 GiB.
const MAX_PAGES: u32 = 0x0200_0000;

/// Scrubs the whole database; other changes wait for at most one batch.
pub(super) async fn scrub(readers: &Connections, writer: &Writer) -> Result<(), StoreError> {
    let mut first = FIRST;
    loop {
        let mut reader = readers.lend().await?;
        let looked = look(&mut reader, first).await;
        let (count, pages) = reader.hand_back(looked)?;
        if count >= MAX_PAGES {
            return Err(StoreError::Unavailable("it is too large to be scrubbed".into()));
        }
        for batch in pages.chunks(BATCH) {
            writer.commit(Scrub { pages: batch.to_vec() }).await?;
        }
        first += SLICE;
        if first > count {
            return Ok(());
        }
    }
}

/// The number of pages, and those of the slice from `first` on with leftovers in their free space.
async fn look(connection: &mut SqliteConnection, first: u32) -> sqlx::Result<(u32, Vec<u32>)> {
    let count = sqlx::query_scalar("pragma page_count").fetch_one(&mut *connection).await?;
    if count >= MAX_PAGES {
        return Ok((count, Vec::new()));
    }
    Ok((count, soiled(connection, first).await?))
}

async fn soiled(connection: &mut SqliteConnection, first: u32) -> sqlx::Result<Vec<u32>> {
    let rows = sqlx::query(
        "with recursive numbers (number) as
             (select ?1 union all select number + 1 from numbers where number < ?2)
         select number, data from numbers cross join sqlite_dbpage on pgno = number
         where substr(data, 1, 1) in (x'02', x'05', x'0a', x'0d')",
    )
    .bind(first)
    .bind(first + SLICE - 1)
    .fetch_all(connection)
    .await?;
    let is_soiled = |row: &&SqliteRow| {
        row.try_get::<&[u8], _>("data").is_ok_and(|page| leftovers(page).is_some())
    };
    rows.iter().filter(is_soiled).map(|row| row.try_get("number")).collect()
}

/// The free space of a table or index page, if it contains anything but zeros.
fn leftovers(page: &[u8]) -> Option<Range<usize>> {
    let rows_begin = match page.first()? {
        0x02 | 0x05 => 12,
        0x0a | 0x0d => 8,
        _ => return None,
    };
    let number = |at: usize| {
        let bytes = page.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    };
    let room = rows_begin + 2 * number(3)?..number(5)?;
    // A page with a row pointer outside its rows is not a table or index page.
    let is_row = |at| number(at).is_some_and(|row| (room.end..page.len()).contains(&row));
    let is_whole = (rows_begin..room.start).step_by(2).all(is_row);
    let is_soiled = page.get(room.clone())?.iter().any(|byte| *byte != 0);
    (is_whole && is_soiled).then_some(room)
}

struct Scrub {
    pages: Vec<u32>,
}

#[async_trait]
impl UseCase for Scrub {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        for number in &self.pages {
            let page: Option<Vec<u8>> =
                sqlx::query_scalar("select data from sqlite_dbpage where pgno = ?")
                    .bind(number)
                    .fetch_optional(&mut *connection)
                    .await?;
            // It may have changed since it was read.
            let Some(mut page) = page else { continue };
            let Some(room) = leftovers(&page) else { continue };
            page[room].fill(0);
            sqlx::query("update sqlite_dbpage set data = ? where pgno = ?")
                .bind(page)
                .bind(number)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_free_room_of_a_page_of_rows_is_scrubbed() {
        let mut page = vec![0; 64];
        page[..8].copy_from_slice(&[0x0d, 0, 0, 0, 1, 0, 60, 0]);
        page[8..10].copy_from_slice(&[0, 60]);
        assert_eq!(leftovers(&page), None, "it is clean");
        page[30] = 1;
        assert_eq!(leftovers(&page), Some(10..60));
        page[8..10].copy_from_slice(&[0, 20]);
        assert_eq!(leftovers(&page), None, "a row stands before the first row");
        page[0] = 0;
        assert_eq!(leftovers(&page), None, "it is a page of something else");
    }
}
