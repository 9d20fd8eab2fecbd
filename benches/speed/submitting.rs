//! Submitting: a job that is stored before and after the Engine takes it, beside a proxy that stores
//! nothing. Both ask the same Engine, which answers at once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    ROUNDS, Rounds,
    contenders::Contender,
    engine, host_of, job, judge,
    load::{Load, Make},
    service,
};

const CONNECTIONS: usize = 64;

/// Of one turn at most, whichever comes first.
const TURN_JOBS: usize = 2_000;
const TURN_TIME: Duration = Duration::from_millis(1_000);

/// The least share of the proxy's rate.
const WANTED: f64 = 0.5;

pub async fn measure() {
    println!("submitting: {ROUNDS} turns each, {CONNECTIONS} connections");
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine().await;
    let proxy = Contender::own("proxy", None, &engine);
    let ours = service(folder.path(), &engine, &[]).await;
    let address = host_of(&ours.api).parse().expect("an address");
    let addresses: [SocketAddr; 2] = [address, proxy.address];
    let mut rates = [const { Rounds(Vec::new()) }; 2];
    let mut tails = rates.clone();
    for round in 0..ROUNDS {
        for place in 0..addresses.len() {
            // Each begins in turn.
            let place = (round + place) % addresses.len();
            let load = Load {
                address: addresses[place],
                connections: CONNECTIONS,
                first: 0,
                most: TURN_JOBS,
                time: TURN_TIME,
                rate: None,
            };
            let outcome = load.run(submission(addresses[place])).await;
            assert_eq!(outcome.refused, 0, "every job is taken");
            rates[place].0.push(outcome.rate());
            tails[place].0.push(outcome.percentile(99));
        }
    }
    ours.terminate().await;
    println!("| contender | jobs per second | p99, ms |");
    println!("| --- | --- | --- |");
    for (place, name) in ["finishline", proxy.name].into_iter().enumerate() {
        println!("| {name} | {} | {} |", rates[place].show(), tails[place].show());
    }
    let ratio = rates[0].over(&rates[1]);
    let is_met = ratio.median() >= WANTED;
    judge("jobs submitted, by a proxy", &ratio.show(), &format!(">= {WANTED}"), is_met);
}

/// The same job every time.
fn submission(address: SocketAddr) -> Make {
    let job = job().to_string();
    let request = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{job}",
        job.len()
    );
    Arc::new(move |_| request.clone().into_bytes())
}
