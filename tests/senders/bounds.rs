//! What jobs, results and lists hold is bounded, so that nobody can fill the memory with them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    program::{DEADLINE, Program, Setup, alone, json},
    wire::{Sender, head},
};

const MIB: usize = 1024 * 1024;

/// What the process may have at most, whatever is sent to it and asked of it.
const MOST_BYTES: u64 = 256 * MIB as u64;

/// Senders and readers of each kind at a time.
const AT_ONCE: usize = 4;

/// The largest body that is taken.
const RESULT_BYTES: usize = 16 * MIB;

/// Bodies of a mebibyte, as many-sided as they may be.
fn submissions() -> Vec<(&'static str, String)> {
    let structures = |count: usize, chars: usize| {
        let one = |number: usize| format!("\"{number:0>chars$}\"");
        (0..count).map(one).collect::<Vec<_>>().join(",")
    };
    let input = r#""inputFiles":{"cbct":{"extension":".dcm"}}"#;
    let links: Vec<String> = (0..100)
        .map(|number| {
            let link = format!("https://s/{}", "a".repeat(4_000));
            format!(r#""i{number}":{{"extension":".dcm","downloadUrl":"{link}"}}"#)
        })
        .collect();
    let wide = format!(r#"{{"structures":[{}]}}"#, structures(200, 2));
    let long = format!(r#"{{"structures":[{}]}}"#, structures(180, 256));
    let many = |one: &str, count: usize| vec![one; count].join(",");
    let members: String = (0..90_000).map(|number| format!("\"k{number}\":0,")).collect();
    vec![
        ("outputs", format!(r#"{{{input},"outputFiles":{{"m":[{}]}}}}"#, many(&wide, 900))),
        ("structures", format!(r#"{{{input},"outputFiles":{{"m":[{}]}}}}"#, many(&long, 20))),
        (
            "links",
            format!(
                r#"{{"inputFiles":{{{}}},"outputFiles":{{"m":[{}]}}}}"#,
                links.join(","),
                many("0", 1_000)
            ),
        ),
        ("members", format!(r#"{{{members}{input},"outputFiles":{{"m":{{}}}}}}"#)),
        ("small", format!(r#"{{{input},"outputFiles":{{"m":[{}]}}}}"#, many("0", 1_000))),
        ("too many", format!(r#"{{{input},"outputFiles":{{"m":[{}]}}}}"#, many("0", 500_000))),
    ]
}

/// Results of 16 MiB, each made of something else.
fn results() -> Vec<(&'static str, Arc<[u8]>)> {
    let filled = |before: &str, one: &str, after: &str| -> Arc<[u8]> {
        let room = RESULT_BYTES - before.len() - after.len();
        let mut body = before.as_bytes().to_vec();
        body.extend(one.repeat(room / one.len()).bytes());
        body.extend(after.bytes());
        body.into()
    };
    let outputs = r#"{"success":true,"outputFiles":{"m":["#;
    let linked = format!(r#"{{"status":"Available","url":"https://s/{}"}},"#, "a".repeat(2_000));
    let deep = RESULT_BYTES / 2 - 100;
    vec![
        ("outputs", filled(outputs, r#"{"status":"Available"},"#, "{}]}}")),
        ("links", filled(outputs, &linked, "{}]}}")),
        ("members", filled("{", r#""":0,"#, r#""success":true}"#)),
        ("escapes", filled(r#"{"success":true,"jobId":""#, "\\u0001", r#""}"#)),
        (
            "nesting",
            format!(r#"{{"success":true,"x":{}{}}}"#, "[".repeat(deep), "]".repeat(deep))
                .into_bytes()
                .into(),
        ),
    ]
}

/// Asks for something; the status and how many bytes came, which nobody keeps.
async fn fetch(api: SocketAddr, path: &str, accept: &str) -> (u16, usize) {
    let mut stream = TcpStream::connect(api).await.expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut piece = vec![0; 64 * 1024];
    let (mut status, mut bytes) = (0, 0);
    while let Ok(read) = timeout(DEADLINE, stream.read(&mut piece)).await.expect("in time") {
        if bytes == 0 {
            let line = String::from_utf8_lossy(&piece[..read.min(16)]).into_owned();
            status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        }
        if read == 0 {
            break;
        }
        bytes += read;
    }
    (status, bytes)
}

/// Everything that lists or shows, all at once; how often each status came.
async fn look_around(service: &Program, ids: &[String]) -> BTreeMap<u16, usize> {
    let mut looks = JoinSet::new();
    let lists = ["/v1/jobs?limit=200", "/v1/jobs", "/jobs", "/jobs?limit=200", "/v1/relays"];
    let mut paths: Vec<String> = lists.map(str::to_owned).into();
    for id in ids {
        let of_job = ["", "/events?limit=200", "/deliveries?limit=200", "/result", "/outputs"];
        paths.extend(of_job.map(|what| format!("/v1/jobs/{id}{what}")));
        paths.push(format!("/jobs/{id}"));
    }
    let api = service.api;
    for _ in 0..2 {
        looks.spawn(async move { fetch(api, "/v1/jobs", "application/x-ndjson").await });
    }
    let mut statuses = BTreeMap::new();
    let count = |(status, _): (u16, usize), statuses: &mut BTreeMap<u16, usize>| {
        *statuses.entry(status).or_default() += 1;
    };
    for path in paths {
        while looks.len() >= AT_ONCE * 2 {
            count(looks.join_next().await.expect("one").expect("no panic"), &mut statuses);
        }
        looks.spawn(async move { fetch(api, &path, "*/*").await });
    }
    while let Some(answer) = looks.join_next().await {
        count(answer.expect("no panic"), &mut statuses);
    }
    statuses
}

async fn submit_all(service: &Program) -> BTreeMap<&'static str, Vec<u16>> {
    let mut senders = JoinSet::new();
    for (name, body) in submissions() {
        assert!(body.len() <= MIB, "{name}: {}", body.len());
        let body: Arc<str> = body.into();
        for _ in 0..AT_ONCE {
            let (api, body) = (service.api, body.clone());
            senders.spawn(async move {
                let mut sender = Sender::connect(api).await;
                let length = format!("content-length: {}\r\n", body.len());
                sender.send(head("/v1/jobs", &length)).await;
                let answer = sender.send_until_answered(body.as_bytes()).await;
                (name, answer.expect("an answer").status)
            });
        }
    }
    let mut statuses: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    while let Some(ended) = senders.join_next().await {
        let (name, status) = ended.expect("no panic");
        statuses.entry(name).or_default().push(status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn no_submission_result_or_list_takes_the_process_beyond_its_bound() {
    let _alone = alone().await;
    let setup = Setup::new().set("ENGINE__RETRY_BUDGET", "1ms").set("SPOOL__SIZE", "64MiB");
    let service = setup.start().knowing_its_key().await;
    let peak = |when: &str| {
        let peak = service.peak_memory();
        println!("{when}: at most {} MiB so far", peak / MIB as u64);
        assert!(peak < MOST_BYTES, "{when}: {} MiB", peak / MIB as u64);
    };

    // No Engine is there to take them, so they stay on record as unsent.
    for (name, statuses) in submit_all(&service).await {
        let wanted = if name == "too many" { 422 } else { 502 };
        assert!(statuses.contains(&wanted), "{name}: {statuses:?}");
        assert!(statuses.iter().all(|status| [wanted, 503].contains(status)), "{statuses:?}");
    }
    peak("after the submissions");
    let (_, list) = service.get("/v1/jobs?limit=200").await;
    let mut ids: Vec<String> = Vec::new();
    for job in json(&list)["jobs"].as_array().expect("jobs") {
        ids.push(job["id"].as_str().expect("an id").to_owned());
    }
    let statuses = look_around(&service, &ids).await;
    assert!(statuses.keys().all(|status| [200, 202, 503].contains(status)), "{statuses:?}");
    peak("after the lists of what was submitted");

    for (name, body) in results() {
        let mut senders = JoinSet::new();
        let mut stored = Vec::new();
        for _ in 0..AT_ONCE {
            let (id, path) = service.fresh_callback();
            let (callbacks, body) = (service.callbacks, body.clone());
            senders.spawn(async move {
                let mut sender = Sender::connect(callbacks).await;
                let length = format!("content-length: {}\r\n", body.len());
                sender.send(head(&path, &length)).await;
                (id, sender.send_until_answered(&body).await.expect("an answer").status)
            });
        }
        let looked = look_around(&service, &ids[..ids.len().min(2)]).await;
        assert!(looked.keys().all(|status| [200, 202, 503].contains(status)), "{looked:?}");
        while let Some(ended) = senders.join_next().await {
            let (id, status) = ended.expect("no panic");
            assert!([200, 503].contains(&status), "{name}: {status}");
            if status == 200 {
                stored.push(id.to_string());
            }
        }
        assert!(!stored.is_empty(), "{name}: none found room");
        peak(name);
        ids.splice(0..0, stored.into_iter().take(2));
    }
    ids.truncate(8);
    let statuses = look_around(&service, &ids).await;
    assert!(statuses[&200] > 10, "{statuses:?}");
    peak("after the lists of everything");
    service.honest_callback().await;
    // Nothing answers at the public URL of this test, so it says no more of itself than that.
    let (_, state) = service.get("/readyz").await;
    let checks = &json(&state)["checks"];
    assert_eq!((&checks["database"]["ok"], &checks["spool"]["ok"]), (&true.into(), &true.into()));
}
