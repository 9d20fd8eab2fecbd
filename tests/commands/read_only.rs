//! The program as a container runs it: uid 65532, a read-only root, one volume that can be written.
//!
//! Needs root, to make the namespace; elsewhere it says loudly that it proved nothing.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use finishline::simulator::{Options, Simulator};
use reqwest::Method;
use tempfile::TempDir;

use crate::{
    process::Process,
    support::{Answer, free_port, http_client, ready_job_with, wait_for},
};

const USER: u32 = 65532;

/// Makes everything read-only but the volume, and runs the program there as nobody in particular.
const CONTAINER: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$VOLUME" "$VOLUME"
for place in $(awk '{print $5}' /proc/self/mountinfo | sort -ru); do
    [ "$place" = "$VOLUME" ] || mount -o remount,bind,ro "$place" 2>/dev/null || true
done
cd /
unset OLDPWD PWD
exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs "$PROGRAM" "$@"
"#;

/// A container: its volume, and a program that anyone may run.
struct Container {
    _folder: TempDir,
    volume: PathBuf,
    program: PathBuf,
}

impl Container {
    /// `None` where this machine lets us make none.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open.clone()).unwrap();
        let (volume, program) = (folder.path().join("volume"), folder.path().join("finishline"));
        fs::create_dir(&volume).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_finishline"), &program).unwrap();
        fs::set_permissions(&program, open).unwrap();
        let is_ours = chown(&volume, Some(USER), Some(USER)).is_ok();
        let container = Self { _folder: folder, volume, program };
        let runs = is_ours
            && container
                .command(&["--version"], &[])
                .output()
                .is_ok_and(|output| output.status.success());
        if !runs {
            eprintln!("NOT PROVED: a read-only container cannot be made here, it takes root");
        }
        runs.then_some(container)
    }

    fn command(&self, args: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", CONTAINER, "sh"]).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("VOLUME", &self.volume).env("PROGRAM", &self.program);
        let database = format!("sqlite://{}", self.volume.join("finishline.db").display());
        command.env("FINISHLINE__DATABASE__URL", database);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    async fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = self.command(args, environment);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    fn place(&self, name: &str) -> String {
        self.volume.join(name).display().to_string()
    }
}

