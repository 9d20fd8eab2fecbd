//! The OpenAPI document: reviewed as a file, true to the service, readable without the internet.
//!
//! The invariant: what is documented answers, with the fields that are documented.

use std::{collections::BTreeSet, path::Path};

use finishline::simulator::FaultRate;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::*;

const SNAPSHOT: &str = "tests/contract/openapi.json";

/// Set to 1, the snapshot is written anew instead of compared.
const UPDATE: &str = "FINISHLINE_UPDATE_SNAPSHOTS";

#[tokio::test]
async fn the_document_is_the_one_that_was_reviewed() {
    let service = Service::start().await;
    let document = service.get("/openapi.json").await.expect(200).json();
    let mut now = serde_json::to_string_pretty(&document).expect("JSON");
    now.push('\n');
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(SNAPSHOT);
    if std::env::var(UPDATE).is_ok_and(|value| value == "1") {
        std::fs::write(&file, &now).expect("the snapshot can be written");
    }
    let reviewed = std::fs::read_to_string(&file).unwrap_or_default();
    let at = now.lines().zip(reviewed.lines()).position(|(now, then)| now != then);
    let at = at.unwrap_or(now.lines().count().min(reviewed.lines().count()));
    assert!(
        now == reviewed,
        "the OpenAPI document differs from {SNAPSHOT} from line {} on:\n  now:  {}\n  then: {}\n\
         If that is meant, run `{UPDATE}=1 cargo test --test contract openapi` and review the diff.",
        at + 1,
        now.lines().nth(at).unwrap_or("(end)"),
        reviewed.lines().nth(at).unwrap_or("(end)"),
    );
}

/// Things on record for the documented addresses to lead to.
pub(super) struct Stage {
    pub(super) service: Service,
    job: String,
    /// A job whose input is to be uploaded.
    awaiting: String,
    /// A job that may be sent again.
    unsent: String,
    delivery: String,
    relay: String,
    signature: String,
}

