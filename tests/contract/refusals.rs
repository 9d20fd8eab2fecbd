//! What a submission is answered when the Engine cannot or will not take it: the contract's table
//! row by row, each from the fault itself.
//!
//! The invariant of every row: the job stays on record with the status of its row, and what may be
//! running is never sent again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::post};
use finishline::simulator::{FaultRate, Options, Simulator};
use jiff::Timestamp;
use serde_json::Value;

use crate::support::*;

/// Long enough for several attempts, if one were made.
const GENEROUS: &str = "5s";

/// Submits a job that is not taken; answers its problem and the job on record.
async fn refused(service: &Service, status: u16, code: &str, job_status: &str) -> (Answer, Value) {
    let answer = service.submit(&ready_job()).await;
    let problem = answer.problem(status, code);
    let job = service.job(text(&problem["jobId"])).await;
    assert_eq!(job["status"], job_status, "{problem}");
    assert_eq!((&job["engineJobId"], &job["submittedAt"]), (&Value::Null, &Value::Null));
    assert_eq!((job["overdue"].as_bool(), job["deliveries"].as_u64()), (Some(false), Some(0)));
    let events = service.get(&format!("/v1/jobs/{}/events", text(&job["id"]))).await.json();
    let last = events["events"].as_array().expect("a timeline").last().expect("an event");
    assert_eq!(last["type"], format!("job.{job_status}"));
    (answer, problem)
}

/// A service with a generous retry budget and an Engine that misbehaves.
async fn with_fault(fault: impl FnOnce(&mut Options)) -> Service {
    Setup::new().set("ENGINE__RETRY_BUDGET", GENEROUS).engine(fault).start().await
}

#[track_caller]
fn assert_asked(engine: &Simulator, submissions: usize, accepted: usize) {
    assert_eq!(engine.requests().submissions, submissions, "submissions at the Engine");
    assert_eq!(engine.jobs().len(), accepted, "jobs the Engine accepted");
}

#[tokio::test]
async fn a_refusal_of_the_engine_is_shown_with_its_words_and_final() {
    let service = with_fault(|_| {}).await;
    let codes = [400, 402, 404, 405, 406, 409, 410, 413, 415, 418, 422, 431, 451, 499];
    for (position, code) in codes.into_iter().enumerate() {
        service.engine.set(|options| options.answer = Some(code));
        let (_, problem) = refused(&service, 422, "engine-rejected", "rejected").await;
        assert_eq!(problem["engineStatus"], code);
        let words = problem["engineBody"]["error"].as_str();
        assert!(words.is_some_and(|words| words.contains(&code.to_string())), "{problem}");
        let job = service.job(text(&problem["jobId"])).await;
        assert_eq!(job["engineResponse"], problem["engineBody"]);
        assert_asked(&service.engine, position + 1, 0);
    }
}

#[tokio::test]
async fn a_second_401_or_403_means_that_the_engine_does_not_let_us_in() {
    for code in [401, 403] {
        let service = with_fault(|options| options.answer = Some(code)).await;
        let (_, problem) = refused(&service, 502, "engine-auth", "unsent").await;
        assert_eq!(problem["engineStatus"], code);
        assert_asked(&service.engine, 2, 0);
        assert_eq!(service.engine.tokens_issued(), 2, "one fresh token, and no more");
    }
    let without_token = Setup::new().set("ENGINE__AUTH__TOKEN_URL", "").start().await;
    refused(&without_token, 502, "engine-auth", "unsent").await;
    assert_asked(&without_token.engine, 1, 0);
    let service = with_fault(|options| options.revoke_tokens = FaultRate::Always).await;
    refused(&service, 502, "engine-auth", "unsent").await;
    assert_eq!(service.engine.requests().unauthorized, 2);
    assert_asked(&service.engine, 2, 0);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    for status in [400, 401, 403, 404, 500, 503] {
        let service = with_fault(|options| {
            options.refuse_tokens = FaultRate::Always;
            options.token_status = status;
        })
        .await;
        let (_, problem) = refused(&service, 502, "engine-auth", "unsent").await;
        assert_eq!(problem.get("engineStatus"), None, "the Engine itself was not asked");
        assert_asked(&service.engine, 0, 0);
        assert!(service.engine.requests().tokens > 0, "the endpoint was asked");
    }
    let dead = format!("http://{}/oauth/token", dead_port().await);
    let unset = ("ENGINE__AUTH__CLIENT_SECRET", String::new());
    for (name, value) in [("ENGINE__AUTH__TOKEN_URL", dead), unset] {
        let service = Setup::new().set(name, value).start().await;
        refused(&service, 502, "engine-auth", "unsent").await;
        assert_asked(&service.engine, 0, 0);
    }
}

