//! Replies to submissions that are lost, halved, late or something else.

use finishline::simulator::{FaultRate, Simulator};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{ready_job, start, submit, token, within};

/// Sends a submission on a raw socket and returns every byte of the answer until the connection ends.
async fn raw_submission(simulator: &Simulator) -> Vec<u8> {
    let mut stream = send_raw_submission(simulator).await;
    let mut answer = Vec::new();
    // A reset is an end as well.
    within(stream.read_to_end(&mut answer)).await.ok();
    answer
}

async fn send_raw_submission(simulator: &Simulator) -> TcpStream {
    let (token, body) = (token(simulator).await, ready_job("http://127.0.0.1:9/").to_string());
    let address = simulator.origin().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /24.06/job HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_lost_reply_leaves_an_accepted_job_and_not_one_byte() {
    let simulator = start(|options| options.lose_reply = FaultRate::First(1)).await;
    assert_eq!(raw_submission(&simulator).await, b"");
    assert_eq!(simulator.jobs().len(), 1);
    assert_eq!(submit(&simulator, &ready_job("http://127.0.0.1:9/")).await.status(), 200);
}

#[tokio::test]
async fn a_connection_closed_before_accepting_leaves_no_job() {
    let simulator = start(|options| options.close_before_accept = FaultRate::First(1)).await;
    assert_eq!(raw_submission(&simulator).await, b"");
    assert!(simulator.jobs().is_empty());
    assert_eq!(simulator.requests().submissions, 1);
}

#[tokio::test]
async fn half_a_reply_ends_before_its_announced_length() {
    let simulator = start(|options| options.half_reply = FaultRate::Always).await;
    let answer = String::from_utf8(raw_submission(&simulator).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    assert_eq!(simulator.jobs().len(), 1);
}

#[tokio::test]
async fn a_hanging_submission_is_never_answered_and_ends_with_the_simulator() {
    let simulator = start(|options| options.hang = FaultRate::Always).await;
    let mut stream = send_raw_submission(&simulator).await;
    within(simulator.wait_until(|simulator| simulator.requests().submissions == 1)).await;
    assert!(
        stream
            .try_read(&mut [0; 1])
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    );
    within(simulator.clone().stop()).await;
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.ok();
    assert_eq!(answer, b"");
    assert!(simulator.jobs().is_empty());
}

#[tokio::test]
async fn an_answer_by_option_is_given_as_often_as_told() {
    let simulator = start(|options| {
        options.answer = Some(503);
        options.answer_rate = FaultRate::First(2);
        options.retry_after = Some(7);
    })
    .await;
    let job = ready_job("http://127.0.0.1:9/");
    for _ in 0..2 {
        let reply = submit(&simulator, &job).await;
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.headers()["retry-after"], "7");
    }
    assert!(simulator.jobs().is_empty());
    assert_eq!(submit(&simulator, &job).await.status(), 200);

    simulator.set(|options| {
        options.answer = None;
        options.redirect_to = Some("http://127.0.0.1:9/elsewhere".into());
        options.answer_rate = FaultRate::First(1);
        options.answer_after_accept = true;
    });
    let reply = submit(&simulator, &job).await;
    assert_eq!(reply.status(), 307);
    assert_eq!(reply.headers()["location"], "http://127.0.0.1:9/elsewhere");
    assert_eq!(simulator.jobs().len(), 2);
}