/// What the finished job holds beside what makes it run. Words with `mark-` are nobody's business
/// who may not read.
fn stage_members() -> Value {
    json!({
        "endUserId": "u",
        "note": "mark-of-the-request",
        "finishline": {"reference": "mark-of-the-reference"},
    })
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(Setup::new()).await
    }

    /// With further settings.
    pub(super) async fn set_with(setup: Setup) -> Self {
        let targets = json!([{
            "name": "app", "url": "http://127.0.0.1:9/hook",
            "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        }]);
        let setup = setup.set("CALLBACKS__INBOX_SECRET", "an-inbox-secret-of-a-test");
        let setup = setup.set("RELAY__TARGETS", targets).set("MIRROR__STORE", "memory:///");
        let service = setup.start().await;
        let awaiting = json!({
            "inputFiles": {"cbct": {"extension": ".dcm"}},
            "outputFiles": ready_job()["outputFiles"],
        });
        let awaiting = text(&service.submitted(&awaiting).await["id"]).to_owned();
        service.engine.set(|options| {
            options.answer = Some(429);
            options.answer_rate = FaultRate::First(1);
        });
        let refused = service.submit(&ready_job()).await.problem(503, "engine-busy");
        let unsent = text(&refused["jobId"]).to_owned();
        let job = service.submitted(&ready_job_with(stage_members())).await;
        let job = text(&service.finish(&job).await["id"]).to_owned();
        let deliveries = service.get(&format!("/v1/jobs/{job}/deliveries")).await.json();
        let delivery = text(&deliveries["deliveries"][0]["id"]).to_owned();
        let relays = service.get(&format!("/v1/relays?jobId={job}")).await.json();
        let relay = text(&relays["relays"][0]["id"]).to_owned();
        let url = service.callback_url(&job);
        let signature = url.rsplit('/').next().expect("a signature").to_owned();
        wait_for("the job's files to be copied", async || {
            (service.job(&job).await["secured"] == true).then_some(())
        })
        .await;
        Self { service, job, awaiting, unsent, delivery, relay, signature }
    }

    /// Calls an operation as it is documented.
    async fn call(&self, path: &str, method: &str, operation: &Value) -> Answer {
        Answer::of(self.request(path, method, operation).await).await
    }

    /// The request that an operation documents.
    pub(super) async fn request(
        &self,
        path: &str,
        method: &str,
        operation: &Value,
    ) -> RequestBuilder {
        let is_internet = path.starts_with("/callbacks/") || path.starts_with("/inbox/");
        let door = if is_internet { &self.service.callbacks } else { &self.service.api };
        let id = match path {
            "/v1/jobs/{id}/resubmit" => &self.unsent,
            _ if path.contains("/inputs/") => &self.awaiting,
            _ if path.starts_with("/v1/deliveries/") => &self.delivery,
            _ if path.starts_with("/v1/relays/") => &self.relay,
            _ => &self.job,
        };
        let mut url = format!("{door}{path}")
            .replace("{id}", id)
            .replace("{job}", &self.job)
            .replace("{signature}", &self.signature)
            .replace("inputs/{name}", "inputs/cbct")
            .replace("outputs/{name}", "outputs/meshes-0")
            .replace("{secret}", "an-inbox-secret-of-a-test");
        if (path, method) == ("/v1/jobs", "delete") {
            url += "?endUserId=u";
        }
        if path.ends_with("/notify") {
            // Its caller has uploaded the input.
            let job = self.service.job(id).await;
            let address = text(&job["inputs"][0]["uploadUrl"]);
            let upload = self.service.request_to(Method::PUT, address).body("a scan");
            Answer::of(upload).await.expect(200);
        }
        let method = method.to_uppercase().parse::<Method>().expect("a method");
        let mut request = self.service.request_to(method, &url);
        if operation["requestBody"].is_object() {
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            let body = if example.is_null() { json!({"success": true}) } else { example.clone() };
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        request
    }
}

#[tokio::test]
async fn every_documented_route_answers_as_documented() {
    let document = Service::start().await.get("/openapi.json").await.expect(200).json();
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let name = format!("{method} {path}");
            let stage = Stage::set().await;
            let answer = stage.call(path, method, operation).await;
            assert!(answer.status < 300, "{name}: {} {}", answer.status, answer.text());
            let documented = &operation["responses"][answer.status.to_string()];
            assert!(documented.is_object(), "{name}: {} is documented", answer.status);
            let kind = answer.header("content-type").unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default();
            let content = &documented["content"];
            // A stream has no whole body to read.
            if kind != "text/event-stream" {
                assert_eq!(content.is_null(), answer.body.is_empty(), "{name}: its body");
            }
            if !content.is_null() {
                assert!(content[kind].is_object(), "{name}: {kind} is documented");
                if kind == "application/json" {
                    compare(&document, &content[kind]["schema"], &answer.json(), &name);
                }
            }
            checked += 1;
        }
    }
    assert!(checked >= 17, "the walk found {checked} operations");
}

#[tokio::test]
async fn every_problem_has_the_documented_fields() {
    let service = Setup::new().engine(|options| options.answer = Some(400)).start().await;
    let document = service.get("/openapi.json").await.expect(200).json();
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    for answer in [
        service.submit(&ready_job()).await,
        service.submit(&json!({})).await,
        service.get("/v1/jobs/x").await,
        service.get("/v1/jobs?limit=0").await,
    ] {
        assert!(answer.status >= 400);
        compare(&document, &schema, &answer.json(), "a problem");
    }
}

/// Holds a value against a schema: every required field is there, no other than the documented
/// unless the object is open, and each word is on its list.
fn compare(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').expect("a reference within");
        let schema = document.pointer(pointer).unwrap_or_else(|| panic!("{reference} is there"));
        return compare(document, schema, value, place);
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{place} is a word of the list: {value}");
    }
    if let Some(first) = schema["anyOf"].get(0) {
        // The walk comes with all scopes: it sees the long form, which stands first.
        return compare(document, first, value, place);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let is_null = |choice: &&Value| (choice["type"] == "null") == value.is_null();
        let choice = choices.iter().find(is_null).expect("a choice");
        return compare(document, choice, value, place);
    }
    if let Some(properties) = schema["properties"].as_object() {
        let object = value.as_object().unwrap_or_else(|| panic!("{place} is an object: {value}"));
        let names: BTreeSet<_> = object.keys().collect();
        let known: BTreeSet<_> = properties.keys().collect();
        let is_open = !matches!(schema["additionalProperties"], Value::Null | Value::Bool(false));
        assert!(is_open || names.is_subset(&known), "{place} has undocumented fields: {value}");
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(object.contains_key(text(required)), "{place} has {required}: {value}");
        }
        for (name, schema) in properties {
            if let Some(value) = object.get(name) {
                compare(document, schema, value, &format!("{place}/{name}"));
            }
        }
    }
    if schema["type"] == "array" {
        let list = value.as_array().unwrap_or_else(|| panic!("{place} is a list: {value}"));
        for (position, value) in list.iter().enumerate() {
            compare(document, &schema["items"], value, &format!("{place}/{position}"));
        }
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().map(text).collect(),
        _ => return,
    };
    let is_of = |kind: &str| match kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("an unknown type {other}"),
    };
    assert!(types.into_iter().any(is_of), "{place} is {}: {value}", schema["type"]);
}

