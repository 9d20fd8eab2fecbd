//! `finishline check`: right in every state, told as lines or as one JSON value.

use std::{fs, path::Path};

use finishline::simulator::{Options, Simulator};
use tokio::net::TcpListener;

use super::{
    migrations::make_newer,
    support::{Ended, Service, database, finishline, free_address, names},
};

const SECRET: &str = "hush-hush-hush";

async fn simulator() -> Simulator {
    let options = Options { client_secret: Some(SECRET.into()), ..Options::default() };
    Simulator::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), options).await.unwrap()
}

/// Settings with which everything is fine, for a database in `folder`.
async fn settings(simulator: &Simulator, folder: &Path) -> Vec<(&'static str, String)> {
    let callbacks = free_address().await;
    vec![
        ("CALLBACKS__LISTEN", callbacks.to_string()),
        ("CALLBACKS__PUBLIC_URL", format!("http://{callbacks}")),
        ("API__LISTEN", "127.0.0.1:0".into()),
        ("ENGINE__BASE_URL", simulator.base_url()),
        ("ENGINE__AUTH__TOKEN_URL", simulator.token_url()),
        ("ENGINE__AUTH__CLIENT_ID", "id".into()),
        ("ENGINE__AUTH__CLIENT_SECRET", SECRET.into()),
        ("DATABASE__URL", format!("sqlite://{}", database(folder).display())),
    ]
}

fn set(settings: &mut [(&'static str, String)], key: &str, value: String) {
    settings.iter_mut().find(|(known, _)| *known == key).unwrap().1 = value;
}

async fn check(folder: &Path, settings: &[(&str, String)]) -> Ended {
    let ended = finishline(folder, settings, &["check", "--json"]).await;
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(SECRET), "a secret is shown");
    }
    ended
}

fn expect(ended: &Ended, name: &str, state: &str, words: &str) {
    let (found, detail) = ended.check(name);
    assert_eq!(found, state, "{name}: {detail}");
    assert!(detail.contains(words), "{name}: {detail}");
}

#[tokio::test]
async fn before_the_first_start_everything_is_fine_and_nothing_is_left_behind() {
    let (simulator, folder) = (simulator().await, tempfile::tempdir().unwrap());
    let ended = check(folder.path(), &settings(&simulator, folder.path()).await).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json()["ok"], true);
    expect(&ended, "settings", "warning", "plain http");
    expect(&ended, "database", "ok", "the first start makes it");
    expect(&ended, "token", "ok", "good for 1day");
    expect(&ended, "engine", "ok", "no job was sent");
    expect(&ended, "public URL", "ok", "leads to callbacks.listen");
    assert!(names(folder.path()).is_empty());
    assert!(simulator.jobs().is_empty());
    simulator.stop().await;
}

#[tokio::test]
async fn beside_a_stopped_service_the_database_is_written_for_real() {
    let simulator = simulator().await;
    let folder = Service::start().await.stop().await;
    let settings = settings(&simulator, folder.path()).await;
    let before = fs::read(database(folder.path())).unwrap();
    let ended = check(folder.path(), &settings).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    expect(&ended, "database", "ok", "takes writes; no service is running on it");
    expect(&ended, "public URL", "ok", "leads to callbacks.listen, bodies up to 16 MiB");
    assert!(fs::read(database(folder.path())).unwrap() != before);
    simulator.stop().await;
}

