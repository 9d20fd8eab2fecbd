//! Lists that the service returns in pages: one page, or all of them.
//!
//! Used by `jobs` and `relays`. Only one page is held in memory; all pages as JSON are printed as
//! one value with the form of one page.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    Failure, Screen, say,
    table::{Cell, Table},
};
use crate::{
    api,
    client::Client,
    domain::bounds::{DEFAULT_LIMIT, MAX_LIMIT},
};

/// How much of a list.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Extent {
    /// How many, 1 to 200
    #[arg(
        long, value_name = "COUNT", default_value_t = DEFAULT_LIMIT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)),
    )]
    limit: u32,
    /// All that match
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// An empty table, and the function that makes a row of it.
pub(super) type Form<Row> = (Table, fn(&Row) -> Vec<Cell>);

/// One page of a list.
pub(super) trait Page: DeserializeOwned {
    type Row;
    /// The member of the page that holds the rows.
    const MEMBER: &'static str;

    fn into_parts(self) -> (Vec<Self::Row>, Option<String>);
}

impl Page for api::Jobs {
    type Row = api::Job;
    const MEMBER: &'static str = "jobs";

    fn into_parts(self) -> (Vec<api::Job>, Option<String>) {
        (self.jobs, self.next_cursor)
    }
}

impl Page for api::Relays {
    type Row = api::Relay;
    const MEMBER: &'static str = "relays";

    fn into_parts(self) -> (Vec<api::Relay>, Option<String>) {
        (self.relays, self.next_cursor)
    }
}

impl Page for api::Deliveries {
    type Row = api::Delivery;
    const MEMBER: &'static str = "deliveries";

    fn into_parts(self) -> (Vec<api::Delivery>, Option<String>) {
        (self.deliveries, self.next_cursor)
    }
}

impl Page for api::Events {
    type Row = api::Event;
    const MEMBER: &'static str = "events";

    fn into_parts(self) -> (Vec<api::Event>, Option<String>) {
        (self.events, self.next_cursor)
    }
}

/// A list, read page by page.
pub(super) struct Pages<'a> {
    client: &'a Client,
    path: String,
    query: Vec<(&'static str, String)>,
    extent: Extent,
    cursor: Option<String>,
}

struct OnePage<R> {
    rows: Vec<R>,
    json: bytes::Bytes,
}

impl<'a> Pages<'a> {
    /// The list at `path`, all of it.
    pub(super) fn all(client: &'a Client, path: String) -> Self {
        let extent = Extent { limit: MAX_LIMIT, all: true };
        Self { client, path, query: Vec::new(), extent, cursor: None }
    }

    /// The list that matches the query, limited to `extent`.
    pub(super) fn new(
        client: &'a Client,
        path: &str,
        query: Vec<(&'static str, String)>,
        extent: Extent,
    ) -> Self {
        Self { client, path: path.to_owned(), query, extent, cursor: None }
    }

    /// Prints the list, limited to its extent.
    pub(super) async fn print<P: Page>(
        mut self,
        screen: &mut Screen,
        form: Form<P::Row>,
    ) -> Result<(), Failure> {
        match (screen.is_json(), self.extent.all) {
            (true, true) => self.print_as_one::<P>(screen).await,
            (true, false) => Ok(screen.json_text(&self.next::<P>().await?.json)?),
            (false, _) => self.print_table::<P>(screen, form).await,
        }
    }

    async fn print_table<P: Page>(
        &mut self,
        screen: &mut Screen,
        (mut table, row): Form<P::Row>,
    ) -> Result<(), Failure> {
        loop {
            let page = self.next::<P>().await?;
            let rows: Vec<Vec<Cell>> = page.rows.iter().map(row).collect();
            table.print(screen, &rows)?;
            if self.cursor.is_none() || !self.extent.all {
                break;
            }
        }
        screen.flush()?;
        if self.cursor.is_some() {
            say("there are more: --all lists them");
        }
        Ok(())
    }

    /// Calls `print` with every row, in order.
    pub(super) async fn print_rows<P: Page>(
        mut self,
        screen: &mut Screen,
        print: impl Fn(&mut Screen, &P::Row) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        if screen.is_json() {
            return self.print_as_one::<P>(screen).await;
        }
        loop {
            let page = self.next::<P>().await?;
            page.rows.iter().try_for_each(|row| print(screen, row))?;
            if self.cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Prints all pages as one JSON value with the form of one page.
    async fn print_as_one<P: Page>(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        let mut before = format!("{{\"{}\":[", P::MEMBER);
        loop {
            let page = self.next::<P>().await?;
            let members: BTreeMap<&str, &RawValue> = serde_json::from_slice(&page.json)?;
            let rows = members.get(P::MEMBER).map_or("[]", |rows| rows.get());
            for row in serde_json::from_str::<Vec<&RawValue>>(rows)? {
                screen.json_piece(before.as_bytes())?;
                screen.json_piece(row.get().as_bytes())?;
                before = ",".to_owned();
            }
            if self.cursor.is_none() {
                break;
            }
        }
        let begin = if before == "," { "" } else { &before };
        Ok(screen.line(&format!("{begin}],\"nextCursor\":null}}"))?)
    }

    async fn next<P: Page>(&mut self) -> Result<OnePage<P::Row>, Failure> {
        let limit = if self.extent.all { MAX_LIMIT } else { self.extent.limit };
        let mut query = self.query.clone();
        query.push(("limit", limit.to_string()));
        query.extend(self.cursor.take().map(|cursor| ("cursor", cursor)));
        let answer = self.client.get::<P>(&self.path, &query).await?;
        let (rows, cursor) = answer.value.into_parts();
        self.cursor = cursor;
        Ok(OnePage { rows, json: answer.json })
    }
}
