//! The promises of the settings: what the defaults are, who overrides whom, and what one line an
//! operator reads when something is wrong. Uses `load` alone, as the commands do.
//!
//! Invariant checked throughout: no line holds a secret or a line break.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use finishline::config::{
    ApiListen, Config, ConfigError, EXAMPLE, LogFormat, PublicUrlSetting, ReconcileAfter,
    RunningSetting, Scope, load,
};
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};
use tracing::Level;

/// Stands in every secret of the wrong settings below.
const HUSH: &str = "hush-0123456789-hush-hush";
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Section 9 of the design.
const DESIGN: &str = r#"
[service]
state_dir = ""
shutdown_grace = "10s"
max_connections = 4096
header_timeout = "10s"
idle_timeout = "15s"
keep_alive = "75s"
body_timeout = "60s"
[callbacks]
listen = "127.0.0.1:8085"
public_url = "ngrok"
ngrok_api = "http://127.0.0.1:4040"
max_body = "16MiB"
memory = "48MiB"
inbox_secret = ""
inbox_secret_file = ""
[api]
listen = "127.0.0.1:8086"
public_url = ""
open_on_loopback = false
keys = []
[engine]
base_url = "https://eu.virtualpatientengine.com/24.06"
job_path = ""
result_path = ""
job_id_pointers = ["/jobId", "/id", "/externalJobId"]
running = "auto"
timeout = "30s"
retry_budget = "10s"
default_cloud_package = ""
default_end_user_id = ""
[engine.auth]
token_url = "https://vpengine.eu.auth0.com/oauth/token"
audience = "virtualpatientengine.com"
client_id = ""
client_secret = ""
client_secret_file = ""
[database]
url = "sqlite://finishline.db"
[spool]
path = ""
size = "64MiB"
wait = "2s"
[outbound]
allow_private = false
allow_http = false
[reconcile]
after = "30m"
every = "10m"
give_up = "48h"
[relay]
targets = []
secret = ""
secret_file = ""
allowed_hosts = []
timeout = "15s"
concurrency = 4
schedule = ["5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h"]
[mirror]
store = ""
concurrency = 4
max_file = "2GiB"
[retention]
erase_after = ""
every = "10m"
[log]
format = "text"
level = "info"
"#;

fn file_with(content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    fs::write(&file, content).unwrap();
    (folder, file)
}

fn from_file(content: impl AsRef<[u8]>) -> Result<Config, ConfigError> {
    let (_folder, file) = file_with(content);
    load(Some(&file), std::iter::empty())
}

fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load(None, environment(variables))
}

fn environment(variables: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    variables.iter().map(owned).collect::<Vec<_>>().into_iter()
}

fn defaults() -> Config {
    load(None, std::iter::empty()).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[track_caller]
fn assert_line(result: Result<Config, ConfigError>, fragments: &[&str]) {
    let error = result.expect_err("these settings are wrong");
    let line = error.to_string();
    for fragment in fragments {
        assert!(line.contains(fragment), "{line}\nlacks {fragment}");
    }
    for text in [line, format!("{error:?}")] {
        assert!(!text.contains(['\n', '\r']), "more than one line: {text}");
        assert!(!text.contains("hush"), "a secret is shown: {text}");
    }
}

#[test]
fn the_example_alone_gives_the_defaults() {
    let config = defaults();
    assert_eq!(config.service.shutdown_grace, Duration::from_secs(10));
    assert_eq!(config.service.max_connections, 4096);
    assert_eq!(config.service.header_timeout, Duration::from_secs(10));
    assert_eq!(config.service.idle_timeout, Duration::from_secs(15));
    // Load balancers keep connections for 60 s, and answer 502 when theirs is cut before.
    assert_eq!(config.service.keep_alive, Duration::from_secs(75));
    assert_eq!(config.service.body_timeout, Duration::from_secs(60));
    assert_eq!(config.callbacks.listen, address("127.0.0.1:8085"));
    assert_eq!(config.callbacks.public_url, PublicUrlSetting::Ngrok);
    assert_eq!(config.callbacks.ngrok_api.as_str(), "http://127.0.0.1:4040/");
    assert_eq!(config.callbacks.max_body, 16 * 1024 * 1024);
    assert_eq!(config.callbacks.memory, 48 * 1024 * 1024);
    assert!(config.callbacks.inbox_secret.is_none());
    assert_eq!(config.api.listen, ApiListen::Address(address("127.0.0.1:8086")));
    assert!(config.api.keys.is_empty() && config.api.public_url.is_none());
    assert!(!config.api.open_on_loopback);
    assert_eq!(config.service.state_dir, None);
    assert!(!config.merged());
    assert_eq!(config.engine.job_id_pointers, ["/jobId", "/id", "/externalJobId"]);
    assert_eq!(config.engine.running, RunningSetting::Auto);
    assert_eq!(config.engine.timeout, Duration::from_secs(30));
    assert_eq!(config.engine.default_cloud_package, None);
    assert_eq!(config.engine.auth.audience, "virtualpatientengine.com");
    assert!(config.engine.auth.client_secret.is_none());
    assert_eq!(config.database.path, Path::new("finishline.db"));
    assert_eq!(config.spool.path, None);
    assert_eq!(config.spool.size, 64 * 1024 * 1024);
    assert!(!config.outbound.allow_private && !config.outbound.allow_http);
    assert_eq!(config.reconcile.give_up, Duration::from_secs(48 * 60 * 60));
    assert_eq!(config.relay.concurrency, 4);
    assert_eq!(config.relay.schedule.len(), 9);
    assert_eq!(config.relay.schedule[3], Duration::from_secs(2 * 60 * 60));
    assert_eq!(config.mirror.store, None);
    assert_eq!(config.mirror.concurrency, 4);
    assert_eq!(config.mirror.max_file, 2 * 1024 * 1024 * 1024);
    assert_eq!(config.retention.erase_after, None);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.level.to_string(), "info");
}

#[test]
fn the_example_holds_exactly_the_keys_and_defaults_of_the_design() {
    let design: Table = DESIGN.parse().unwrap();
    let example: Table = EXAMPLE.parse().unwrap();
    assert_eq!(example, design);
}

#[test]
fn the_example_documents_every_key() {
    let lines: Vec<_> = EXAMPLE.lines().collect();
    let mut keys = 0;
    for (index, line) in lines.iter().enumerate() {
        let is_key = !line.starts_with(['#', '[']) && line.contains(" = ");
        if is_key {
            keys += 1;
            assert!(lines[index - 1].starts_with("# "), "{line} has no comment");
        }
    }
    fn count(value: &Value) -> usize {
        value.as_table().map_or(1, |table| table.values().map(count).sum())
    }
    assert_eq!(keys, count(&Value::Table(EXAMPLE.parse().unwrap())));
}