#[tokio::test]
async fn beside_the_running_service_its_own_answer_and_its_own_key_are_used() {
    let (simulator, service) = (simulator().await, Service::start().await);
    let mut settings = settings(&simulator, service.folder.path()).await;
    set(&mut settings, "CALLBACKS__LISTEN", service.callbacks.to_string());
    set(&mut settings, "CALLBACKS__PUBLIC_URL", format!("http://{}", service.callbacks));
    set(&mut settings, "API__LISTEN", service.api.to_string());
    let ended = check(service.folder.path(), &settings).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    expect(&ended, "database", "ok", "its /readyz says that it takes writes");
    expect(&ended, "public URL", "ok", "leads to the running service");

    // The same service, but the public URL of another one.
    let other = Service::start().await;
    set(&mut settings, "CALLBACKS__PUBLIC_URL", format!("http://{}", other.callbacks));
    let ended = check(service.folder.path(), &settings).await;
    assert_eq!(ended.code, Some(1));
    expect(&ended, "public URL", "failed", "another finishline answers there");
    other.stop().await;
    service.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn every_fault_is_told_at_once_and_counts() {
    let (simulator, folder) = (simulator().await, tempfile::tempdir().unwrap());
    let mut settings = settings(&simulator, folder.path()).await;
    set(&mut settings, "CALLBACKS__PUBLIC_URL", format!("http://{}", free_address().await));
    set(&mut settings, "ENGINE__BASE_URL", format!("http://{}/24.06", free_address().await));
    set(&mut settings, "ENGINE__AUTH__CLIENT_SECRET", "another".into());
    set(&mut settings, "DATABASE__URL", "sqlite://no/such/folder/finishline.db".into());
    let ended = check(folder.path(), &settings).await;
    assert_eq!((ended.code, ended.json()["ok"].as_bool()), (Some(1), Some(false)));
    expect(&ended, "database", "failed", "cannot be made");
    expect(&ended, "token", "failed", "refuses the client id or secret");
    expect(&ended, "engine", "failed", "nothing answers there");
    expect(&ended, "public URL", "failed", "nothing answers there");
    assert_eq!(ended.stderr, "finishline: 4 checks failed\n");

    let lines = finishline(folder.path(), &settings, &["check"]).await;
    assert_eq!(lines.code, Some(1));
    let failed = lines.stdout.lines().filter(|line| line.starts_with("failed ")).count();
    assert_eq!((failed, lines.stdout.lines().count()), (4, 5), "{}", lines.stdout);
    simulator.stop().await;
}

#[tokio::test]
async fn a_database_of_a_newer_release_or_of_another_program_is_named() {
    let simulator = simulator().await;
    let folder = Service::start().await.stop().await;
    make_newer(&database(folder.path())).await;
    let settings = settings(&simulator, folder.path()).await;
    let ended = check(folder.path(), &settings).await;
    expect(&ended, "database", "failed", "newer finishline (schema 9999)");
    fs::write(database(folder.path()), "text\n".repeat(1_000)).unwrap();
    let ended = check(folder.path(), &settings).await;
    assert_eq!(ended.code, Some(1));
    expect(&ended, "database", "failed", "not a database");
    simulator.stop().await;
}

#[tokio::test]
async fn a_listener_that_is_taken_is_named() {
    let (simulator, folder) = (simulator().await, tempfile::tempdir().unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&simulator, folder.path()).await;
    set(&mut settings, "CALLBACKS__LISTEN", taken.local_addr().unwrap().to_string());
    let ended = check(folder.path(), &settings).await;
    assert_eq!(ended.code, Some(1));
    expect(&ended, "public URL", "failed", "cannot be listened on");
    simulator.stop().await;
}

#[tokio::test]
async fn without_an_ngrok_agent_it_says_which_command_to_run() {
    let (simulator, folder) = (simulator().await, tempfile::tempdir().unwrap());
    let mut settings = settings(&simulator, folder.path()).await;
    set(&mut settings, "CALLBACKS__PUBLIC_URL", "ngrok".into());
    settings.push(("CALLBACKS__NGROK_API", format!("http://{}", free_address().await)));
    let ended = check(folder.path(), &settings).await;
    expect(&ended, "public URL", "failed", "run `ngrok http ");
    simulator.stop().await;
}

#[tokio::test]
async fn wrong_settings_end_with_2_in_either_form() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("CALLBACKS__LISTEN", "nowhere".to_owned())];
    let ended = check(folder.path(), &settings).await;
    assert_eq!((ended.code, ended.json()["ok"].as_bool()), (Some(2), Some(false)));
    expect(&ended, "settings", "failed", "callbacks.listen = \"nowhere\" is not an address");
    let lines = finishline(folder.path(), &settings, &["check"]).await;
    assert_eq!(lines.code, Some(2));
    assert!(lines.stdout.starts_with("failed   settings"), "{lines:?}");
}
