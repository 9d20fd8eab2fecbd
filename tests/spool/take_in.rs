//! Taking in: each record once, whatever happened to process, spool or database in between.

use std::{fs, path::Path};

use finishline::{
    domain::{delivery::Outcome, ids::JobId},
    store::{Arrival, Lookup, Receipt, Spooled, Store},
};

use super::support::{
    Folder, KIB, arrival, close_store, holds, intake, new_job, open_spool, open_store, result_body,
    run, stranger, waiting,
};

const SIZE: u64 = 64 * KIB;

/// What was received for a job: outcome and repeats of each delivery.
async fn received(store: &dyn Store, job: JobId) -> Vec<(Outcome, u64)> {
    match store.deliveries(job, None, 200).await.expect("a database") {
        Lookup::Found(found) => found.rows.iter().map(|one| (one.outcome, one.repeats)).collect(),
        _ => Vec::new(),
    }
}

async fn events(store: &dyn Store, job: JobId) -> Vec<String> {
    match store.events(job, None, 200).await.expect("a database") {
        Lookup::Found(found) => found.rows.into_iter().map(|event| event.kind).collect(),
        _ => Vec::new(),
    }
}

/// A spool with these arrivals in it, and nobody using it.
async fn filled(path: &Path, arrivals: &[Arrival]) {
    let spool = open_spool(path, SIZE);
    for arrival in arrivals {
        spool.append(arrival).await.expect("room");
    }
    spool.close().await;
}

#[tokio::test]
async fn killed_anywhere_in_a_take_in_each_record_is_taken_in_once() {
    let folder = Folder::new();
    let (one, other) = (new_job(), new_job());
    let arrivals = [
        arrival(one, result_body("first")),
        arrival(other, result_body("other")),
        arrival(one, result_body("first")),
        arrival(one, "not json"),
        arrival(one, "not json"),
        arrival(one, result_body("first")),
    ];
    for killed_after in 0..=arrivals.len() {
        let database = folder.file(&format!("{killed_after}.db"));
        let path = folder.file(&format!("{killed_after}.spool"));
        filled(&path, &arrivals).await;

        // Committed, but the spool does not know of it yet.
        let (store, writer) = open_store(&database).await;
        let spool = open_spool(&path, SIZE);
        for (number, arrival) in waiting(&spool).await.into_iter().take(killed_after) {
            let spooled = Spooled { arrival, spool: spool.id(), number, is_oldest: true };
            store.receive_spooled(spooled).await.expect("committed");
        }
        spool.close().await;
        close_store((store, writer)).await;

        let (store, writer) = open_store(&database).await;
        let intake = intake(store.clone(), open_spool(&path, SIZE));
        assert_eq!(intake.drain().await.expect("a working store"), 6);
        assert!(intake.spool_state().expect("a spool").is_wiped);
        assert_eq!(intake.drain().await.expect("nothing to do"), 0);
        let repeats: u64 = received(&*store, one).await.iter().map(|(_, repeats)| repeats).sum();
        assert_eq!(received(&*store, one).await.len(), 2, "killed after {killed_after}");
        // Two of the result; the one of the malformed body is not counted from the spool.
        assert_eq!(repeats, 2, "killed after {killed_after}");
        assert_eq!(received(&*store, other).await, [(Outcome::Stored, 0)]);
        let spooled = events(&*store, other).await;
        assert_eq!(spooled, ["job.recovered", "job.finished", "delivery.spooled"]);
        let mut stranger = stranger(&database).await;
        let orders: i64 = sqlx::query_scalar("select count(*) from relays")
            .fetch_one(&mut stranger)
            .await
            .expect("a database");
        assert_eq!(orders, 2, "each result is passed on once");
        intake.close(std::future::ready(())).await;
        close_store((store, writer)).await;
    }
}

#[tokio::test]
async fn an_arrival_that_the_store_committed_late_is_not_counted_again() {
    let folder = Folder::new();
    let (store, writer) = open_store(&folder.database()).await;
    let job = new_job();
    let [first, again, malformed] =
        [result_body("first"), result_body("first"), b"not json".to_vec()]
            .map(|body| arrival(job, body));
    for arrival in [&first, &again, &malformed] {
        store.receive(arrival.clone()).await.expect("stored after all");
    }
    filled(&folder.spool(), &[first, again, malformed]).await;
    let intake = intake(store.clone(), open_spool(&folder.spool(), SIZE));
    assert_eq!(intake.drain().await.expect("a working store"), 3);
    assert_eq!(received(&*store, job).await, [(Outcome::Stored, 1), (Outcome::Malformed, 0)]);
    assert!(!events(&*store, job).await.contains(&"delivery.spooled".to_owned()));
    intake.close(std::future::ready(())).await;
    close_store((store, writer)).await;
}

