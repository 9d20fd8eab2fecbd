//! Callbacks over HTTP while the database is locked or damaged.

use std::{
    fs,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use finishline::domain::ids::JobId;
use sqlx::{Row, SqliteConnection};

use super::support::{Answer, Folder, Service, holds, new_job, result_body, run, stranger, until};

/// Well before the longest lock ends: `spool.wait` (2 s) and what a busy machine may add.
const PROMPT: Duration = Duration::from_secs(6);

/// Long enough for the writer to be refused (5 s), so that nothing but the spool can answer.
const VERY_LONG: Duration = Duration::from_secs(8);

/// Between two callbacks: a lock of seconds is met by some at its begin, in its midst and at its end.
const PACE: Duration = Duration::from_millis(150);

/// Holds the database for a time, as a backup or an administrator does. The time itself is what is
/// tested: it is compared with the patience of the writer and of the spool.
async fn hold(mut stranger: SqliteConnection, time: Duration) {
    run(&mut stranger, "begin exclusive").await;
    tokio::time::sleep(time).await;
    run(&mut stranger, "rollback").await;
}

async fn locked(folder: &Folder) -> SqliteConnection {
    let mut stranger = stranger(&folder.database()).await;
    run(&mut stranger, "begin exclusive").await;
    stranger
}

/// Callbacks come every 150 ms while another process holds the database; each comes twice.
async fn a_lock_of(time: Duration) {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[]).await;
    let holder = stranger(&folder.database()).await;
    let (started, mut calls) = (Instant::now(), Vec::new());
    let held = tokio::spawn(hold(holder, time));
    while started.elapsed() < time + Duration::from_millis(500) {
        let (doors, job) = (service.clone(), new_job());
        calls.push(tokio::spawn(async move {
            let body = result_body(&job.to_string());
            let answers =
                tokio::join!(doors.call_back(job, body.clone()), doors.call_back(job, body));
            (job, [answers.0, answers.1])
        }));
        tokio::time::sleep(PACE).await;
    }
    held.await.expect("let go");
    let mut jobs = Vec::new();
    let mut spooled = 0;
    for call in calls {
        let (job, answers) = call.await.expect("an answer");
        for answer in &answers {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.took < PROMPT, "{answer:?}");
            spooled += usize::from(answer.outcome() == "spooled");
        }
        jobs.push(job);
    }
    assert!(spooled > 0, "the spool was needed");
    service.until_taken_in().await;
    for job in &jobs {
        let deliveries = service.deliveries(*job).await;
        assert_eq!(deliveries.len(), 1, "{deliveries:?}");
        assert_eq!(deliveries[0]["outcome"], "stored");
        assert_eq!(deliveries[0]["repeats"], 1, "{:?}", service.events(*job).await);
    }
    for job in &jobs {
        assert!(!holds(&folder.spool(), job.to_string().as_bytes()), "the spool is wiped");
    }
    service.stop().await;
}