/// Every schema of the document, those within others included, with its place.
fn schemas<'a>(value: &'a Value, place: String, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(members) => {
            found.push((place.clone(), value));
            for (name, member) in members.iter().filter(|(name, _)| *name != "example") {
                schemas(member, format!("{place}/{name}"), found);
            }
        }
        Value::Array(elements) => {
            for (number, element) in elements.iter().enumerate() {
                schemas(element, format!("{place}/{number}"), found);
            }
        }
        _ => {}
    }
}

/// Fields of answers that are left out where they do not apply; all others are always there.
const LEFT_OUT: [(&str, &[&str]); 3] = [
    ("BriefJob", &["inputs"]),
    (
        "Problem",
        &[
            "errors",
            "jobId",
            "engineStatus",
            "engineBody",
            "storageStatus",
            "storageCode",
            "storageMessage",
        ],
    ),
    ("Ready", &["checks"]),
];

/// Schemas of what is sent to the service or to the Engine: its sender may leave things out.
const SENT: [&str; 6] =
    ["JobRequest", "InputFile", "OutputFiles", "OutputFile", "Finishline", "ResendMany"];

#[tokio::test]
async fn no_schema_says_less_than_the_service_does() {
    let document = Service::start().await.get("/openapi.json").await.expect(200).json();
    let mut found = Vec::new();
    schemas(&document, String::new(), &mut found);
    for (place, schema) in &found {
        let is_open = schema.get("additionalProperties").is_some();
        let is_bare = schema["type"] == "object" && schema.get("properties").is_none() && !is_open;
        assert!(!is_bare, "{place} is an object without a member: {schema}");
        assert_ne!(schema["items"], false, "{place}");
        let is_bytes = schema["type"] == "array" && schema["items"]["type"] == "integer";
        assert!(!is_bytes, "{place} is a file as a list of numbers");
    }
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        let left_out = LEFT_OUT.iter().find(|(of, _)| of == name).map_or(&[][..], |(_, of)| of);
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for field in schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name) {
            let is_required = required.iter().any(|one| one == field);
            let may_be_absent = left_out.contains(&field.as_str())
                || SENT.contains(&name.as_str())
                || name == "Resubmission";
            assert!(is_required || may_be_absent, "{name}/{field} is always there");
        }
    }
}

#[tokio::test]
async fn every_response_is_described_and_every_parameter_has_its_bounds() {
    let document = Service::start().await.get("/openapi.json").await.expect(200).json();
    let mut bounded = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let name = format!("{method} {path}");
            let responses = operation["responses"].as_object().expect("responses");
            for (status, response) in responses {
                let description = response["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{name}: {status} is described");
                for (header, described) in response["headers"].as_object().into_iter().flatten() {
                    assert!(described["description"].is_string(), "{name}: {status}: {header}");
                }
                let is_refusal = status.as_str() >= "400";
                let is_problem = response["content"]["application/problem+json"].is_object();
                assert_eq!(is_problem, is_refusal, "{name}: {status} is a problem");
            }
            // What any request may meet.
            for status in ["408", "431", "500", "503"] {
                assert!(responses.contains_key(status), "{name}: {status} is documented");
            }
            let is_guarded = operation["security"] == json!([{"key": []}]);
            for status in ["401", "403", "429"] {
                let is_documented = responses.contains_key(status);
                assert!(is_documented || !is_guarded, "{name}: {status} is documented");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                if schema["type"] == "integer" {
                    let is_bounded = schema["minimum"].is_u64() && schema["maximum"].is_u64();
                    assert!(is_bounded, "{name}: {}", parameter["name"]);
                    bounded += 1;
                }
            }
        }
    }
    assert!(bounded >= 8, "the walk found {bounded} numbers");
}