fn value_of<'a>(line: &'a str, name: &str) -> &'a str {
    line.split(' ').find_map(|word| word.strip_prefix(name)).expect("it is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_read_only_root_jobs_are_received_and_erased_and_every_command_works() {
    let Some(container) = Container::new() else { return };
    let options = Options { processing: "0s".parse().unwrap(), ..Options::default() };
    let engine = Simulator::start(free_port().await, options).await.unwrap();
    let (base, token) = (engine.base_url(), engine.token_url());
    let files = format!("file://{}", container.place("files"));
    // The callbacks' port is known only once it listens, so it is chosen here.
    let callbacks = free_port().await.local_addr().unwrap().to_string();
    let public_url = format!("http://{callbacks}");
    let settings = [
        ("FINISHLINE__CALLBACKS__LISTEN", callbacks.as_str()),
        ("FINISHLINE__CALLBACKS__PUBLIC_URL", public_url.as_str()),
        ("FINISHLINE__API__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__API__OPEN_ON_LOOPBACK", "true"),
        ("FINISHLINE__ENGINE__BASE_URL", base.as_str()),
        ("FINISHLINE__ENGINE__AUTH__TOKEN_URL", token.as_str()),
        ("FINISHLINE__ENGINE__AUTH__CLIENT_ID", "id"),
        ("FINISHLINE__ENGINE__AUTH__CLIENT_SECRET", "secret"),
        ("FINISHLINE__OUTBOUND__ALLOW_PRIVATE", "true"),
        ("FINISHLINE__OUTBOUND__ALLOW_HTTP", "true"),
        ("FINISHLINE__MIRROR__STORE", files.as_str()),
    ];
    let mut service = Process::of(container.command(&["serve"], &settings));
    let ready = service.shows(1).await[0].clone();
    let api = value_of(&ready, "api=").to_owned();
    let client = http_client();
    let long = "x".repeat(60_000);
    let body = ready_job_with(serde_json::json!({ "endUserId": "patient", "note": long }));
    for _ in 0..160 {
        let submit = client.post(format!("{api}/v1/jobs")).body(body.to_string());
        Answer::of(submit).await.expect(201);
    }
    wait_for("all results", async || {
        let url = format!("{api}/v1/jobs?status=submitted&limit=1");
        let jobs = Answer::of(client.get(url)).await.expect(200).json();
        jobs["jobs"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let listen = api.strip_prefix("http://").unwrap();
    let mut with_api = settings.to_vec();
    with_api.retain(|(name, _)| *name != "FINISHLINE__API__LISTEN");
    with_api.extend([("FINISHLINE__API__LISTEN", listen), ("FINISHLINE_API", api.as_str())]);

    let (copy, cursor, job) =
        (container.place("copy.db"), container.place("cursor"), container.place("job.json"));
    fs::write(&job, ready_job_with(serde_json::json!({})).to_string()).unwrap();
    fs::set_permissions(&job, Permissions::from_mode(0o644)).unwrap();
    let (out, result) = (container.place("out"), container.place("result.json"));
    let temporary = container.volume.display().to_string();
    let with_place = [("TMPDIR", temporary.as_str())];
    let first = Answer::of(client.get(format!("{api}/v1/jobs?limit=1"))).await.expect(200).json();
    let id = first["jobs"][0]["id"].as_str().unwrap().to_owned();
    for (args, environment) in [
        (&["check"][..], &with_api[..]),
        (&["healthcheck"], &with_api),
        (&["backup", &copy], &with_api),
        (&["restore-check", &copy], &[]),
        (&["verify-files"], &with_api),
        (&["jobs", "list", "--all"], &with_api),
        (&["jobs", "show", &id], &with_api),
        (&["jobs", "result", &id, "--output", &result], &with_api),
        (&["jobs", "download", &id, &out], &with_api),
        (&["submit", &job, "--wait"], &with_api),
        (&["events"], &with_api),
        (&["relays", "list"], &with_api),
        (&["key", "new"], &[]),
        (&["completions", "bash"], &[]),
        (&["demo", "--once"], &with_place),
    ] {
        let (code, said) = container.run(args, environment).await;
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
    // A place that cannot be written is named, in one line.
    for (args, words) in [
        (&["demo", "--once"][..], "TMPDIR"),
        (&["forward", "--to", "http://127.0.0.1:9"], "finishline-forward.cursor"),
        (&["jobs", "download", &id, "/here"], "/here"),
        (&["backup", "/copy.db"], "/copy.db"),
    ] {
        let (code, said) = container.run(args, &with_api).await;
        assert!(matches!(code, Some(1 | 2)), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    let forward = ["forward", "--to", "http://127.0.0.1:9", "--cursor", &cursor];
    let mut forwarding = Process::of(container.command(&forward, &with_api));
    forwarding.says("forwarding to").await;
    forwarding.signal("-TERM");
    assert_eq!(forwarding.ended().await, Some(130));

    let erase = client.request(Method::DELETE, format!("{api}/v1/jobs?endUserId=patient"));
    let erased = Answer::of(erase).await.expect(200).json();
    assert_eq!(erased["erased"], 160);
    service.signal("-TERM");
    assert_eq!(service.ended().await, Some(0), "{:?}", service.stderr());
    let trouble = |line: &&String| line.contains("6410") || line.contains("ERROR");
    let stderr = service.stderr();
    assert_eq!(stderr.iter().find(trouble), None);
    let (code, said) = container.run(&["rotate-key"], &with_api).await;
    assert_eq!(code, Some(0), "{said}");
    engine.stop().await;
    let left: Vec<_> = leftovers(&container.volume);
    assert_eq!(left, [""; 0], "no temporary file stays");
}

fn leftovers(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.') || name.contains("demo")).collect()
}
