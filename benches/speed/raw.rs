//! "Raw": the same rows written by rusqlite, 64 callbacks to a transaction, without HTTP, without
//! a queue, without anything read from the body.

use std::{path::Path, time::Instant};

use finishline::domain::ids::JobId;
use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde_json::Value;

/// The statements of all contenders but the service, which has its own.
pub fn statement(name: &str) -> String {
    let all: Value = serde_json::from_str(include_str!("statements.json")).expect("JSON");
    all[name].as_str().expect("a statement").to_owned()
}

pub struct Raw {
    connection: Connection,
    statements: Vec<String>,
}

/// In the order they are carried out.
const NAMES: [&str; 8] = [
    "find_job",
    "find_outputs",
    "find_deliveries",
    "insert_delivery",
    "insert_body",
    "update_job",
    "upsert_output",
    "insert_event",
];

impl Raw {
    /// With the service's own settings.
    pub fn open(database: &Path) -> Self {
        let connection = Connection::open(database).expect("the database");
        for (name, value) in [
            ("journal_mode", "wal"),
            ("synchronous", "full"),
            ("foreign_keys", "on"),
            ("secure_delete", "on"),
        ] {
            let read = connection.pragma_update_and_check(None, name, value, |_| Ok(()));
            // Some answer nothing.
            let _ = read;
        }
        Self { connection, statements: NAMES.iter().map(|name| statement(name)).collect() }
    }

    /// Writes the callbacks of these jobs; answers the seconds of each transaction.
    pub fn write(&mut self, ids: &[JobId], body: &[u8], per_transaction: usize) -> Vec<f64> {
        let mut seconds = Vec::new();
        for ids in ids.chunks(per_transaction) {
            let began = Instant::now();
            self.connection.execute_batch("begin immediate").expect("it begins");
            for id in ids {
                self.callback(*id, body).expect("it is written");
            }
            self.connection.execute_batch("commit").expect("it commits");
            seconds.push(began.elapsed().as_secs_f64());
        }
        seconds
    }

    fn callback(&self, id: JobId, body: &[u8]) -> rusqlite::Result<()> {
        let prepared = |position: usize| self.connection.prepare_cached(&self.statements[position]);
        let job_id = id.0.as_bytes().as_slice();
        let now = Timestamp::now().as_millisecond();
        let (digest, delivery_id) = ([7u8; 32], JobId::new(Timestamp::now()));
        let seq: i64 = prepared(0)?.query_row([job_id], |row| row.get(0))?;
        for position in [1, 2] {
            let mut find = prepared(position)?;
            let mut rows = find.query([seq])?;
            while rows.next()?.is_some() {}
        }
        prepared(3)?.execute(params![
            delivery_id.0.as_bytes().as_slice(),
            seq,
            now,
            body.len() as i64,
            digest
        ])?;
        let delivery = self.connection.last_insert_rowid();
        prepared(4)?.execute(params![delivery, body])?;
        prepared(5)?.execute(params![now, delivery, digest, seq])?;
        prepared(6)?.execute(params![seq, "https://store.example/mesh.stl"])?;
        let data =
            format!(r#"{{"deliveryId":"{delivery_id}","status":"succeeded","success":true}}"#);
        prepared(7)?.execute(params![job_id, now, data])?;
        Ok(())
    }
}