#[tokio::test]
async fn a_busy_engine_is_passed_on_with_the_time_it_names() {
    for (code, named, told) in [(429, None, "30"), (429, Some(7), "7"), (503, Some(7), "7")] {
        let setup = Setup::new().engine(|options| {
            (options.answer, options.retry_after) = (Some(code), named);
        });
        let service = setup.start().await;
        let (answer, problem) = refused(&service, 503, "engine-busy", "unsent").await;
        assert_eq!(answer.header("retry-after"), Some(told));
        assert_eq!(problem["engineStatus"], code);
        assert_asked(&service.engine, 1, 0);
    }
}

#[tokio::test]
async fn a_busy_engine_may_name_a_date() {
    let date = Timestamp::now() + jiff::SignedDuration::from_secs(90);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date);
    let busy = move || {
        let date = date.expect("a date in reach");
        async move { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", date)]) }
    };
    let origin = serve(Router::new().route("/24.06/job", post(busy))).await;
    let setup = Setup::new().set("ENGINE__BASE_URL", format!("{origin}/24.06"));
    let service = setup.start().await;
    let (answer, _) = refused(&service, 503, "engine-busy", "unsent").await;
    let seconds: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((60..=90).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn an_engine_that_cannot_be_reached_has_certainly_not_taken_the_job() {
    // Plain http answers there, so that TLS fails.
    let plain = free_port().await;
    let without_tls = format!("https://{}/24.06", plain.local_addr().expect("an address"));
    tokio::spawn(axum::serve(plain, Router::new()).into_future());
    let addresses = [
        format!("http://{}/24.06", dead_port().await),
        "http://no-such-host.invalid/24.06".to_owned(),
        without_tls,
    ];
    for address in addresses {
        let service = Setup::new().set("ENGINE__BASE_URL", &address).start().await;
        let (_, problem) = refused(&service, 502, "engine-unavailable", "unsent").await;
        assert_eq!(problem.get("engineStatus"), None, "{address}");
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = Service::start().await.engine;
    let target = format!("{}/job", elsewhere.base_url());
    for code in [300, 301, 302, 303, 307, 308] {
        let service = with_fault(|options| {
            (options.redirect_to, options.answer) = (Some(target.clone()), Some(code));
        })
        .await;
        let (_, problem) = refused(&service, 502, "engine-unavailable", "unsent").await;
        assert_eq!(problem["engineStatus"], code);
        assert_asked(&service.engine, 1, 0);
    }
    assert_asked(&elsewhere, 0, 0);
}

#[tokio::test]
async fn an_engine_that_failed_may_have_taken_the_job_and_is_not_asked_twice() {
    for is_taken in [false, true] {
        let service = with_fault(|options| options.answer_after_accept = is_taken).await;
        for (position, code) in [408, 500, 501, 502, 503, 504, 507, 599].into_iter().enumerate() {
            service.engine.set(|options| options.answer = Some(code));
            let (_, problem) = refused(&service, 502, "engine-unavailable", "unconfirmed").await;
            assert_eq!(problem["engineStatus"], code);
            let asked = position + 1;
            assert_asked(&service.engine, asked, if is_taken { asked } else { 0 });
        }
    }
}

#[tokio::test]
async fn a_connection_lost_after_sending_leaves_the_job_unconfirmed() {
    type Fault = fn(&mut Options);
    let faults: [(Fault, usize); 3] = [
        (|options| options.close_before_accept = FaultRate::Always, 0),
        (|options| options.lose_reply = FaultRate::Always, 1),
        (|options| options.half_reply = FaultRate::Always, 1),
    ];
    for (fault, accepted) in faults {
        let service = with_fault(fault).await;
        refused(&service, 502, "engine-unavailable", "unconfirmed").await;
        assert_asked(&service.engine, 1, accepted);
    }
}

#[tokio::test]
async fn no_answer_in_time_leaves_the_job_unconfirmed() {
    type Fault = fn(&mut Options);
    let faults: [(Fault, usize); 3] = [
        (|options| options.hang = FaultRate::Always, 0),
        (|options| (options.hang, options.answer_after_accept) = (FaultRate::Always, true), 1),
        (|options| options.reply_delay = Duration::from_secs(60), 1),
    ];
    for (fault, accepted) in faults {
        let setup = Setup::new().set("ENGINE__TIMEOUT", "250ms").engine(fault);
        let service = setup.set("ENGINE__RETRY_BUDGET", GENEROUS).start().await;
        let (_, problem) = refused(&service, 504, "engine-timeout", "unconfirmed").await;
        assert_eq!(problem.get("engineStatus"), None);
        assert_asked(&service.engine, 1, accepted);
    }
}

#[tokio::test]
async fn the_callback_settles_a_job_whose_reply_was_lost() {
    let service = with_fault(|options| options.lose_reply = FaultRate::Always).await;
    let (_, problem) = refused(&service, 502, "engine-unavailable", "unconfirmed").await;
    assert!(service.engine.finish(&service.engine.jobs()[0].engine_job_id));
    let job = service.job_with_status(text(&problem["jobId"]), "succeeded").await;
    assert_eq!(job["success"], true);
}

#[tokio::test]
async fn what_was_certainly_not_taken_is_sent_again_within_the_budget() {
    let setup = Setup::new().set("ENGINE__RETRY_BUDGET", GENEROUS).engine(|options| {
        (options.answer, options.answer_rate) = (Some(429), FaultRate::First(1));
        options.retry_after = Some(0);
    });
    let service = setup.start().await;
    let job = service.submitted(&ready_job()).await;
    assert_eq!(job["status"], "submitted");
    assert_asked(&service.engine, 2, 1);
    assert_eq!(service.engine.tokens_issued(), 1);
    assert_eq!(service.jobs().await.len(), 1, "two attempts are one job");
}

#[tokio::test]
async fn a_budget_that_does_not_last_until_the_named_time_is_not_begun() {
    for (budget, retry_after) in [("0s", Some(0)), ("0s", None), (GENEROUS, Some(6))] {
        let setup = Setup::new().set("ENGINE__RETRY_BUDGET", budget).engine(|options| {
            (options.answer, options.answer_rate) = (Some(429), FaultRate::First(1));
            options.retry_after = retry_after;
        });
        let service = setup.start().await;
        refused(&service, 503, "engine-busy", "unsent").await;
        assert_asked(&service.engine, 1, 0);
    }
}

#[tokio::test]
async fn an_unreachable_engine_is_tried_again_as_long_as_the_budget_lasts() {
    for (budget, expected) in [("0s", 1), ("700ms", 2)] {
        let attempts = Arc::new(AtomicUsize::new(0));
        let listener = free_port().await;
        let address = format!("https://{}/24.06", listener.local_addr().expect("an address"));
        let counted = Arc::clone(&attempts);
        // A connection that ends before TLS stands carried nothing.
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let setup = Setup::new().set("ENGINE__BASE_URL", address);
        let service = setup.set("ENGINE__RETRY_BUDGET", budget).start().await;
        refused(&service, 502, "engine-unavailable", "unsent").await;
        assert_eq!(attempts.load(Ordering::SeqCst), expected, "{budget}");
    }
}