#[tokio::test]
async fn a_spool_from_elsewhere_is_taken_in_whatever_number_the_mark_has() {
    let folder = Folder::new();
    let job = new_job();
    filled(&folder.spool(), &[arrival(job, result_body("from elsewhere"))]).await;
    // This database has taken in another spool, further than this one's numbers go.
    filled(&folder.file("other"), &[arrival(new_job(), result_body("its own"))]).await;
    let store = open_store(&folder.database()).await;
    let its_own = intake(store.0.clone(), open_spool(&folder.file("other"), SIZE));
    its_own.drain().await.expect("a working store");
    its_own.close(std::future::ready(())).await;

    let intake = intake(store.0.clone(), open_spool(&folder.spool(), SIZE));
    assert_eq!(intake.drain().await.expect("a working store"), 1);
    assert_eq!(received(&*store.0, job).await, [(Outcome::Stored, 0)]);
    intake.close(std::future::ready(())).await;
    close_store(store).await;
}

#[tokio::test]
async fn an_older_database_beside_a_newer_spool_gets_what_waits_and_what_comes() {
    let folder = Folder::new();
    let [before, after, later] = [new_job(), new_job(), new_job()];
    let backup = folder.file("backup.db");
    close_store(open_store(&folder.database()).await).await;
    fs::copy(folder.database(), &backup).expect("a backup");

    filled(&folder.spool(), &[arrival(before, result_body("before"))]).await;
    let store = open_store(&folder.database()).await;
    let first = intake(store.0.clone(), open_spool(&folder.spool(), SIZE));
    first.drain().await.expect("a working store");
    first.close(std::future::ready(())).await;
    drop(first);
    close_store(store).await;
    filled(&folder.spool(), &[arrival(after, result_body("after"))]).await;

    fs::copy(&backup, folder.database()).expect("restored");
    let store = open_store(&folder.database()).await;
    assert_eq!(store.0.spool_mark().await.expect("a working store"), None);
    let second = intake(store.0.clone(), open_spool(&folder.spool(), SIZE));
    assert_eq!(second.drain().await.expect("a working store"), 1);
    assert_eq!(received(&*store.0, after).await, [(Outcome::Stored, 0)]);
    second.close(std::future::ready(())).await;
    filled(&folder.spool(), &[arrival(later, result_body("later"))]).await;
    let third = intake(store.0.clone(), open_spool(&folder.spool(), SIZE));
    third.drain().await.expect("a working store");
    assert_eq!(received(&*store.0, later).await, [(Outcome::Stored, 0)]);
    third.close(std::future::ready(())).await;
    close_store(store).await;
}

#[tokio::test]
async fn a_record_that_alone_is_refused_keeps_no_other_waiting_and_is_not_lost() {
    let folder = Folder::new();
    let store = open_store(&folder.database()).await;
    let jobs = [new_job(), new_job(), new_job()];
    let mut arrivals = jobs.map(|job| arrival(job, result_body("some word")));
    arrivals[0].source = "refused".into();
    filled(&folder.spool(), &arrivals).await;
    let mut stranger = stranger(&folder.database()).await;
    run(
        &mut stranger,
        "create trigger refusal before insert on deliveries when new.source = 'refused'
         begin select raise(abort, 'refused'); end",
    )
    .await;
    let mut killed = intake(store.0.clone(), open_spool(&folder.spool(), SIZE));
    for is_killed in [true, false] {
        killed.drain().await.expect_err("one is refused");
        assert_eq!(killed.spool_state().expect("a spool").records, 1);
        assert_eq!(received(&*store.0, jobs[1]).await, [(Outcome::Stored, 0)]);
        assert_eq!(received(&*store.0, jobs[2]).await, [(Outcome::Stored, 0)]);
        if is_killed {
            // The file knows nothing of what was taken in behind the one that waits.
            killed.close(std::future::ready(())).await;
            killed = intake(store.0.clone(), open_spool(&folder.spool(), SIZE));
            assert_eq!(killed.spool_state().expect("a spool").records, 3);
        }
    }
    run(&mut stranger, "drop trigger refusal").await;
    assert_eq!(killed.drain().await.expect("nothing is refused"), 1);
    assert_eq!(received(&*store.0, jobs[0]).await, [(Outcome::Stored, 0)]);
    assert!(!holds(&folder.spool(), b"some word"));
    killed.close(std::future::ready(())).await;
    close_store(store).await;
}

#[tokio::test]
async fn the_spooled_callback_of_an_erased_job_leaves_nothing() {
    let folder = Folder::new();
    let store = open_store(&folder.database()).await;
    let job = new_job();
    let first = store.0.receive(arrival(job, result_body("first"))).await.expect("stored");
    assert!(matches!(first, Receipt::Kept { .. }));
    filled(&folder.spool(), &[arrival(job, result_body("late word"))]).await;
    let target = finishline::store::EraseTarget::Job(job);
    store.0.erase(target, super::support::now()).await.expect("erased");
    let intake = intake(store.0.clone(), open_spool(&folder.spool(), SIZE));
    assert_eq!(intake.drain().await.expect("a working store"), 1);
    assert!(matches!(store.0.job(job).await, Ok(Lookup::Erased)));
    assert!(matches!(store.0.events(job, None, 200).await, Ok(Lookup::Erased)));
    assert!(!holds(&folder.spool(), b"late word"));
    intake.close(std::future::ready(())).await;
    close_store(store).await;
}
