//! The binary itself: killed with callbacks in the spool, and on a disk that fails.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use sqlx::Row;

use super::support::{Doors, Folder, new_job, result_body, run, skip, stranger, until};

struct Program {
    process: Child,
    doors: Doors,
}

impl Program {
    async fn start(folder: &Folder) -> Self {
        let database = format!("sqlite://{}", folder.database().display());
        // A process that ignores SIGXFSZ gets an error instead of being ended by it.
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$0\" serve"])
            .arg(env!("CARGO_BIN_EXE_finishline"))
            .current_dir(folder.file(""))
            .env_clear()
            .envs([
                ("FINISHLINE__CALLBACKS__LISTEN", "127.0.0.1:0"),
                ("FINISHLINE__CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
                ("FINISHLINE__API__LISTEN", "127.0.0.1:0"),
                ("FINISHLINE__API__OPEN_ON_LOOPBACK", "true"),
                ("FINISHLINE__ENGINE__BASE_URL", "http://127.0.0.1:9"),
                ("FINISHLINE__ENGINE__AUTH__TOKEN_URL", ""),
                ("FINISHLINE__DATABASE__URL", &database),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().expect("the binary");
        let output = process.stdout.take().expect("its output");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("a line");
        let address = |name: &str| {
            let value = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            value.unwrap_or_else(|| panic!("no {name} in {line:?}")).to_owned()
        };
        let doors = Doors::new(address("callbacks="), address("api="), key(folder).await);
        Self { process, doors }
    }

    /// `None`: the machine has no such program.
    fn limit_file_size(&self, bytes: &str) -> Option<()> {
        let pid = self.process.id().to_string();
        let limit = format!("--fsize={bytes}:unlimited");
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        set.is_ok_and(|status| status.success()).then_some(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill().expect("SIGKILL");
        self.process.wait().expect("its end");
    }
}

async fn key(folder: &Folder) -> [u8; 32] {
    let mut connection = stranger(&folder.database()).await;
    let row = sqlx::query("select signing_key from instance").fetch_one(&mut connection).await;
    let key: Vec<u8> = row.and_then(|row| row.try_get(0)).expect("a key");
    key.try_into().expect("32 bytes")
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

#[tokio::test]
async fn killed_with_callbacks_in_the_spool_the_next_start_takes_them_in_once() {
    let folder = Folder::new();
    let program = Program::start(&folder).await;
    let mut lock = stranger(&folder.database()).await;
    run(&mut lock, "begin exclusive").await;
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(new_job());
    }
    let calls = jobs.iter().map(|job| program.doors.call_back(*job, result_body("killed")));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!((answer.status, answer.outcome()), (200, "spooled"), "{answer:?}");
    }
    drop(program);
    run(&mut lock, "rollback").await;
    let program = Program::start(&folder).await;
    program.doors.until_taken_in().await;
    for job in jobs {
        let deliveries = program.doors.deliveries(job).await;
        assert_eq!(deliveries.len(), 1, "{deliveries:?}");
        assert_eq!(deliveries[0]["repeats"], 0, "{deliveries:?}");
    }
}

#[tokio::test]
async fn after_write_errors_of_the_disk_the_service_goes_on_by_itself() {
    let folder = Folder::new();
    let program = Program::start(&folder).await;
    let filler = result_body(&"x".repeat(200_000));
    while size(&folder.file("test.db-wal")) < 2 * 1024 * 1024 {
        let answer = program.doors.call_back(new_job(), filler.clone()).await;
        assert_eq!(answer.outcome(), "stored", "{answer:?}");
    }
    let mut jobs = Vec::new();
    for _ in 0..3 {
        // The write-ahead log cannot grow; the spool, below that size, works.
        if program.limit_file_size("1048576").is_none() {
            return skip("prlimit is not to be had");
        }
        for _ in 0..3 {
            let job = new_job();
            let answer = program.doors.call_back(job, result_body("fails")).await;
            assert_eq!((answer.status, answer.outcome()), (200, "spooled"), "{answer:?}");
            jobs.push(job);
        }
        until("the next probe finds it", || async { !program.doors.is_database_ready().await })
            .await;
        program.limit_file_size("unlimited").expect("no limit");
        program.doors.until_taken_in().await;
        let job = new_job();
        let answer = program.doors.call_back(job, result_body("works")).await;
        assert_eq!(answer.outcome(), "stored", "{answer:?}");
        jobs.push(job);
    }
    for job in jobs {
        assert_eq!(program.doors.deliveries(job).await.len(), 1);
    }
}