#[tokio::test]
async fn every_refusal_is_documented_at_its_operation() {
    let document = Service::start().await.get("/openapi.json").await.expect(200).json();
    let keys = json!([
        {"name": "all", "key": "a-key-with-every-scope"},
        {"name": "none", "key": "a-key-that-may-only-erase", "scopes": ["erase"]},
        {"name": "some", "key": "a-key-that-may-only-read", "scopes": ["read"]},
    ]);
    let setup = Setup::new().set("API__KEYS", keys).key("a-key-with-every-scope");
    let stage = Stage::set_with(setup).await;
    let mut codes = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let request = async || stage.request(path, method, operation).await;
            let key = "a-key-with-every-scope";
            let unknown = path.replace("{id}", "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55");
            let unknown = unknown.replace(['{', '}'], "");
            let method_name = method.to_uppercase().parse::<Method>().expect("a method");
            let mut wrong = vec![
                request().await.bearer_auth("a-wrong-key"),
                request().await.bearer_auth("a-key-that-may-only-erase"),
                request().await.bearer_auth("a-key-that-may-only-read"),
                request().await.bearer_auth(key).query(&[("no-such-parameter", "1")]),
                request().await.bearer_auth(key).header("x-large", "x".repeat(20_000)),
                request().await.bearer_auth(key).header("range", "bytes=99999999-"),
                stage.service.request(method_name, &unknown).bearer_auth(key),
            ];
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (name, most) = (text(&parameter["name"]), &parameter["schema"]["maximum"]);
                if let (Some(most), true) = (most.as_u64(), parameter["in"] == "query") {
                    let beyond = [(name, (u128::from(most) + 1).to_string())];
                    wrong.push(request().await.bearer_auth(key).query(&beyond));
                }
            }
            if operation["requestBody"].is_object() {
                for (kind, body) in [
                    ("application/json", "not JSON".to_owned()),
                    ("application/json", "[1]".to_owned()),
                    ("application/json", format!("\"{}\"", "x".repeat(2 * 1024 * 1024))),
                    ("application/xml", "<job/>".to_owned()),
                ] {
                    let request = request().await.bearer_auth(key);
                    wrong.push(request.header("content-type", kind).body(body));
                }
            }
            for request in wrong {
                let answer = Answer::of(request).await;
                if answer.status < 400 {
                    continue;
                }
                let problem = answer.json();
                let documented = &operation["responses"][answer.status.to_string()];
                let meanings = documented["description"].as_str().unwrap_or_default();
                let code = text(&problem["code"]).to_owned();
                let is_documented = meanings.contains(&format!("`{code}`"));
                assert!(is_documented, "{method} {path}: {}: {problem}", answer.status);
                codes.insert(code);
            }
        }
    }
    assert!(codes.len() >= 8, "the walk met {codes:?}");
}

#[tokio::test]
async fn the_documentation_page_loads_nothing_from_elsewhere() {
    let service = Service::start().await;
    let door = service.get("/docs").await;
    assert_eq!((door.status, door.header("location")), (303, Some("/docs/")));
    let page = service.get("/docs/").await.expect(200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let page = page.text();
    let mut assets = Vec::new();
    for attribute in ["src=", "href="] {
        for rest in page.split(attribute).skip(1) {
            let quote = rest.chars().next().expect("a value");
            assert!(matches!(quote, '"' | '\''), "{attribute}{rest:.40}");
            assets.push(rest[1..].split(quote).next().expect("its end").to_owned());
        }
    }
    assert!(assets.len() >= 4, "the page has scripts and styles: {assets:?}");
    for asset in assets {
        let is_own = !asset.starts_with("http") && !asset.starts_with("//") && !asset.contains(':');
        assert!(is_own, "{asset} is our own");
        let path = if asset.starts_with('/') { asset } else { format!("/docs/{asset}") };
        let answer = service.get(&path).await.expect(200);
        assert!(!answer.body.is_empty(), "{path}");
    }
    let script = service.get("/docs/swagger-initializer.js").await.expect(200).text();
    assert!(script.contains("/openapi.json"), "{script}");
    assert!(!script.contains("http://") && !script.contains("https://"), "{script}");
    assert!(script.contains(r#""validatorUrl": "none""#), "no outside validator: {script}");
}
