//! Those the service is measured against, each a process of its own.
//!
//! The Rust ones are this very program, started as `speed contender NAME`: the handler that stores
//! nothing, the naive one that writes by itself, and the proxy that passes a job on.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use finishline::domain::ids::JobId;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{body, raw::statement};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/speed");

/// A running contender.
pub struct Contender {
    pub name: &'static str,
    pub address: SocketAddr,
    /// What it writes to, if it does.
    pub database: Option<PathBuf>,
    child: Child,
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Contender {
    /// Starts a command that prints its address as its first line.
    fn start(name: &'static str, mut command: Command, database: Option<&Path>) -> Self {
        if let Some(database) = database {
            command.env("DATABASE", database);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its address");
        let address = line.trim().trim_start_matches("http://").parse().expect("an address");
        Self { name, address, database: database.map(Path::to_owned), child }
    }

    /// One of this program's own.
    pub fn own(name: &'static str, database: Option<&Path>, engine: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["contender", name]).env("ENGINE", engine);
        Self::start(name, command, database)
    }

    /// Fastify, where Node is; its packages come from the npm registry.
    pub fn fastify(name: &'static str, database: &Path, groups: bool) -> Option<Self> {
        let folder = Path::new(FOLDER).join("fastify");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fastify");
        if !target.join("node_modules/better-sqlite3/build").exists() {
            std::fs::create_dir_all(&target).expect("a folder");
            std::fs::copy(folder.join("package.json"), target.join("package.json"))
                .expect("a file");
            let mut install = Command::new("npm");
            install.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
            // Where the headers of the installed Node are: nothing else is to be downloaded.
            install.arg("--nodedir=/usr").current_dir(&target);
            if !install.status().is_ok_and(|status| status.success()) {
                println!("ABSENT: {name} (npm could not install its packages)");
                return None;
            }
        }
        let mut command = Command::new("node");
        command.arg(folder.join("server.js")).env("NODE_PATH", target.join("node_modules"));
        if groups {
            command.env("GROUP", "1");
        }
        Some(Self::start(name, command, Some(database)))
    }

    /// FastAPI, where Python is; its packages come from PyPI.
    pub fn fastapi(name: &'static str, database: &Path) -> Option<Self> {
        let folder = Path::new(FOLDER).join("fastapi");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fastapi");
        let python = target.join("bin/python");
        if !target.join("bin/uvicorn").exists() {
            let made = Command::new("python3").args(["-m", "venv"]).arg(&target).status();
            let mut install = Command::new(&python);
            install.args(["-m", "pip", "install", "-q", "-r"]).arg(folder.join("requirements.txt"));
            if !made.is_ok_and(|status| status.success())
                || !install.status().is_ok_and(|status| status.success())
            {
                println!("ABSENT: {name} (pip could not install its packages)");
                return None;
            }
        }
        let mut command = Command::new(python);
        command.arg(folder.join("app.py"));
        Some(Self::start(name, command, Some(database)))
    }
}

/// Runs one of this program's own contenders; returns when it is killed.
pub async fn run(name: &str) {
    let router = match name {
        "no-op" => Router::new()
            .route("/callbacks/{id}/{signature}", post(read_and_forget))
            .route("/result", get(async || ([("content-type", "application/json")], body()))),
        "naive axum" => {
            let database = std::env::var("DATABASE").expect("a database");
            let options = SqliteConnectOptions::new()
                .filename(database)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(std::time::Duration::from_secs(60))
                .pragma("secure_delete", "on");
            let pool = SqlitePoolOptions::new().connect_with(options).await.expect("the database");
            let naive = post(write_by_itself).with_state(pool);
            Router::new().route("/callbacks/{id}/{signature}", naive)
        }
        "proxy" => {
            let engine = std::env::var("ENGINE").expect("an address");
            let _ = rustls::crypto::ring::default_provider().install_default();
            let client =
                reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
            Router::new().route("/v1/jobs", post(pass_on).with_state((client, engine)))
        }
        other => panic!("no contender {other}"),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    axum::serve(listener, router).await.expect("it serves");
}

async fn read_and_forget(body: Bytes) -> impl IntoResponse {
    match serde_json::from_slice::<Value>(&body) {
        Ok(_) => Ok(Json(json!({"outcome": "stored"}))),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

async fn pass_on(
    State((client, engine)): State<(reqwest::Client, String)>,
    Json(job): Json<Value>,
) -> impl IntoResponse {
    let sent = client.post(format!("{engine}/24.06/job")).bearer_auth("t").json(&job).send();
    let answer: Value = sent.await.expect("an answer").json().await.expect("JSON");
    (StatusCode::CREATED, Json(answer))
}

async fn write_by_itself(
    State(pool): State<SqlitePool>,
    UrlPath((id, _)): UrlPath<(JobId, String)>,
    body: Bytes,
) -> impl IntoResponse {
    let Ok(result) = serde_json::from_slice::<Value>(&body) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    match write(&pool, id, &body, &result).await {
        Ok(()) => Ok(Json(json!({"outcome": "stored"}))),
        Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn write(pool: &SqlitePool, id: JobId, body: &[u8], result: &Value) -> sqlx::Result<()> {
    let query = |name: &str| sqlx::query(sqlx::AssertSqlSafe(statement(name)));
    let now = Timestamp::now().as_millisecond();
    let digest = Sha256::digest(body).to_vec();
    let delivery_id = JobId::new(Timestamp::now());
    let url = result["outputFiles"]["meshes"][0]["url"].as_str().map(str::to_owned);
    let mut transaction = pool.begin_with("begin immediate").await?;
    let job = query("find_job").bind(id.0).fetch_one(&mut *transaction).await?;
    let seq: i64 = sqlx::Row::try_get(&job, 0)?;
    query("find_outputs").bind(seq).fetch_all(&mut *transaction).await?;
    query("find_deliveries").bind(seq).fetch_all(&mut *transaction).await?;
    let inserted = query("insert_delivery")
        .bind(delivery_id.0)
        .bind(seq)
        .bind(now)
        .bind(body.len() as i64)
        .bind(&digest)
        .execute(&mut *transaction)
        .await?;
    let delivery = inserted.last_insert_rowid();
    query("insert_body").bind(delivery).bind(body).execute(&mut *transaction).await?;
    let update = query("update_job").bind(now).bind(delivery).bind(&digest).bind(seq);
    update.execute(&mut *transaction).await?;
    query("upsert_output").bind(seq).bind(url).execute(&mut *transaction).await?;
    let data = json!({"deliveryId": delivery_id, "status": "succeeded", "success": true});
    let event = query("insert_event").bind(id.0).bind(now).bind(data.to_string());
    event.execute(&mut *transaction).await?;
    transaction.commit().await
}