#[tokio::test]
async fn locked_for_3_seconds_every_callback_is_answered_and_on_record_once() {
    a_lock_of(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn locked_for_8_seconds_every_callback_is_answered_and_on_record_once() {
    a_lock_of(VERY_LONG).await;
}

#[tokio::test]
async fn who_waits_for_a_result_is_answered_when_it_is_taken_in() {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[]).await;
    let job = new_job();
    assert_eq!(service.call_back(job, "{}").await.outcome(), "unrecognised");
    let lock = locked(&folder).await;
    assert_eq!(service.call_back(job, result_body("late")).await.outcome(), "spooled");
    let doors = service.clone();
    let waits =
        tokio::spawn(async move { doors.get(&format!("/v1/jobs/{job}/result?wait=60")).await });
    drop(lock);
    let result = waits.await.expect("an answer");
    assert_eq!((result.status, &result.body["word"]), (200, &"late".into()), "{result:?}");
    assert!(result.took < VERY_LONG * 2, "{result:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_malformed_body_in_the_spool_is_answered_400_and_kept() {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[("SPOOL__WAIT", "100ms")]).await;
    let lock = locked(&folder).await;
    let job = new_job();
    let answer = service.call_back(job, "not json").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.body["code"], "malformed-json");
    assert_eq!(service.spooled().await, 1);
    drop(lock);
    service.until_taken_in().await;
    assert_eq!(service.deliveries(job).await[0]["outcome"], "malformed");
    service.stop().await;
}

#[tokio::test]
async fn a_full_spool_answers_503_with_retry_after_and_claims_nothing() {
    let folder = Folder::new();
    let settings = [("SPOOL__WAIT", "100ms"), ("SPOOL__SIZE", "16KiB")];
    let service = Service::start(&folder.database(), &settings).await;
    let lock = locked(&folder).await;
    let (small, large) = (new_job(), new_job());
    let answer = service.call_back(small, result_body("fits")).await;
    assert_eq!((answer.status, answer.outcome()), (200, "spooled"));
    let answer = service.call_back(large, result_body(&"x".repeat(20 * 1024))).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.body["code"], "storage-unavailable");
    assert!(answer.retry_after.is_some());
    assert_eq!(service.spooled().await, 1);
    drop(lock);
    service.until_taken_in().await;
    assert_eq!(service.deliveries(small).await.len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn without_a_spool_the_answer_is_503_with_retry_after() {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[("SPOOL__SIZE", "0")]).await;
    assert!(!folder.spool().exists());
    let lock = locked(&folder).await;
    let answer = service.call_back(new_job(), result_body("nowhere")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.retry_after.is_some());
    assert!(answer.took < VERY_LONG, "a locked database is no hang: {answer:?}");
    drop(lock);
    let ready = service.get("/readyz").await;
    assert_eq!(ready.body["checks"]["spool"]["detail"], "off", "{ready:?}");
    until("the database is back", || service.is_database_ready()).await;
    service.stop().await;
}

#[tokio::test]
async fn who_comes_while_a_locked_database_is_waited_for_waits_no_second_time() {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[("SPOOL__SIZE", "0")]).await;
    let lock = locked(&folder).await;
    let call = || {
        let doors = service.clone();
        tokio::spawn(async move { doors.call_back(new_job(), result_body("nowhere")).await })
    };
    let first = call();
    // Each comes later than the one before, so that one of them comes while the first is waiting.
    let mut later = Vec::new();
    for _ in 0..20 {
        assert_eq!(service.get("/healthz").await.status, 200);
        later.push(call());
    }
    for call in std::iter::once(first).chain(later) {
        let answer = call.await.expect("an answer");
        assert_eq!((answer.status, answer.retry_after.is_some()), (503, true), "{answer:?}");
        assert!(answer.took < VERY_LONG, "{answer:?}");
    }
    drop(lock);
    until("the database is back", || service.is_database_ready()).await;
    service.stop().await;
}

#[tokio::test]
async fn readiness_tells_of_the_spool_and_is_refused_while_the_database_does_not_write() {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[("SPOOL__WAIT", "100ms")]).await;
    let is_ready = || async { service.get("/readyz").await.status == 200 };
    until("it is ready", is_ready).await;
    let spool = &service.get("/readyz").await.body["checks"]["spool"];
    assert_eq!(spool["records"], 0);
    assert_eq!(spool["bytes"], 1024 * 1024);
    let lock = locked(&folder).await;
    service.call_back(new_job(), result_body("waits")).await;
    until("the next probe finds it", || async { !is_ready().await }).await;
    let ready = service.get("/readyz").await;
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.took < PROMPT, "{ready:?}");
    assert_eq!(ready.body["checks"]["spool"]["records"], 1);
    drop(lock);
    service.until_taken_in().await;
    until("it is ready again", is_ready).await;
    service.stop().await;
}

#[tokio::test]
async fn what_a_stopped_service_left_in_the_spool_is_taken_in_by_the_next() {
    let folder = Folder::new();
    let settings = [("SPOOL__WAIT", "100ms"), ("SERVICE__SHUTDOWN_GRACE", "100ms")];
    let service = Service::start(&folder.database(), &settings).await;
    let lock = locked(&folder).await;
    let jobs = [new_job(), new_job(), new_job()];
    for job in jobs {
        assert_eq!(service.call_back(job, result_body("left")).await.outcome(), "spooled");
    }
    let stopped = tokio::spawn(service.stop());
    // The stop does not wait for the lock, but the writer's last attempt does.
    stopped.await.expect("it stops");
    assert!(holds(&folder.spool(), b"left"));
    drop(lock);
    // Smaller than before: the leftovers come first.
    let service = Service::start(&folder.database(), &[("SPOOL__SIZE", "64KiB")]).await;
    service.until_taken_in().await;
    for job in jobs {
        assert_eq!(service.deliveries(job).await.len(), 1);
        let events = service.events(job).await;
        assert!(events.contains(&"job.finished".to_owned()), "{events:?}");
    }
    service.stop().await;
    assert!(!holds(&folder.spool(), b"left"));
    assert_eq!(fs::metadata(folder.spool()).expect("the spool").len(), 64 * 1024);
}

