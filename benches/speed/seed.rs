//! Databases full of jobs: one job that the service itself made, many times over.

use std::{collections::HashMap, path::Path};

use finishline::domain::{ids::JobId, signature};
use jiff::Timestamp;
use rusqlite::{Connection, types::Value};

/// Tables that hold a row or more for each job, and the column that says whose.
const TABLES: [(&str, &str); 7] = [
    ("jobs", "seq"),
    ("job_bodies", "job_seq"),
    ("job_inputs", "job_seq"),
    ("job_outputs", "job_seq"),
    ("deliveries", "job_seq"),
    ("delivery_bodies", "delivery_seq"),
    ("events", "job_id"),
];

/// Between two jobs' ages.
const APART_MILLIS: i64 = 10;

/// Of the values that lists are filtered by: so many jobs share one.
pub const SHARED_BY: i64 = 50;

/// Jobs of a database, and their callback addresses.
#[derive(Clone)]
pub struct Seeded {
    pub ids: Vec<JobId>,
    pub paths: Vec<String>,
}

/// Multiplies the one job in a database until there are `jobs`.
pub fn multiply(database: &Path, jobs: usize) -> Seeded {
    let mut connection = Connection::open(database).expect("the database");
    connection.pragma_update(None, "synchronous", "off").expect("a setting");
    connection.pragma_update(None, "foreign_keys", "off").expect("a setting");
    let key: Vec<u8> = connection
        .query_row("select signing_key from instance", [], |row| row.get(0))
        .expect("a key");
    let key: [u8; 32] = key.try_into().expect("32 bytes");
    let template: Vec<Table> = TABLES.iter().map(|table| Table::read(&connection, table)).collect();
    let now = Timestamp::now().as_millisecond();
    let transaction = connection.transaction().expect("a transaction");
    let mut seeded = Seeded { ids: Vec::new(), paths: Vec::new() };
    for number in 1..=jobs as i64 {
        // The last one is the youngest.
        let at = now - (jobs as i64 - number) * APART_MILLIS;
        let id = JobId::new(Timestamp::from_millisecond(at).expect("a time"));
        for table in &template {
            table.copy(&transaction, number, id, at);
        }
        seeded.paths.push(format!("/callbacks/{id}/{}", signature::sign(&key, id)));
        seeded.ids.push(id);
    }
    transaction.commit().expect("it commits");
    connection.execute_batch("pragma wal_checkpoint(truncate);").expect("it is whole");
    seeded
}

/// The rows of the first job in one table.
struct Table {
    insert: String,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    fn read(connection: &Connection, (name, owner): &(&str, &str)) -> Self {
        let mut select = connection.prepare(&format!("select * from {name}")).expect("a table");
        let columns: Vec<String> = select.column_names().into_iter().map(str::to_owned).collect();
        let width = columns.len();
        let rows = select.query_map([], |row| (0..width).map(|column| row.get(column)).collect());
        let rows: Vec<Vec<Value>> = rows.expect("rows").map(|row| row.expect("a row")).collect();
        let marks: Vec<String> = (1..=width).map(|number| format!("?{number}")).collect();
        let insert =
            format!("insert into {name} ({}) values ({})", columns.join(", "), marks.join(", "));
        connection.execute(&format!("delete from {name}"), []).expect("it is emptied");
        assert!(columns.iter().any(|column| column == owner), "{name} has {owner}");
        Self { insert, columns, rows }
    }

    /// Copies the rows for another job. Whatever must be unique is made so.
    fn copy(&self, connection: &Connection, number: i64, id: JobId, at: i64) {
        let mut insert = connection.prepare_cached(&self.insert).expect("a statement");
        let is_events = self.insert.starts_with("insert into events");
        let is_jobs = self.insert.starts_with("insert into jobs");
        for (position, row) in self.rows.iter().enumerate() {
            let mut row = row.clone();
            for (column, value) in self.columns.iter().zip(&mut row) {
                let fresh: Option<Value> = match column.as_str() {
                    "seq" if is_events => {
                        let seq = (number - 1) * self.rows.len() as i64 + position as i64 + 1;
                        Some(seq.into())
                    }
                    "seq" | "job_seq" | "delivery_seq" | "result_delivery" => Some(number.into()),
                    "id" if is_jobs => Some(id.0.as_bytes().to_vec().into()),
                    "id" => Some(JobId::new(Timestamp::now()).0.as_bytes().to_vec().into()),
                    "job_id" => Some(id.0.as_bytes().to_vec().into()),
                    "engine_job_id" => Some(format!("engine-{number}").into()),
                    "reference" | "end_user_id" | "cloud_package" | "external_job_id" => {
                        Some(format!("{column}-{}", number / SHARED_BY).into())
                    }
                    "created_at" | "submitted_at" | "finished_at" | "received_at" | "at" => {
                        Some(at.into())
                    }
                    _ => None,
                };
                // What is null stays so: a job without a result must not get one.
                if let Some(fresh) = fresh.filter(|_| *value != Value::Null) {
                    *value = fresh;
                }
            }
            insert.execute(rusqlite::params_from_iter(row)).expect("a row");
        }
    }
}

/// Sizes of a database file and of the bodies in it.
pub fn sizes(database: &Path) -> HashMap<&'static str, i64> {
    let connection = Connection::open(database).expect("the database");
    let number = |query: &str| connection.query_row(query, [], |row| row.get(0)).expect("a number");
    HashMap::from([
        ("file", number("select page_count * page_size from pragma_page_count, pragma_page_size")),
        (
            "bodies",
            number(
                "select (select coalesce(sum(length(body)), 0) from delivery_bodies)
                + (select coalesce(sum(length(request)), 0) from job_bodies)",
            ),
        ),
        ("jobs", number("select count(*) from jobs")),
    ])
}