#[test]
fn the_environment_beats_the_file_and_the_file_beats_the_defaults() {
    let (_folder, file) = file_with(
        "[engine]\ntimeout = \"7s\"\nretry_budget = \"3s\"\n[engine.auth]\nclient_id = \"file\"\n",
    );
    let config = load(
        Some(&file),
        environment(&[
            ("FINISHLINE__ENGINE__TIMEOUT", "9s"),
            ("FINISHLINE__ENGINE__AUTH__CLIENT_SECRET", " as it = is \"quoted\" "),
            ("FINISHLINE__OUTBOUND__ALLOW_HTTP", "true"),
            ("FINISHLINE_API", "http://not-a-setting"),
            ("FINISHLINE_KEY", "not-a-setting"),
            ("PATH", "/bin"),
        ]),
    )
    .unwrap();
    assert_eq!(config.engine.timeout, Duration::from_secs(9));
    assert_eq!(config.engine.retry_budget, Duration::from_secs(3));
    assert_eq!(config.engine.auth.client_id, "file");
    let secret = config.engine.auth.client_secret.unwrap();
    assert_eq!(secret.expose(), " as it = is \"quoted\" ");
    assert!(config.outbound.allow_http && !config.outbound.allow_private);
    assert_eq!(config.reconcile.after, ReconcileAfter::Fixed(Duration::from_secs(30 * 60)));
}

#[test]
fn every_setting_can_be_set_in_the_environment() {
    fn collect(table: &Table, prefix: &str, variables: &mut Vec<(String, String)>) {
        for (name, value) in table {
            let name = format!("{prefix}__{}", name.to_uppercase());
            match value {
                Value::Table(section) => collect(section, &name, variables),
                Value::String(text) => variables.push((name, text.clone())),
                other => variables.push((name, serde_json::to_string(other).unwrap())),
            }
        }
    }
    let mut variables = Vec::new();
    collect(&EXAMPLE.parse().unwrap(), "FINISHLINE", &mut variables);
    assert!(variables.len() > 40);
    let config = load(None, variables.into_iter()).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", defaults()));
}