/// Asks until it is not refused for the moment.
async fn erase(service: &Service, job: JobId) -> Answer {
    loop {
        let answer = service.delete(&format!("/v1/jobs/{job}")).await;
        if answer.status != 503 {
            return answer;
        }
    }
}

#[tokio::test]
async fn an_erasure_reaches_the_spool() {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[]).await;
    let (known, unknown) = (new_job(), new_job());
    assert_eq!(service.call_back(known, result_body("first word")).await.outcome(), "stored");
    let lock = locked(&folder).await;
    for job in [known, unknown] {
        let answer = service.call_back(job, result_body("secret word")).await;
        assert_eq!(answer.outcome(), "spooled");
    }
    drop(lock);
    for job in [known, unknown] {
        let erased = erase(&service, job).await;
        assert_eq!((erased.status, &erased.body["erased"]), (200, &1.into()), "{erased:?}");
        assert_eq!(service.get(&format!("/v1/jobs/{job}")).await.status, 410);
    }
    for name in ["test.db", "test.db-wal", "test.db-spool"] {
        assert!(!holds(&folder.file(name), b"secret word"), "{name}");
    }
    service.stop().await;
}

#[tokio::test]
async fn no_erasure_is_claimed_while_a_record_cannot_be_taken_in() {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[]).await;
    let [erased, refused] = [new_job(), new_job()];
    assert_eq!(service.call_back(erased, result_body("word")).await.outcome(), "stored");
    let mut stranger = stranger(&folder.database()).await;
    run(
        &mut stranger,
        "create trigger refusal before insert on deliveries when new.size_bytes > 1000
         begin select raise(abort, 'refused'); end",
    )
    .await;
    let answer = service.call_back(refused, result_body(&"x".repeat(1000))).await;
    assert_eq!((answer.status, answer.outcome()), (200, "spooled"));
    let answer = service.delete(&format!("/v1/jobs/{erased}")).await;
    assert_eq!((answer.status, answer.retry_after.is_some()), (503, true), "{answer:?}");
    assert_eq!(service.get(&format!("/v1/jobs/{erased}")).await.status, 200);
    assert_eq!(service.call_back(new_job(), result_body("else")).await.outcome(), "stored");
    run(&mut stranger, "drop trigger refusal").await;
    assert_eq!(erase(&service, erased).await.status, 200);
    assert_eq!(service.deliveries(refused).await.len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn a_damaged_database_ends_nothing_and_loses_nothing() {
    let folder = Folder::new();
    let service = Service::start(&folder.database(), &[]).await;
    let (before, during) = (new_job(), new_job());
    assert_eq!(service.call_back(before, result_body("before")).await.outcome(), "stored");

    let mut stranger = stranger(&folder.database()).await;
    run(&mut stranger, "pragma wal_checkpoint(truncate)").await;
    let page = sqlx::query("select rootpage from sqlite_master where name = 'deliveries'")
        .fetch_one(&mut stranger)
        .await
        .and_then(|row| row.try_get::<i64, _>(0))
        .expect("the page that the table begins on");
    let file = fs::OpenOptions::new().read(true).write(true).open(folder.database());
    let file = file.expect("the database");
    let offset = (page as u64 - 1) * 4096;
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, offset).expect("the page");
    file.write_all_at(&[0xA5; 4096], offset).expect("damage");
    // The service's cache would hide the damage: it is dropped when somebody else has written.
    run(&mut stranger, "update instance set probed_at = probed_at + 1").await;

    let answer = service.call_back(during, result_body("during")).await;
    assert_eq!((answer.status, answer.outcome()), (200, "spooled"), "{answer:?}");
    assert!(answer.took < Duration::from_secs(1), "at once: {answer:?}");
    assert_eq!(service.get("/healthz").await.status, 200);

    run(&mut stranger, "pragma wal_checkpoint(truncate)").await;
    file.write_all_at(&page, offset).expect("repaired");
    run(&mut stranger, "update instance set probed_at = probed_at + 1").await;
    service.until_taken_in().await;
    for job in [before, during] {
        assert_eq!(service.deliveries(job).await.len(), 1);
    }
    service.stop().await;
}
