//! The file: what survives torn writes, damage, restarts and other sizes.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use finishline::store::{
    SpoolMark,
    spool::{Spool, SpoolError, SpoolOpenError},
};

use super::support::{
    Folder, KIB, arrival, assert_same, holds, new_job, now, open_spool, result_body, waiting,
};

const SIZE: u64 = 64 * KIB;

/// Where the first record begins.
const START: usize = 4096;

fn assert_zero(path: &Path, from: usize) {
    let bytes = fs::read(path).expect("the file");
    let first = bytes.iter().skip(from).position(|byte| *byte != 0);
    assert_eq!(first, None, "everything from {from} on is zero");
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_appended() {
    let folder = Folder::new();
    let whole = arrival(new_job(), result_body("whole"));
    let mut broken_gzip = arrival(new_job(), result_body("reads as a result"));
    broken_gzip.reading =
        finishline::domain::result::Reading::Malformed("broken gzip: so it is".into());
    let empty = arrival(new_job(), Vec::new());
    let spool = open_spool(&folder.spool(), SIZE);
    for one in [&whole, &broken_gzip, &empty] {
        spool.append(one).await.expect("room");
    }
    spool.close().await;
    let found = waiting(&open_spool(&folder.spool(), SIZE)).await;
    assert_eq!(found.len(), 3);
    for ((_, found), appended) in found.iter().zip([&whole, &broken_gzip, &empty]) {
        assert_same(found, appended);
    }
}

#[tokio::test]
async fn a_record_torn_at_any_byte_is_never_taken_for_whole_and_those_before_it_are() {
    let folder = Folder::fast();
    let spool = open_spool(&folder.spool(), SIZE);
    let arrivals = ["one", "two", "three"].map(|word| arrival(new_job(), result_body(word)));
    let mut ends = Vec::new();
    for arrival in &arrivals {
        spool.append(arrival).await.expect("room");
        ends.push((SIZE - spool.state().bytes_free) as usize);
    }
    spool.close().await;
    let whole = fs::read(folder.spool()).expect("the file");
    let last_byte = whole.iter().rposition(|byte| *byte != 0).expect("a record");
    assert!(last_byte < ends[2] && last_byte > ends[1]);

    let torn = folder.file("torn");
    for cut in ends[1]..=last_byte + 1 {
        let mut never_written = whole.clone();
        never_written[cut..].fill(0);
        let mut garbage = whole.clone();
        garbage[cut..ends[2]].fill(0xA5);
        let mut backwards = whole.clone();
        backwards[ends[1]..cut].fill(0);
        let cut_off = whole[..cut].to_vec();
        let is_whole = cut == last_byte + 1;
        for (kind, bytes, records) in [
            ("zeros", never_written, if is_whole { 3 } else { 2 }),
            ("garbage", garbage, if is_whole { 3 } else { 2 }),
            ("pages written out of order", backwards, if cut == ends[1] { 3 } else { 2 }),
            ("a shorter file", cut_off, if is_whole { 3 } else { 2 }),
        ] {
            fs::write(&torn, bytes).expect("a copy");
            let spool = open_spool(&torn, SIZE);
            let found = waiting(&spool).await;
            assert_eq!(found.len(), records, "{kind} from byte {cut} on");
            for ((_, found), appended) in found.iter().zip(&arrivals) {
                assert_same(found, appended);
            }
            spool.close().await;
            assert_zero(&torn, if records == 3 { ends[2] } else { ends[1] });
        }
    }
}

#[tokio::test]
async fn a_damaged_record_costs_only_itself() {
    let folder = Folder::new();
    let spool = open_spool(&folder.spool(), SIZE);
    let mut ends = vec![START];
    for word in ["one", "two", "three"] {
        spool.append(&arrival(new_job(), result_body(word))).await.expect("room");
        ends.push((SIZE - spool.state().bytes_free) as usize);
    }
    spool.close().await;
    // Once in the header, once in the payload.
    for place in [ends[1] + 9, ends[1] + 80] {
        let copy = folder.file("damaged");
        fs::copy(folder.spool(), &copy).expect("a copy");
        let file = fs::OpenOptions::new().read(true).write(true).open(&copy).expect("the copy");
        // Another byte than the one that is there, which may be any.
        let mut byte = [0];
        file.read_exact_at(&mut byte, place as u64).expect("a byte");
        file.write_all_at(&[!byte[0]], place as u64).expect("a byte of damage");
        let spool = open_spool(&copy, SIZE);
        let found = waiting(&spool).await;
        let words: Vec<_> =
            found.iter().map(|(_, found)| String::from_utf8_lossy(&found.body)).collect();
        assert_eq!(words.len(), 2, "{words:?}");
        assert!(words[0].contains("one") && words[1].contains("three"), "{words:?}");
        spool.close().await;
    }
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_its_room_is_really_allocated() {
    let folder = Folder::new();
    let spool = open_spool(&folder.spool(), 1024 * KIB);
    let meta = fs::metadata(folder.spool()).expect("the file");
    assert_eq!(meta.mode() & 0o777, 0o600);
    assert_eq!(meta.len(), 1024 * KIB);
    assert!(meta.blocks() * 512 >= 1024 * KIB, "{} blocks", meta.blocks());
    assert!(!folder.file("test.db-spool-new").exists());
    spool.close().await;
}

#[tokio::test]
async fn wiping_leaves_zeros_and_the_allocation() {
    let folder = Folder::new();
    let spool = open_spool(&folder.spool(), SIZE);
    for word in ["one", "two"] {
        spool.append(&arrival(new_job(), result_body(word))).await.expect("room");
    }
    let numbers: Vec<u64> = waiting(&spool).await.iter().map(|(number, _)| *number).collect();
    spool.mark_done(numbers[0]).await.expect("settled");
    spool.wipe().await.expect("nothing to do yet");
    assert!(holds(&folder.spool(), b"\"one\""), "a record that waits keeps all of them");
    spool.mark_done(numbers[1]).await.expect("settled");
    spool.wipe().await.expect("wiped");
    assert!(spool.state().is_wiped);
    assert_zero(&folder.spool(), START);
    let meta = fs::metadata(folder.spool()).expect("the file");
    assert!(meta.len() == SIZE && meta.blocks() * 512 >= SIZE);
    spool.append(&arrival(new_job(), result_body("three"))).await.expect("room again");
    assert!(waiting(&spool).await[0].0 > numbers[1], "numbers go on growing");
    spool.close().await;
}

#[tokio::test]
async fn a_full_spool_refuses_and_keeps_what_it_has() {
    let folder = Folder::new();
    let spool = open_spool(&folder.spool(), SIZE);
    let big = vec![b' '; 20 * KIB as usize];
    let mut appended = 0;
    while spool.append(&arrival(new_job(), big.clone())).await.is_ok() {
        appended += 1;
    }
    assert_eq!(appended, 2);
    let refused = spool.append(&arrival(new_job(), big.clone())).await;
    assert!(matches!(refused, Err(SpoolError::Full)), "{refused:?}");
    spool.append(&arrival(new_job(), result_body("small"))).await.expect("room for a small one");
    spool.close().await;
    assert_eq!(waiting(&open_spool(&folder.spool(), SIZE)).await.len(), 3);
}

#[tokio::test]
async fn appends_at_once_are_all_there_each_under_a_number_of_its_own() {
    let folder = Folder::new();
    let spool = open_spool(&folder.spool(), 1024 * KIB);
    let appends = (0..300).map(|word| {
        let (spool, arrival) = (&spool, arrival(new_job(), result_body(&word.to_string())));
        async move { spool.append(&arrival).await.expect("room") }
    });
    futures_util::future::join_all(appends).await;
    spool.close().await;
    let found = waiting(&open_spool(&folder.spool(), 1024 * KIB)).await;
    assert_eq!(found.len(), 300);
    assert!(found.is_sorted_by(|one, next| one.0 < next.0));
}

#[tokio::test]
async fn numbers_are_above_what_the_database_knows_even_if_the_clock_was_set_back() {
    let folder = Folder::new();
    let spool = open_spool(&folder.spool(), SIZE);
    let mark = Some(SpoolMark { spool: spool.id(), number: u64::MAX / 4 });
    spool.close().await;
    let spool = Spool::open(&folder.spool(), SIZE, mark, now()).expect("a spool");
    spool.append(&arrival(new_job(), result_body("later"))).await.expect("room");
    assert!(waiting(&spool).await[0].0 > u64::MAX / 4);
    spool.close().await;
}

#[tokio::test]
async fn another_size_is_taken_on_once_the_leftovers_are_out() {
    for wanted in [16 * KIB, 256 * KIB] {
        let folder = Folder::new();
        let spool = open_spool(&folder.spool(), SIZE);
        spool.append(&arrival(new_job(), vec![b' '; 30 * KIB as usize])).await.expect("room");
        spool.close().await;
        let spool = open_spool(&folder.spool(), wanted);
        assert_eq!(spool.state().bytes, SIZE, "not while a record waits");
        let found = waiting(&spool).await;
        assert_eq!(found.len(), 1);
        spool.mark_done(found[0].0).await.expect("settled");
        spool.wipe().await.expect("wiped");
        let meta = fs::metadata(folder.spool()).expect("the file");
        assert_eq!((spool.state().bytes, meta.len()), (wanted, wanted));
        assert!(meta.blocks() * 512 >= wanted);
        spool.close().await;
        let spool = open_spool(&folder.spool(), SIZE);
        assert_eq!(spool.state().bytes, SIZE, "at once when nothing waits");
        spool.close().await;
    }
}

#[tokio::test]
async fn a_file_that_is_no_spool_is_left_alone() {
    let folder = Folder::new();
    let text = "something of value ".repeat(1000);
    fs::write(folder.spool(), &text).expect("a file");
    let refused = Spool::open(&folder.spool(), SIZE, None, now());
    assert!(matches!(refused, Err(SpoolOpenError::Foreign(_))));
    assert_eq!(fs::read_to_string(folder.spool()).expect("the file"), text);
}

#[tokio::test]
async fn a_spool_serves_one_process_at_a_time() {
    let folder = Folder::new();
    let spool = open_spool(&folder.spool(), SIZE);
    let second = Spool::open(&folder.spool(), SIZE, None, now());
    assert!(matches!(second, Err(SpoolOpenError::InUse(_))));
    spool.close().await;
    open_spool(&folder.spool(), SIZE).close().await;
}
