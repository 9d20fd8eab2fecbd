//! A disk that is full: a small tmpfs, which only root can mount.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use finishline::store::{Lookup, StoreError};
use tempfile::TempDir;

use super::support::{
    Service, arrival, close_store, new_job, open_spool, open_store, result_body, skip, waiting,
};

/// A file system of its own, unmounted in the end.
struct Disk(TempDir);

impl Disk {
    /// `None`: it cannot be had here.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        skip("a tmpfs cannot be mounted (are you root?)");
        None
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Takes the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.file("filler");
        let mut filler = fs::File::create(&path).expect("a file");
        for size in [64 * 1024, 4096, 1] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the tmpfs stays mounted");
    }
}

fn free(filler: &Path) {
    fs::remove_file(filler).expect("the filler");
}

#[tokio::test]
async fn with_a_full_disk_callbacks_go_to_the_spool_and_are_taken_in_once_there_is_room() {
    let Some(disk) = Disk::mount("8m") else { return };
    let database = disk.file("test.db");
    let service = Service::start(&database, &[]).await;
    let body = |word: &str| result_body(&format!("{word} {}", "x".repeat(10_000)));
    let before = new_job();
    assert_eq!(service.call_back(before, body("before")).await.outcome(), "stored");

    let mut jobs = Vec::new();
    for round in 0..2 {
        let filler = disk.fill();
        let mut spooled = 0;
        for number in 0..30 {
            let job = new_job();
            let answer = service.call_back(job, body(&format!("{round} {number}"))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            spooled += usize::from(answer.outcome() == "spooled");
            jobs.push(job);
        }
        assert!(spooled >= 25, "the disk is full, but only {spooled} were spooled");
        let job = service.get(&format!("/v1/jobs/{before}")).await;
        assert_eq!(job.status, 200, "reads go on: {job:?}");
        free(&filler);
        service.until_taken_in().await;
        let after = new_job();
        assert_eq!(service.call_back(after, body("after")).await.outcome(), "stored");
        jobs.push(after);
    }
    for job in jobs {
        let deliveries = service.deliveries(job).await;
        assert_eq!(deliveries.len(), 1, "{deliveries:?}");
        assert_eq!(deliveries[0]["repeats"], 0, "{deliveries:?}");
    }
    assert!(service.is_database_ready().await);
    service.stop().await;
}

#[tokio::test]
async fn the_writer_works_again_when_a_full_disk_has_room_again() {
    let Some(disk) = Disk::mount("4m") else { return };
    let store = open_store(&disk.file("test.db")).await;
    let first = new_job();
    store.0.receive(arrival(first, result_body("first"))).await.expect("room");
    for _ in 0..3 {
        let filler = disk.fill();
        let large = arrival(new_job(), vec![b' '; 256 * 1024]);
        let refused = store.0.receive(large).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(matches!(store.0.job(first).await, Ok(Lookup::Found(_))), "reads go on");
        free(&filler);
        let job = new_job();
        store.0.receive(arrival(job, result_body("again"))).await.expect("room again");
        assert!(matches!(store.0.job(job).await, Ok(Lookup::Found(_))));
    }
    close_store(store).await;
}

#[tokio::test]
async fn a_spool_writes_to_the_last_byte_of_its_room_on_a_full_disk() {
    let Some(disk) = Disk::mount("4m") else { return };
    let spool = open_spool(&disk.file("spool"), 1024 * 1024);
    let filler = disk.fill();
    let mut appended = 0;
    while spool.append(&arrival(new_job(), vec![b'x'; 10_000])).await.is_ok() {
        appended += 1;
    }
    assert!(appended > 90, "{appended}");
    assert!(spool.state().bytes_free < 11_000);
    assert_eq!(waiting(&spool).await.len(), appended);
    spool.close().await;
    // A restart needs no room either, even one that asks for more.
    let spool = open_spool(&disk.file("spool"), 16 * 1024 * 1024);
    for (number, _) in waiting(&spool).await {
        spool.mark_done(number).await.expect("settled");
    }
    spool.wipe().await.expect("wiped");
    assert_eq!(spool.state().bytes, 1024 * 1024, "it keeps what it has");
    spool.append(&arrival(new_job(), result_body("again"))).await.expect("room");
    spool.close().await;
    free(&filler);
}

#[tokio::test]
async fn a_disk_without_room_for_the_spool_stops_the_start_and_keeps_its_room() {
    let Some(disk) = Disk::mount("1m") else { return };
    let refused = finishline::store::spool::Spool::open(
        &disk.file("spool"),
        2 * 1024 * 1024,
        None,
        super::support::now(),
    );
    let error = refused.err().expect("no room").to_string();
    assert!(error.contains("spool.size"), "{error}");
    assert_eq!(fs::read_dir(disk.0.path()).expect("the disk").count(), 0);
}
