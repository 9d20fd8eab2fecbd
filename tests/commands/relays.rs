//! Looking at orders, and ordering again.

use axum::{http::StatusCode, response::IntoResponse};
use serde_json::{Value, json as json_of};

use crate::{
    ask, assert_failed, json,
    receiver::{Receiver, SECRET},
    shown,
    support::{Service, Setup, ready_job, run_program, text, wait_for},
};

/// A service whose only target wants no more, and the orders that died of it, newest first.
async fn with_dead(count: usize) -> (Service, Receiver, Vec<Value>) {
    let receiver = Receiver::start().await;
    receiver.answering(|_| (StatusCode::GONE, "no more of this").into_response());
    let target = json_of!([{ "name": "app", "url": receiver.url, "secret": SECRET }]);
    let service = Setup::new().set("RELAY__TARGETS", target).start().await;
    for _ in 0..count {
        let job = service.submitted(&ready_job()).await;
        service.finish(&job).await;
    }
    let dead = wait_for("the orders to die", async || {
        let page = service.get("/v1/relays?state=dead").await.json();
        let dead = page["relays"].as_array().unwrap().clone();
        Some(dead).filter(|dead| dead.len() == count)
    })
    .await;
    (service, receiver, dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_and_shown_with_their_attempts() {
    let (service, _receiver, dead) = with_dead(3).await;
    let table = ask(&service, &["relays", "list", "--state", "dead"]).await;
    let lines: Vec<&str> = shown(&table).lines().collect();
    assert_eq!(lines.len(), 4);
    for (line, order) in lines[1..].iter().zip(&dead) {
        assert!(line.starts_with(text(&order["id"])), "{line}");
        assert!(line.contains("dead") && line.contains("410") && line.contains("app"), "{line}");
    }
    let listed = ask(&service, &["relays", "list", "--json", "--limit", "2"]).await;
    assert_eq!(listed.stdout.trim_end(), service.get("/v1/relays?limit=2").await.text());
    let all = json(&ask(&service, &["relays", "list", "--json", "--all"]).await);
    assert_eq!(all, json_of!({ "relays": dead, "nextCursor": null }));
    let of_job = ["relays", "list", "--json", "--job", text(&dead[1]["jobId"])];
    assert_eq!(json(&ask(&service, &of_job).await)["relays"], json_of!([dead[1]]));

    let id = text(&dead[0]["id"]);
    let page = ask(&service, &["relays", "show", id]).await;
    for fact in [id, text(&dead[0]["webhookId"]), "dead", "410", "no more of this"] {
        assert!(shown(&page).contains(fact), "{fact}: {}", page.stdout);
    }
    let detail = service.get(&format!("/v1/relays/{id}")).await.json();
    assert_eq!(json(&ask(&service, &["relays", "show", id, "--json"]).await), detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_orders_are_counted_and_ordered_again() {
    let (service, receiver, dead) = with_dead(3).await;
    let dry = ask(&service, &["relays", "resend", "--state", "dead", "--dry-run"]).await;
    assert_eq!(shown(&dry), "would be ordered again: 3\n");
    let dry = ["relays", "resend", "--target", "app", "--dry-run", "--json"];
    let dry = ask(&service, &dry).await;
    assert_eq!(json(&dry), json_of!({ "relays": 3, "dryRun": true }));

    receiver.answering(|_| StatusCode::NO_CONTENT.into_response());
    let id = text(&dead[2]["id"]);
    let one = json(&ask(&service, &["relays", "resend", id, "--json"]).await);
    assert_eq!(one["id"], dead[2]["id"]);
    wait_for("the one", async || (receiver.taken().len() == 1).then_some(())).await;
    let all = ask(&service, &["relays", "resend", "--state", "dead"]).await;
    assert_eq!(shown(&all), "ordered again: 2\n");
    wait_for("all of them", async || (receiver.taken().len() == 3).then_some(())).await;
    let one = ask(&service, &["relays", "resend", id]).await;
    assert_eq!(shown(&one), format!("ordered again: {id}\n"));
}

#[tokio::test]
async fn the_secret_of_a_host_is_shown_offline_and_alike_for_all_its_spellings() {
    let folder = tempfile::tempdir().unwrap();
    let secret = async |host: &str| {
        let environment = [("FINISHLINE__RELAY__SECRET", SECRET)];
        run_program(folder.path(), &["relays", "secret", host], &environment).await
    };
    // HMAC-SHA256 over the host, keyed with the 32 bytes of SECRET, made with openssl.
    for (spellings, expected) in [
        (
            &["app.example.com", "APP.Example.COM", "app.example.com:8443", "app.example.com."][..],
            "Qui8TAIP13qQ3HNU0Tf0eTslYot8t279Y/Zier1WxTE=",
        ),
        (&["https://app.example.com/hook?x=1"], "Qui8TAIP13qQ3HNU0Tf0eTslYot8t279Y/Zier1WxTE="),
        (
            &["bücher.example", "xn--bcher-kva.example", "BÜCHER.example:1"],
            "aM/GMsvz6aVP0xSCHPiQErdcdENYQfYaknLOqzhnKMQ=",
        ),
        (&["127.0.0.1", "0x7f.1"], "eCJu1oiBG6/GEMN7ZTcUZQk3FsDcuRq8N5o38W5lvzY="),
    ] {
        for host in spellings {
            let ended = secret(host).await;
            assert_eq!(shown(&ended), format!("whsec_{expected}\n"), "{host}");
        }
    }
    let args = ["relays", "secret", "App.example.com:1", "--json"];
    let ended = run_program(folder.path(), &args, &[("FINISHLINE__RELAY__SECRET", SECRET)]).await;
    let expected = json_of!({ "host": "app.example.com", "secret": "whsec_Qui8TAIP13qQ3HNU0Tf0eTslYot8t279Y/Zier1WxTE=" });
    assert_eq!(json(&ended), expected);

    let args = ["relays", "secret", "app.example.com"];
    let ended = run_program(folder.path(), &args, &[]).await;
    assert_failed(&ended, 2, &["relay.secret is empty"]);
    for wrong in ["", ".", "a b", "me@app.example.com", "ftp://app.example.com", "[::1"] {
        let ended = secret(wrong).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{wrong}");
    }
}