#[test]
fn lists_in_the_environment_are_json() {
    let keys = r#"[{"name": "backend", "key": "0123456789abcdefghijkl", "scopes": ["read", "submit", "read"]}]"#;
    let targets = format!(
        r#"[{{"name": "app", "url": "https://app.example.com/in?token=t", "secret": "{WEBHOOK_SECRET}"}}]"#
    );
    let config = from_environment(&[
        ("FINISHLINE__API__KEYS", keys),
        ("FINISHLINE__RELAY__TARGETS", &targets),
        ("FINISHLINE__RELAY__SCHEDULE", r#"["1s", "2m"]"#),
        (
            "FINISHLINE__RELAY__ALLOWED_HOSTS",
            r#"["App.example.com:443", "[::1]", "127.0.0.1:80", "*"]"#,
        ),
        ("FINISHLINE__ENGINE__JOB_ID_POINTERS", "[]"),
    ])
    .unwrap();
    let key = &config.api.keys[0];
    let digest: [u8; 32] = Sha256::digest(b"0123456789abcdefghijkl").into();
    assert_eq!(key.name, "backend");
    assert_eq!(key.digest, digest);
    assert_eq!(key.scopes, [Scope::Submit, Scope::Read]);
    let target = &config.relay.targets[0];
    assert_eq!(target.url.as_str(), "https://app.example.com/in?token=t");
    assert_eq!(target.secrets[0].expose(), WEBHOOK_SECRET);
    assert_eq!(config.relay.schedule, [Duration::from_secs(1), Duration::from_secs(120)]);
    let hosts = ["app.example.com:443", "[::1]", "127.0.0.1:80", "*"];
    assert_eq!(config.relay.allowed_hosts, hosts);
    assert!(config.engine.job_id_pointers.is_empty());
}

#[test]
fn a_key_may_be_given_as_its_digest_and_has_every_scope_unless_narrowed() {
    let digest = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08";
    let config =
        from_file(format!("[api]\nkeys = [{{ name = \"a\", key_sha256 = \"{digest}\" }}]"))
            .unwrap();
    let expected: [u8; 32] = Sha256::digest(b"test").into();
    assert_eq!(config.api.keys[0].digest, expected);
    assert_eq!(config.api.keys[0].scopes, Scope::ALL);
}

#[test]
fn keys_and_targets_may_be_written_as_tables() {
    let config = from_file(format!(
        "[[api.keys]]\nname = \"a\"\nkey = \"0123456789abcdefghijkl\"\n\
         [[relay.targets]]\nname = \"app\"\nurl = \"http://10.0.0.7/in\"\n\
         secrets = [\"{WEBHOOK_SECRET}\", \"whsec_QUJD\"]\n"
    ))
    .unwrap();
    assert_eq!(config.relay.targets[0].secrets.len(), 2);
    assert_eq!(config.api.keys.len(), 1);
}

#[test]
fn values_of_every_kind_are_read() {
    let config = from_file(
        r#"
        [service]
        shutdown_grace = "0s"
        [callbacks]
        listen = "[::1]:0"
        public_url = "https://hooks.example.com/finishline/"
        max_body = "1KiB"
        inbox_secret = "0123456789-_.~aZbYcXdW"
        [api]
        listen = "127.0.0.1:0"
        public_url = "https://portal.example.com/finishline"
        [engine]
        running = "success-false"
        default_cloud_package = "testing"
        [engine.auth]
        token_url = ""
        [database]
        url = "sqlite:///var/lib/finishline/finishline.db"
        [spool]
        path = "/spool/file"
        size = "0"
        wait = "0s"
        [mirror]
        store = "s3://bucket/prefix"
        [retention]
        erase_after = "90d"
        [log]
        format = "json"
        level = "warn,finishline::engine=debug"
        "#,
    )
    .unwrap();
    let PublicUrlSetting::Fixed(url) = &config.callbacks.public_url else {
        panic!("a fixed URL was set");
    };
    assert_eq!(url.as_str(), "https://hooks.example.com/finishline/");
    let portal = "https://portal.example.com/finishline";
    assert_eq!(config.api.public_url.as_ref().map(|url| url.as_str()), Some(portal));
    assert_eq!(config.callbacks.max_body, 1024);
    assert_eq!(config.callbacks.inbox_secret.unwrap().expose(), "0123456789-_.~aZbYcXdW");
    assert_eq!(config.engine.running, RunningSetting::SuccessFalse);
    assert_eq!(config.engine.default_cloud_package.as_deref(), Some("testing"));
    assert_eq!(config.engine.auth.token_url, None);
    assert_eq!(config.database.path, Path::new("/var/lib/finishline/finishline.db"));
    assert_eq!(config.spool.path.as_deref(), Some(Path::new("/spool/file")));
    assert_eq!(config.spool.size, 0);
    assert_eq!(config.mirror.store.as_deref(), Some("s3://bucket/prefix"));
    assert_eq!(config.retention.erase_after, Some(Duration::from_secs(90 * 24 * 60 * 60)));
    assert_eq!(config.log.format, LogFormat::Json);
    let is_logged = |target, level| config.log.level.would_enable(target, &level);
    assert!(is_logged("finishline::engine::token", Level::DEBUG));
    assert!(is_logged("finishline::http", Level::WARN));
    assert!(!is_logged("finishline::http", Level::INFO));
}

#[test]
fn a_wrong_setting_is_one_line_that_says_what_would_be_right() {
    // One case a line; the first text is what is set, the others are what the line must hold.
    #[rustfmt::skip]
    let cases: &[(&str, &[&str])] = &[
        ("[reconcile]\nafter = \"soon\"", &[r#"reconcile.after = "soon" is not a duration: write it like "30s", "15m", "48h" or "90d""#]),
        ("[reconcile]\nafter = 30", &["reconcile.after = 30 is not a duration: write it like"]),
        ("[reconcile]\nafter = \"30\"", &["reconcile.after = \"30\" is not a duration"]),
        ("[reconcile]\nevery = \"0s\"", &["reconcile.every = \"0s\" is too short", "longer than zero"]),
        ("[reconcile]\ngive_up = \"200y\"", &["reconcile.give_up = \"200y\" is too long"]),
        ("[reconcile]\naftr = \"1m\"", &["reconcile.aftr is not a setting: did you mean reconcile.after?"]),
        ("[callback]\nlisten = \"127.0.0.1:1\"", &["callback is not a setting: did you mean callbacks?"]),
        ("[engine]\nclient_id = \"x\"", &["engine.client_id is not a setting: did you mean engine.auth.client_id?"]),
        ("[engine]\nclient_secrt = \"hush\"", &["engine.client_secrt is not a setting"]),
        ("colour = \"hush\"", &["colour is not a setting: config.example.toml lists them all"]),
        ("\"two\\nlines\" = 1", &["two\\nlines is not a setting"]),
        ("[relay.timeout]\nvalue = \"1s\"", &["relay.timeout = { … } is not a duration"]),
        ("[engine]\nauth = \"hush\"", &["engine.auth is a section", "write its settings under [engine.auth]"]),
        ("api = [\"hush\"]", &["api is a section", "[api]"]),
        ("[relay]\nschedule = \"5s\"", &["relay.schedule = \"5s\" is not a list", "[\"…\", \"…\"]"]),
        ("[relay]\nschedule = [\"5s\", \"later\"]", &["relay.schedule[1] = \"later\" is not a duration"]),
        ("[outbound]\nallow_http = \"yes\"", &["outbound.allow_http = \"yes\" is not a boolean: write true or false"]),
        ("[callbacks]\nlisten = \"localhost:8085\"", &["callbacks.listen = \"localhost:8085\"", "no host name", "\"127.0.0.1:8085\""]),
        ("[callbacks]\nlisten = 8085", &["callbacks.listen = 8085", "write an IP address"]),
        ("[api]\nlisten = \"everywhere\"", &["api.listen = \"everywhere\"", "\"same\" for the callbacks listener"]),
        ("[service]\nmax_connections = 0", &["service.max_connections = 0 is out of range", "between 1 and 1000000"]),
        ("[relay]\nconcurrency = 0", &["relay.concurrency = 0 is out of range", "between 1 and 256"]),
        ("[service]\nmax_connections = \"many\"", &["service.max_connections = \"many\" is not a whole number: write it like 4096"]),
        ("[service]\nheader_timeout = \"0s\"", &["service.header_timeout = \"0s\" is too short"]),
        ("[callbacks]\nmemory = \"1MiB\"", &["callbacks.memory is smaller than callbacks.max_body"]),
        ("[callbacks]\nmax_body = \"16 megs\"", &["callbacks.max_body = \"16 megs\" is not a size: write it like \"512KiB\""]),
        ("[callbacks]\nmax_body = \"1023\"", &["callbacks.max_body = \"1023\" is out of range", "between 1KiB and 1GiB"]),
        ("[callbacks]\nmax_body = \"1025MiB\"", &["callbacks.max_body", "between 1KiB and 1GiB"]),
        ("[callbacks]\npublic_url = \"hooks.example.com\"", &["callbacks.public_url = \"hooks.example.com\" is not a public URL", "\"ngrok\""]),
        ("[callbacks]\npublic_url = \"ftp://hooks.example.com\"", &["callbacks.public_url", "https://hooks.example.com"]),
        ("[callbacks]\npublic_url = \"https:hooks.example.com\"", &["callbacks.public_url", "is not a public URL"]),
        ("[callbacks]\npublic_url = \"https://hooks.example.com/?token=hush\"", &["callbacks.public_url = \"https://hooks.example.com/?[redacted]\"", "query"]),
        ("[callbacks]\npublic_url = \"https://hooks.example.com/#hush\"", &["#[redacted]", "fragment"]),
        ("[callbacks]\npublic_url = \"https://me:hush@hooks.example.com\"", &["\"https://[redacted]@hooks.example.com\"", "user or password"]),
        ("[callbacks]\npublic_url = \"https://me:hush#?hush@hooks.example.com:x\"", &["https://[redacted]@hooks.example.com:x", "is not a public URL"]),
        ("[callbacks]\nngrok_api = \"127.0.0.1:4040\"", &["callbacks.ngrok_api = \"127.0.0.1:4040\" is not a URL"]),
        ("[callbacks]\ninbox_secret = \"hush\"", &["callbacks.inbox_secret = [redacted] is too short", "22 characters"]),
        ("[callbacks]\ninbox_secret = \"hush/hush hush/hush\"", &["callbacks.inbox_secret = [redacted]", "letters, digits"]),
        ("[engine]\nbase_url = \"\"", &["engine.base_url = \"\" is not a URL: write it like"]),
        ("[engine]\njob_path = \"job\"", &["engine.job_path = \"job\" is not a route: write it like \"/job\""]),
        ("[engine]\nresult_path = \"/job\"", &["engine.result_path = \"/job\"", "\"/job/{id}\""]),
        ("[engine]\njob_id_pointers = [\"/id\", \"jobId\"]", &["engine.job_id_pointers[1] = \"jobId\" is not a JSON pointer: write it like \"/jobId\""]),
        ("[engine]\nrunning = 202", &["engine.running = 202", "\"202\"", "\"success-false\""]),
        ("[engine]\ntimeout = \"0ms\"", &["engine.timeout = \"0ms\" is too short"]),
        ("[engine.auth]\ntoken_url = \"auth0\"", &["engine.auth.token_url = \"auth0\" is not a URL"]),
        ("[engine.auth]\nclient_secret = 12345678", &["engine.auth.client_secret = [redacted] is not a text: write it in quotes"]),
        ("[engine.auth]\nclient_secret = { value = \"hush\" }", &["engine.auth.client_secret = [redacted]"]),
        ("[engine.auth]\nclient_secret = \"hush\"\nclient_secret_file = \"/secret\"", &["engine.auth.client_secret_file = \"/secret\"", "leave one out"]),
        ("[engine.auth]\nclient_secret_file = \"/not/there\"", &["engine.auth.client_secret_file = \"/not/there\" cannot be read: No such file"]),
        ("[database]\nurl = \"postgres://me:hush@host/db\"", &["database.url = \"postgres://[redacted]@host/db\" is not a database", "\"sqlite://finishline.db\""]),
        ("[database]\nurl = \"sqlite::memory:\"", &["database.url = \"sqlite::memory:\"", "sqlite:///var/lib"]),
        ("[database]\nurl = \"sqlite://\"", &["database.url = \"sqlite://\""]),
        ("[spool]\nsize = \"-1\"", &["spool.size = \"-1\" is not a size"]),
        ("[spool]\nsize = \"1EiB\"", &["spool.size = \"1EiB\" is too large"]),
        ("[mirror]\nstore = \"/var/files\"", &["mirror.store = \"/var/files\" is not a file store", "\"s3://bucket/prefix\""]),
        ("[mirror]\nstore = \"az://\"", &["mirror.store = \"az://\" is not a file store", "\"gs://bucket/prefix\""]),
        ("[mirror]\nconcurrency = 0", &["mirror.concurrency = 0 is out of range"]),
        ("[mirror]\nmax_file = \"0\"", &["mirror.max_file = \"0\" is too small"]),
        ("[relay]\nallowed_hosts = [\"https://a.example.com\"]", &["relay.allowed_hosts[0] = \"https://a.example.com\" is not a host", "\"app.example.com:8443\""]),
        ("[relay]\nallowed_hosts = [\"*.example.com\"]", &["relay.allowed_hosts[0]", "\"*\" for any"]),
        ("[relay]\nallowed_hosts = [\"\"]", &["relay.allowed_hosts[0] = \"\""]),
        ("[relay]\nsecret = \"hush\"", &["relay.secret = [redacted] is not a webhook secret", "whsec_"]),
        ("[relay]\nsecret = \"whsec_hush!\"", &["relay.secret = [redacted]", "base64"]),
        ("[relay]\ntargets = [\"https://hush\"]", &["relay.targets[0] = [redacted] is not a target", "{ name ="]),
        ("[relay]\ntargets = [{ name = \"app\" }]", &["relay.targets[0] = { name = \"app\", … } has no url: add it"]),
        ("[relay]\ntargets = [{ name = \"app\", url = \"app?hush\" }]", &["relay.targets[0].url = \"app?[redacted]\" is not a URL"]),
        ("[relay]\ntargets = [{ name = \"a\", url = \"https://a\" }, { name = \"a\", url = \"https://b\" }]", &["relay.targets[1].name = \"a\"", "give each its own"]),
        ("[relay]\ntargets = [{ name = \"a\", url = \"https://a\", secret = \"hush\" }]", &["relay.targets[0].secret = [redacted] is not a webhook secret"]),
        ("[relay]\ntargets = [{ name = \"a\", url = \"https://a\", secret = \"whsec_QUJD\", secrets = [\"whsec_QUJD\"] }]", &["relay.targets[0]", "both secret and secrets"]),
        ("[api]\nkeys = [\"hush-0123456789-hush-hush\"]", &["api.keys[0] = [redacted] is not a key", "{ name ="]),
        ("[api]\nkeys = \"hush-0123456789-hush-hush\"", &["api.keys = [redacted] is not a list"]),
        ("[api]\nkeys = [{ name = \"a\", key = \"hush\" }]", &["api.keys[0].key = [redacted] is too short", "22 characters"]),
        ("[api]\npublic_url = \"finishline.example.com\"", &["api.public_url = \"finishline.example.com\" is not a URL", "https://"]),
        ("[api]\npublic_url = \"ftp://finishline.example.com\"", &["api.public_url", "is not a URL"]),
        ("[api]\npublic_url = \"https://me:hush@finishline.example.com\"", &["api.public_url = \"https://[redacted]@finishline.example.com\"", "user or password"]),
        ("[api]\npublic_url = \"https://finishline.example.com/?hush\"", &["api.public_url", "[redacted]", "query"]),
        ("[callbacks]\ninbox_secret = \"hush-0123456789-hushhu\"\n[api]\nkeys = [{ name = \"a\", key = \"hush-0123456789-hushh\" }]", &["api.keys[0].key = [redacted] is too short", "22 characters", "finishline key new"]),
        ("[api]\nkeys = [{ name = \"a\", key = \"hushhushhushhushhushhush\" }]", &["api.keys[0].key = [redacted] repeats itself", "10 different characters"]),
        ("[callbacks]\ninbox_secret = \"012345678012345678012345678\"", &["callbacks.inbox_secret = [redacted] repeats itself", "10 different characters"]),
        ("[callbacks]\ninbox_secret = \"hush-0123456789-hushh\"", &["callbacks.inbox_secret = [redacted] is too short", "22 characters"]),
        ("[api]\nkeys = [{ name = \"a\", key_sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\" }]", &["api.keys[0].key_sha256 = [redacted] is the digest of nothing", "finishline key new"]),
        ("[api]\nkeys = [{ name = \"a\", key_sha256 = \"01BA4719C80B6FE911B091A7C05124B64EEECE964E09C058EF8F9805DACA546B\" }]", &["api.keys[0].key_sha256 = [redacted] is the digest of nothing"]),
        ("[api]\nkeys = [{ name = \"a\", key = \"hush hush hush hush\" }]", &["api.keys[0].key = [redacted] holds spaces"]),
        ("[api]\nkeys = [{ name = \"a\" }]", &["api.keys[0] = { name = \"a\", … } has neither key nor key_sha256"]),
        ("[api]\nkeys = [{ key = \"hush-0123456789-hush-hush\" }]", &["api.keys[0] = { … } has no name: add it"]),
        ("[api]\nkeys = [{ name = \" \", key = \"hush-0123456789-hush-hush\" }]", &["api.keys[0].name = \" \" is empty"]),
        ("[api]\nkeys = [{ name = \"a\", key_sha256 = \"hush\" }]", &["api.keys[0].key_sha256 = [redacted] is not a SHA-256: write it as 64 hex digits"]),
        ("[api]\nkeys = [{ name = \"a\", key = \"hush-0123456789-hush-hush\", scope = [\"read\"] }]", &["api.keys[0].scope is not a setting: did you mean api.keys[0].scopes?"]),
        ("[api]\nkeys = [{ name = \"a\", key = \"hush-0123456789-hush-hush\", scopes = [\"read\", \"admin\"] }]", &["api.keys[0].scopes[1] = \"admin\" is not a scope: write \"submit\", \"read\", \"operate\" or \"erase\""]),
        ("[api]\nkeys = [{ name = \"a\", key = \"hush-0123456789-hush-hush\", scopes = [] }]", &["api.keys[0]", "empty list of scopes"]),
        ("[api]\nkeys = [{ name = \"a\", key = \"hush-0123456789-hush-hush\" }, { name = \"a\", key = \"hush-0123456789-hush-hush-\" }]", &["api.keys[1].name = \"a\" is the name of an earlier one"]),
        ("[api]\nkeys = [{ name = \"a\", key = \"hush-0123456789-hush-hush\" }, { name = \"b\", key = \"hush-0123456789-hush-hush\" }]", &["api.keys[1] (\"b\") has the same key as an earlier one"]),
        ("[log]\nformat = \"xml\"", &["log.format = \"xml\"", "\"text\" or \"json\""]),
        ("[log]\nlevel = \"loud\"", &["log.level = \"loud\" is not a log level", "\"info\""]),
        ("[log]\nlevel = \"info,finishline=loud\"", &["log.level = \"info,finishline=loud\" is not a log level"]),
        ("[log]\nlevel = \"info,finishline[request]=debug\"", &["log.level = \"info,finishline[request]=debug\" is not a log level"]),
        ("[log]\nlevel = \"\"", &["log.level = \"\" is not a log level"]),
        ("[log]\nlevel = \"a\\nb\"", &["log.level = \"a\\nb\""]),
    ];
    for (content, fragments) in cases {
        assert_line(from_file(content), fragments);
    }
}

#[test]
fn a_wrong_variable_is_one_line_too() {
    // One case a line; the first text is what is set, the others are what the line must hold.
    #[rustfmt::skip]
    let cases: &[(&str, &str, &[&str])] = &[
        ("FINISHLINE__RECONCILE__AFTER", "soon", &["reconcile.after = \"soon\" is not a duration", "(set by FINISHLINE__RECONCILE__AFTER)"]),
        ("FINISHLINE__RECONCILE__AFTR", "1s", &["FINISHLINE__RECONCILE__AFTR is not a setting: did you mean FINISHLINE__RECONCILE__AFTER?"]),
        ("FINISHLINE__RECONCILE_AFTER", "1s", &["did you mean FINISHLINE__RECONCILE__AFTER?"]),
        ("FINISHLINE__ENGINE__CLIENT_SECRET", "hush", &["did you mean FINISHLINE__ENGINE__AUTH__CLIENT_SECRET?"]),
        ("FINISHLINE__engine__timeout", "1s", &["FINISHLINE__engine__timeout is not a setting"]),
        ("FINISHLINE__ENGINE__TIMEOUT__", "1s", &["engine.timeout is one value, set FINISHLINE__ENGINE__TIMEOUT as a whole"]),
        ("FINISHLINE__", "1s", &["FINISHLINE__ is not a setting"]),
        ("FINISHLINE__ENGINE__AUTH", "hush", &["FINISHLINE__ENGINE__AUTH names the section engine.auth"]),
        ("FINISHLINE__API__KEYS__0__KEY", "hush", &["FINISHLINE__API__KEYS__0__KEY is not a setting: api.keys is one value, set FINISHLINE__API__KEYS as a whole"]),
        ("FINISHLINE__OUTBOUND__ALLOW_HTTP", "1", &["outbound.allow_http = \"1\" is not a boolean: write true or false"]),
        ("FINISHLINE__RELAY__ALLOWED_HOSTS", "a.example.com", &["relay.allowed_hosts = \"a.example.com\" is not a JSON list: write it like [\"…\", \"…\"]"]),
        ("FINISHLINE__RELAY__SCHEDULE", "[\"1s\", null]", &["relay.schedule", "is not a JSON list"]),
        ("FINISHLINE__API__KEYS", "hush", &["api.keys = [redacted] is not a JSON list"]),
        ("FINISHLINE__API__KEYS", "{\"name\": \"hush\"}", &["api.keys = [redacted] is not a JSON list"]),
        ("FINISHLINE__API__KEYS", "[{\"name\": \"a\", \"key\": \"hush\"}]", &["api.keys[0].key = [redacted] is too short", "(set by FINISHLINE__API__KEYS)"]),
        ("FINISHLINE__ENGINE__AUTH__CLIENT_SECRET", "hush\u{fffd}", &["engine.auth.client_secret = [redacted] is not UTF-8"]),
        ("FINISHLINE__DATABASE__URL", "mysql://hush:hush@host/db?hush", &["mysql://[redacted]@host/db?[redacted]"]),
    ];
    for (variable, value, fragments) in cases {
        assert_line(from_environment(&[(variable, value)]), fragments);
    }
}

#[test]
fn a_file_that_cannot_be_used_is_one_line() {
    let missing = load(Some(Path::new("/not/there.toml")), std::iter::empty());
    assert_line(missing, &["/not/there.toml cannot be read: No such file"]);
    let folder = load(Some(Path::new("/tmp")), std::iter::empty());
    assert_line(folder, &["/tmp cannot be read"]);
    assert_line(
        from_file(b"[log]\nlevel = \"\xff\"\n"),
        &["settings.toml cannot be read: line 2 is not UTF-8"],
    );
    assert_line(
        from_file("[log]\nlevel = \"info\"\n[engine.auth]\nclient_secret = \"hush\n"),
        &["settings.toml, line 4, column 2"],
    );
    assert_line(
        from_file("[engine.auth]\nclient_secret = hush-hush\n"),
        &["settings.toml, line 2, column 17", "quoted"],
    );
    assert_line(
        from_file("[log]\nlevel = \"info\"\nlevel = \"info\"\n"),
        &["settings.toml, line 3, column 1: duplicate key"],
    );
    assert_line(from_file("[log]\n  ä = 1\n"), &["settings.toml, line 2, column 3"]);
}

#[test]
fn a_file_with_a_byte_order_mark_is_read() {
    let config = from_file("\u{feff}[log]\r\nlevel = \"warn\"\r\n").unwrap();
    assert_eq!(config.log.level.to_string(), "warn");
}

#[test]
fn the_client_secret_is_read_from_its_file() {
    let (_folder, secret_file) = file_with(format!("{HUSH}\r\n"));
    let variable = "FINISHLINE__ENGINE__AUTH__CLIENT_SECRET_FILE";
    let config = from_environment(&[(variable, secret_file.to_str().unwrap())]).unwrap();
    assert_eq!(config.engine.auth.client_secret.unwrap().expose(), HUSH);

    fs::write(&secret_file, "\n").unwrap();
    let empty = from_environment(&[(variable, secret_file.to_str().unwrap())]);
    assert_line(empty, &["settings.toml\" is an empty file", variable]);
}

#[test]
fn a_secret_is_the_same_wherever_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let webhook = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
    let inbox = "an-inbox-secret-of-length";
    // Each secret: its key, a right value, and what of the settings shows it.
    type Secret = (&'static str, &'static str, fn(&Config) -> String);
    let secrets: [Secret; 3] = [
        ("ENGINE__AUTH__CLIENT_SECRET", HUSH, |config| {
            config.engine.auth.client_secret.as_ref().unwrap().expose().to_owned()
        }),
        ("CALLBACKS__INBOX_SECRET", inbox, |config| {
            config.callbacks.inbox_secret.as_ref().unwrap().expose().to_owned()
        }),
        ("RELAY__SECRET", webhook, |config| {
            config.relay.secret.as_ref().unwrap().expose().to_owned()
        }),
    ];
    for (key, secret, shown) in secrets {
        let variable = format!("FINISHLINE__{key}");
        let dotted = key.to_lowercase().replace("__", ".");
        for (before, behind) in [("", ""), ("\u{feff}", "\r\n"), ("", "\n\n"), ("\r\n", "")] {
            let written = format!("{before}{secret}{behind}");
            let file = folder.path().join("secret");
            fs::write(&file, &written).unwrap();
            let of_variable = from_environment(&[(&variable, &written)]).unwrap();
            let twin = format!("{variable}_FILE");
            let of_file = from_environment(&[(&twin, file.to_str().unwrap())]).unwrap();
            for config in [of_variable, of_file] {
                assert_eq!(shown(&config), secret, "{key} {before:?} {behind:?}");
            }
        }
        for inside in ["\n", "\t", "\u{0}", "\u{feff}"] {
            let written = format!("{}{inside}{}", &secret[..9], &secret[9..]);
            let of_variable = from_environment(&[(&variable, &written)]).unwrap_err().to_string();
            let file = folder.path().join("secret");
            fs::write(&file, &written).unwrap();
            let twin = format!("{variable}_FILE");
            let of_file = from_environment(&[(&twin, file.to_str().unwrap())]);
            for line in [of_variable, of_file.unwrap_err().to_string()] {
                assert!(line.contains(&dotted) && line.contains("control character"), "{line}");
                assert!(!line.contains(&secret[9..]), "{line}");
            }
        }
    }
    let key = folder.path().join("key");
    fs::write(&key, "\u{feff}a-key-of-some-length-01\r\n").unwrap();
    let lists = format!(
        "[api]\nkeys = [{{ name = \"a\", key_file = {key:?} }}, {{ name = \"b\", key = \"b-key-of-some-length-02\\n\" }}]\n\
         [relay]\ntargets = [{{ name = \"app\", url = \"https://a.example/\", secret_file = {:?} }}]\n",
        folder.path().join("hook")
    );
    fs::write(folder.path().join("hook"), format!("{webhook}\n")).unwrap();
    let config = from_file(lists.as_str()).unwrap();
    let plain = "[api]\nkeys = [{ name = \"a\", key = \"a-key-of-some-length-01\" }, \
                 { name = \"b\", key = \"b-key-of-some-length-02\" }]\n";
    let plain = from_file(plain).unwrap();
    let digests =
        |config: &Config| config.api.keys.iter().map(|key| key.digest).collect::<Vec<_>>();
    assert_eq!(digests(&config), digests(&plain));
    assert_eq!(config.relay.targets[0].secrets[0].expose(), webhook);
    let both = format!("[api]\nkeys = [{{ name = \"a\", key = \"x\", key_file = {key:?} }}]\n");
    assert_line(from_file(both.as_str()), &["api.keys[0].key_file", "leave one out"]);
}

#[test]
fn an_api_that_others_reach_is_never_open_without_a_key() {
    let key = "keys = [{ name = \"a\", key = \"hush-0123456789-hush-hush\" }]";
    let open = "open_on_loopback = true";
    let cases = [
        ("0.0.0.0:8086", "is reachable from other machines: leave open_on_loopback out, or listen"),
        ("[::]:0", "is reachable from other machines"),
        ("192.168.1.7:8086", "is reachable from other machines"),
        ("[::ffff:10.0.0.1]:8086", "is reachable from other machines"),
        ("127.0.0.1:8085", "is the callbacks listener too"),
        ("same", "shares the callbacks listener"),
    ];
    for (listen, danger) in cases {
        let api = format!("[api]\nlisten = \"{listen}\"");
        let line = format!("api.open_on_loopback is true, but api.listen = \"{listen}\" {danger}");
        assert_line(from_file(format!("{api}\n{open}")), &[&line]);
        assert_line(from_file(format!("{api}\n{open}\n{key}")), &[&line]);
        for closed in ["", key] {
            let config = from_file(format!("{api}\n{closed}")).unwrap();
            assert!(!config.api.is_open(), "{listen}");
            assert_eq!(config.api.needs_key_file(), closed.is_empty(), "{listen}");
        }
    }
    for listen in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8086", "[::ffff:127.0.0.1]:8086"] {
        let api = format!("[api]\nlisten = \"{listen}\"");
        let config = from_file(format!("{api}\n{open}")).unwrap();
        assert!(config.api.is_open() && !config.api.needs_key_file(), "{listen}");
        assert!(!from_file(format!("{api}\n{open}\n{key}")).unwrap().api.is_open(), "{listen}");
        assert!(from_file(&api).unwrap().api.needs_key_file(), "{listen}");
    }
}

#[test]
fn what_the_service_makes_for_itself_is_kept_beside_the_database_or_in_its_folder() {
    let places = |settings: &str| {
        let config = from_file(settings).unwrap();
        let text = |path: &Path| path.display().to_string();
        (text(&config.key_file()), text(&config.spool_file()))
    };
    let pair = |key: &str, spool: &str| (key.to_owned(), spool.to_owned());
    assert_eq!(places(""), pair("./finishline.key", "./finishline.db-spool"));
    let database = "[database]\nurl = \"sqlite:///var/lib/f/a.db\"\n";
    assert_eq!(places(database), pair("/var/lib/f/finishline.key", "/var/lib/f/a.db-spool"));
    let folder = format!("{database}[service]\nstate_dir = \"/srv/state\"\n");
    assert_eq!(places(&folder), pair("/srv/state/finishline.key", "/srv/state/a.db-spool"));
    let spool = format!("{folder}[spool]\npath = \"/mnt/b/spool\"\n");
    assert_eq!(places(&spool), pair("/srv/state/finishline.key", "/mnt/b/spool"));
}

#[test]
fn one_listener_is_merged_and_two_free_ports_are_not() {
    let merged = |callbacks: &str, api: &str| {
        from_file(format!(
            "[callbacks]\nlisten = \"{callbacks}\"\n[api]\nlisten = \"{api}\"\n\
             keys = [{{ name = \"a\", key = \"{HUSH}\" }}]"
        ))
        .unwrap()
        .merged()
    };
    assert!(merged("127.0.0.1:8085", "same"));
    assert!(merged("127.0.0.1:0", "same"));
    assert!(merged("0.0.0.0:80", "0.0.0.0:80"));
    assert!(!merged("127.0.0.1:0", "127.0.0.1:0"));
    assert!(!merged("127.0.0.1:8085", "127.0.0.1:8086"));
}

#[test]
fn debug_output_shows_no_secret() {
    let config = from_file(format!(
        "[callbacks]\ninbox_secret = \"{HUSH}\"\n[engine.auth]\nclient_secret = \"{HUSH}\"\n\
         [api]\nkeys = [{{ name = \"a\", key = \"{HUSH}\" }}]\n\
         [relay]\nsecret = \"whsec_hush\"\n\
         targets = [{{ name = \"t\", url = \"https://a.example.com/hush?hush\", secret = \"whsec_hush\" }}]"
    ))
    .unwrap();
    let debug = format!("{config:?}");
    assert!(!debug.contains("hush"), "{debug}");
    assert!(debug.contains("client_secret: Some([redacted])"), "{debug}");
}

#[test]
fn what_may_be_meant_is_a_warning() {
    let warned = |content: &str, fragment: &str| {
        let warnings = from_file(content).unwrap().warnings();
        assert!(
            warnings.iter().any(|line| line.contains(fragment)),
            "{warnings:?} lacks {fragment}"
        );
        assert!(warnings.iter().all(|line| !line.contains('\n')));
    };
    warned("[api]\nopen_on_loopback = true", "api.open_on_loopback = true: every user");
    warned(
        &format!("[api]\nopen_on_loopback = true\nkeys = [{{ name = \"a\", key = \"{HUSH}\" }}]"),
        "api.open_on_loopback has no effect beside api.keys",
    );
    warned("[api]\nlisten = \"0.0.0.0:8086\"", "the api listens on 0.0.0.0:8086, which other");
    warned(
        "[callbacks]\nlisten = \"[::]:80\"\npublic_url = \"http://a\"\n[api]\nlisten = \"same\"",
        "the api listens on [::]:80, which other machines reach by plain http",
    );
    warned(
        "[api]\nlisten = \"0.0.0.0:8086\"\npublic_url = \"http://portal.example\"",
        "the api listens on 0.0.0.0:8086, which other",
    );
    warned("", "engine.auth.client_id or engine.auth.client_secret is empty");
    warned("[callbacks]\npublic_url = \"http://hooks.example.com\"", "is plain http");
    warned("[relay]\nallowed_hosts = [\"*\"]", "relay.secret is empty");
    warned(
        "[relay]\ntargets = [{ name = \"app\", url = \"https://a\" }]",
        "relay.targets[0] (\"app\") has no secret",
    );
    warned("[relay]\nsecret = \"whsec_QUJD\"", "fewer than 24 bytes");
    warned("[spool]\nsize = \"1MiB\"", "spool.size is smaller");
    warned("[reconcile]\ngive_up = \"30m\"", "reconcile.give_up is not longer");

    let quiet = from_file(format!(
        "[callbacks]\npublic_url = \"https://hooks.example.com\"\n\
         [engine.auth]\nclient_id = \"id\"\nclient_secret = \"{HUSH}\"\n\
         [spool]\nsize = \"0\"\n[relay]\nallowed_hosts = [\"*\"]\nsecret = \"{WEBHOOK_SECRET}\""
    ))
    .unwrap();
    assert!(quiet.warnings().is_empty(), "{:?}", quiet.warnings());
    for fine in [
        "",
        "[callbacks]\nlisten = \"0.0.0.0:80\"",
        "[callbacks]\nlisten = \"0.0.0.0:80\"\n[api]\nlisten = \"same\"",
        "[callbacks]\nlisten = \"[::]:80\"\npublic_url = \"https://a\"\n[api]\nlisten = \"same\"",
        "[api]\nlisten = \"0.0.0.0:8086\"\npublic_url = \"https://portal.example\"",
    ] {
        let config = from_file(format!("[engine.auth]\ntoken_url = \"\"\n{fine}")).unwrap();
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    }
}

#[test]
fn the_engines_addresses_follow_its_version() {
    let urls = |settings: &str, id: &str| {
        let engine = from_file(format!("[engine]\n{settings}")).unwrap().engine;
        (engine.job_url().to_string(), engine.result_url(id).to_string())
    };
    let cases = [
        ("24.06", "job"),
        ("24.06/", "job"),
        ("v2", "generic-job"),
        ("v2/", "generic-job"),
        ("v2.0", "generic-job"),
        ("v1.5", "generic-job"),
        ("v0", "generic-job"),
        ("v2.1", "job"),
        ("v3", "job"),
        ("v10", "job"),
        ("vx", "job"),
        ("v2/beta", "job"),
    ];
    for (version, route) in cases {
        let base = format!("https://engine.example.com/{version}");
        let expected = format!("{}/{route}", base.trim_end_matches('/'));
        let (job, result) = urls(&format!("base_url = \"{base}\""), "7f3a-1");
        assert_eq!(job, expected);
        assert_eq!(result, format!("{expected}/7f3a-1"));
    }
    let bare = "base_url = \"http://127.0.0.1:9000\"";
    assert_eq!(urls(bare, "1").0, "http://127.0.0.1:9000/job");
    let own = "base_url = \"https://e.example.com/a\"\njob_path = \"/jobs\"";
    assert_eq!(urls(own, "1").1, "https://e.example.com/a/jobs/1");
    let both = format!("{own}\nresult_path = \"/results/{{id}}/latest\"");
    assert_eq!(
        urls(&both, "a/b?c#d é%").1,
        "https://e.example.com/a/results/a%2Fb%3Fc%23d%20%C3%A9%25/latest"
    );
    assert_eq!(urls(own, "..").1, "https://e.example.com/a/jobs/%252E%252E");
}

#[test]
fn a_variable_that_is_a_setting_but_for_its_underscores_or_case_stops_the_load() {
    for name in [
        "FINISHLINE_ENGINE__TIMEOUT",
        "FINISHLINE_ENGINE_TIMEOUT",
        "FINISHLINE__ENGINE_TIMEOUT",
        "FINISHLINE__ENGINE___TIMEOUT",
        "FINISHLINE___ENGINE__TIMEOUT",
        "finishline__engine__timeout",
        "Finishline_Engine_Timeout",
        "FINISHLINE.ENGINE.TIMEOUT",
        "FINISHLINE-ENGINE-TIMEOUT",
    ] {
        let line = format!("{name} is not a setting");
        assert_line(from_environment(&[(name, "hush")]), &[&line]);
        if !name.starts_with("FINISHLINE__") {
            let meant = "did you mean FINISHLINE__ENGINE__TIMEOUT?";
            assert_line(from_environment(&[(name, "hush")]), &[meant]);
        }
    }
    // What an orchestrator hands over, and the client's own, are fine.
    for name in [
        "FINISHLINE_SERVICE_HOST",
        "FINISHLINE_PORT",
        "FINISHLINE_PORT_8086_TCP_ADDR",
        "FINISHLINE_KEY",
        "FINISHLINE_API",
        "FINISHLINE_INSECURE_HTTP",
        "FINISHLINE_FORWARD_SECRET",
    ] {
        let config = from_environment(&[(name, "x")]).unwrap();
        assert_eq!(config.stray_variables, [], "{name}");
    }
    let config = from_environment(&[("FINISHLINE_COLOUR", "hush")]).unwrap();
    let warnings = config.warnings();
    assert!(warnings.iter().any(|line| line.starts_with("FINISHLINE_COLOUR is not read")));
    assert!(!warnings.concat().contains("hush"));
}

#[test]
fn an_address_or_a_pause_that_can_only_be_wrong_stops_the_load() {
    for (settings, fragments) in [
        (
            "[engine]\nbase_url = \"https://e.example.com/24.06/job\"",
            &["engine.base_url", "ends in the route", "write \"https://e.example.com/24.06\""][..],
        ),
        ("[engine]\nbase_url = \"https://e.example.com/v2/generic-job/\"", &["/v2\""]),
        (
            "[engine]\nbase_url = \"https://e.example.com/job\"",
            &["write \"https://e.example.com\""],
        ),
        (
            "[engine]\nbase_url = \"https://e.example.com/a/runs\"\njob_path = \"/runs\"",
            &["write \"https://e.example.com/a\""],
        ),
        (
            "[callbacks]\nngrok_api = \"http://127.0.0.1:4040/api/tunnels\"",
            &["callbacks.ngrok_api", "write \"http://127.0.0.1:4040\""],
        ),
        (
            "[retention]\nevery = \"29s\"",
            &["retention.every = \"29s\" is too short: 30s is the least"],
        ),
        (
            "[reconcile]\nevery = \"1s\"",
            &["reconcile.every = \"1s\" is too short: 5s is the least"],
        ),
        (
            "[engine.auth]\nclient_id = \"id \"",
            &["engine.auth.client_id = \"id \" begins or ends with a blank"],
        ),
        ("[engine.auth]\naudience = \"\\ta\"", &["engine.auth.audience", "begins or ends"]),
        ("[engine]\ndefault_end_user_id = \"x\\n\"", &["engine.default_end_user_id", "line end"]),
        ("[service]\nstate_dir = \"~/finishline\"", &["service.state_dir", "only a shell expands"]),
        ("[spool]\npath = \"$HOME/spool\"", &["spool.path", "only a shell expands"]),
        ("[database]\nurl = \"sqlite://finishline.db \"", &["database.url", "begins or ends"]),
        (
            "[engine.auth]\nclient_id = \"${CLIENT_ID}\"",
            &["engine.auth.client_id", "is not filled in"],
        ),
        (
            "[engine.auth]\nclient_secret = \"$(cat /run/secrets/hush)\"",
            &["engine.auth.client_secret = [redacted] is not filled in"],
        ),
        (
            "[callbacks]\ninbox_secret = \"{{ hush }}\"",
            &["callbacks.inbox_secret", "is not filled in"],
        ),
        (
            "[relay]\ntargets = [{ name = \"app \", url = \"https://a.example/\" }]",
            &["relay.targets[0].name", "begins or ends"],
        ),
        (
            "[api]\nkeys = [{ name = \"a\", key = \"${HUSH_A_KEY_OF_LENGTH}\" }]",
            &["api.keys[0].key = [redacted] is not filled in"],
        ),
        (
            "[api]\nkeys = [{ name = \"a\", key_sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\" }]",
            &["key_sha256", "is the digest of nothing"],
        ),
    ] {
        assert_line(from_file(settings), fragments);
    }
    let least = from_file("[retention]\nevery = \"30s\"\n[reconcile]\nevery = \"5s\"").unwrap();
    assert_eq!(least.retention.every, Duration::from_secs(30));
}

#[test]
fn an_address_that_is_likely_wrong_is_a_warning_with_what_would_be_right() {
    let warnings_of = |settings: &str| from_file(settings).unwrap().warnings();
    for (settings, fragments) in [
        (
            "[callbacks]\npublic_url = \"https://h.example.com/callbacks\"",
            &["ends in /callbacks", "write \"https://h.example.com\""][..],
        ),
        (
            "[callbacks]\npublic_url = \"https://h.example.com/a/callbacks/\"",
            &["write \"https://h.example.com/a\""],
        ),
        ("[callbacks]\npublic_url = \"https://h.example.com/inbox\"", &["ends in /inbox"]),
        ("[callbacks]\npublic_url = \"http://localhost:8085\"", &["the Engine cannot call back"]),
        (
            "[callbacks]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://h.example.com\"",
            &["callbacks.listen", "name a port"],
        ),
        ("[api]\npublic_url = \"https://f.example.com/v1\"", &["write \"https://f.example.com\""]),
        ("[engine]\nbase_url = \"https://e.example.com\"", &["names no version", "/24.06"]),
        ("[engine]\nbase_url = \"https://e.example.com/relu\"", &["names no version"]),
        (
            "[engine]\nbase_url = \"https://e.example.com/24.06/24.06\"",
            &["names its version twice", "write \"https://e.example.com/24.06\""],
        ),
        ("[engine]\nbase_url = \"http://e.example.com/24.06\"", &["engine.base_url is plain http"]),
        (
            "[engine.auth]\ntoken_url = \"http://i.example.com/oauth/token\"",
            &["engine.auth.token_url is plain http"],
        ),
        ("[engine.auth]\ntoken_url = \"https://i.example.com\"", &["has no path", "/oauth/token"]),
        (
            "[engine.auth]\ntoken_url = \"\"\nclient_id = \"id\"",
            &["token_url is empty", "no effect"],
        ),
        ("[relay]\nallowed_hosts = [\"*\"]\nschedule = []", &["relay.schedule is empty"]),
        (
            "[relay]\ntargets = [{ name = \"a\", url = \"https://a.example/\" }, { name = \"b\", url = \"https://a.example\" }]",
            &["relay.targets[1] (\"b\")", "each result twice"],
        ),
    ] {
        let warnings = warnings_of(settings);
        let is_told = |line: &String| fragments.iter().all(|fragment| line.contains(fragment));
        assert!(warnings.iter().any(is_told), "{settings}: {warnings:?}");
    }
    for fine in ["v2", "v1.5", "24.06", "24.06/", "relu/24.06"] {
        let settings = format!("[engine]\nbase_url = \"https://e.example.com/{fine}\"");
        let warnings = warnings_of(&settings);
        assert!(!warnings.concat().contains("version"), "{fine}: {warnings:?}");
    }
}
