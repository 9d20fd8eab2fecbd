//! A working week at a dental laboratory: jobs in every state, as the pages show them.
//!
//! The invariant: time stands still and everything is told apart by its reference, so two runs
//! show the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{http::StatusCode, routing::post};
use finishline::{clock::Clock, simulator::FaultRate};
use serde_json::{Value, json};

use crate::support::*;

/// Of the target that results are passed on to.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Ordinary jobs: day and hour they come, minutes they take, reference, end user, structures.
const ORDINARY: &[(&str, u64, &str, &str, &[&str])] = &[
    ("2026-03-02T08:12:00Z", 11, "implant-0412", "studio-nord", &["mandible", "left_nerve"]),
    ("2026-03-02T09:40:00Z", 9, "aligner-1187", "praxis-linde", &["all_permanent_teeth"]),
    ("2026-03-02T13:05:00Z", 14, "implant-0413", "studio-nord", &["mandible", "skull"]),
    ("2026-03-03T07:55:00Z", 10, "splint-0077", "zahnwerk", &["mandible"]),
    ("2026-03-03T10:30:00Z", 12, "aligner-1188", "praxis-linde", &["all_permanent_teeth"]),
    ("2026-03-03T15:20:00Z", 19, "surgery-0021", "klinik-west", &["mandible", "skull"]),
    ("2026-03-04T08:03:00Z", 8, "splint-0078", "zahnwerk", &["mandible"]),
    ("2026-03-04T09:14:00Z", 11, "implant-0414", "studio-nord", &["mandible", "all_nerves"]),
    ("2026-03-04T11:48:00Z", 13, "aligner-1189", "praxis-linde", &["all_permanent_teeth"]),
    ("2026-03-05T08:21:00Z", 12, "implant-0415", "studio-nord", &["mandible", "right_nerve"]),
];

/// A service with that week behind it.
pub struct Scene {
    pub service: Service,
    clock: Clock,
    /// A job that succeeded, with a result, a relay and a mesh.
    pub succeeded: String,
    /// One whose result is contradicted by a later delivery.
    pub conflict: String,
    /// One whose result was not taken by its target.
    pub dead: String,
    /// One that the Engine may or may not have taken.
    pub unconfirmed: String,
    /// One whose scan is awaited.
    pub awaiting: String,
}

impl Scene {
    pub async fn play() -> Self {
        let start = "2026-03-02T08:00:00Z".parse().expect("a time");
        let clock = Clock::manual(start);
        let is_well = Arc::new(AtomicBool::new(true));
        let service = Setup::new()
            .clock(&clock)
            .set("RELAY__TARGETS", targets(&target(is_well.clone()).await))
            .set("RELAY__SCHEDULE", "[]")
            .engine(|options| options.running = finishline::simulator::Running::Accepted)
            .start()
            .await;
        let mut scene = Self {
            service,
            clock,
            succeeded: String::new(),
            conflict: String::new(),
            dead: String::new(),
            unconfirmed: String::new(),
            awaiting: String::new(),
        };
        for (at, minutes, reference, end_user, structures) in ORDINARY {
            scene.wait_until(at);
            let job = scene.submit(&body(reference, end_user, structures)).await;
            scene.succeeded = scene.finish_after(*minutes, &job).await;
        }
        scene.play_the_unusual(&is_well).await;
        scene.play_the_unfinished().await;
        scene
    }

    /// Finished, but not as one would wish.
    async fn play_the_unusual(&mut self, is_well: &AtomicBool) {
        let engine = &self.service.engine;
        engine.set(|options| options.missing = vec!["tooth48".into()]);
        engine.set(|options| options.failed = vec!["left_nerve".into()]);
        self.wait_until("2026-03-05T09:02:00Z");
        let wisdom: &[_] = &["mandible", "tooth38", "tooth48", "left_nerve"];
        let job = self.submit(&body("wisdom-0003", "klinik-west", wisdom)).await;
        self.finish_after(16, &job).await;
        self.service.engine.set(|options| options.failed.clear());

        self.service.engine.set(|options| options.fail_job = FaultRate::Always);
        self.wait_until("2026-03-05T09:30:00Z");
        let job = self.submit(&body("surgery-0022", "klinik-west", &["skull"])).await;
        self.finish_after(4, &job).await;
        self.service.engine.set(|options| options.fail_job = FaultRate::Never);

        is_well.store(false, Ordering::Relaxed);
        self.wait_until("2026-03-05T09:45:00Z");
        let job = self.submit(&body("aligner-1190", "praxis-linde", &["all_teeth"])).await;
        self.dead = self.finish_after(12, &job).await;
        is_well.store(true, Ordering::Relaxed);

        self.wait_until("2026-03-05T10:10:00Z");
        let job = self.submit(&body("implant-0416", "studio-nord", &["mandible"])).await;
        self.conflict = self.finish_after(10, &job).await;
        let url = self.service.callback_url(&self.conflict);
        let result = self.service.get(&format!("/v1/jobs/{}/result", self.conflict)).await;
        let other = result.text().replace("Available", "Failed");
        self.service.post_to(&url, other).await.expect(200);

        self.service.engine.set(|options| options.answer = Some(400));
        let refused = body("splint-0079", "zahnwerk", &["mandibel"]);
        self.service.submit(&refused).await.problem(422, "engine-rejected");
        self.service.engine.set(|options| options.answer = Some(500));
        let doubtful = body("aligner-1191", "praxis-linde", &["all_teeth"]);
        let answer = self.service.submit(&doubtful).await;
        let problem = answer.problem(502, "engine-unavailable");
        self.unconfirmed = text(&problem["jobId"]).to_owned();
        self.service.engine.set(|options| options.answer = None);
    }

    /// Still on their way.
    async fn play_the_unfinished(&mut self) {
        self.wait_until("2026-03-05T10:30:00Z");
        let overdue = self.submit(&body("surgery-0023", "klinik-west", &["skull"])).await;
        self.wait_until("2026-03-05T11:04:00Z");
        self.submit(&body("implant-0417", "studio-nord", &["mandible", "all_nerves"])).await;
        let id = text(&overdue["id"]).to_owned();
        wait_for("a job to be overdue", async || {
            self.service.reconcile().await;
            (self.service.job(&id).await["overdue"] == true).then_some(())
        })
        .await;
        self.wait_until("2026-03-05T11:07:00Z");
        let mut awaiting = body("aligner-1192", "praxis-linde", &["all_permanent_teeth"]);
        awaiting["inputFiles"] =
            json!({"ios_upper": {"extension": ".stl"}, "ios_lower": {"extension": ".stl"}});
        self.awaiting = text(&self.submit(&awaiting).await["id"]).to_owned();
        self.wait_until("2026-03-05T11:08:20Z");
    }

    async fn submit(&self, body: &Value) -> Value {
        self.service.submitted(body).await
    }

    /// Finishes a job after so many minutes; answers its id once its result was passed on.
    async fn finish_after(&self, minutes: u64, job: &Value) -> String {
        self.clock.advance(Duration::from_secs(minutes * 60));
        self.service.finish(job).await;
        let id = text(&job["id"]).to_owned();
        wait_for("the relay", async || {
            let relays = self.service.get(&format!("/v1/relays?jobId={id}")).await.json();
            (relays["relays"][0]["attempts"] == 1).then_some(())
        })
        .await;
        id
    }

    fn wait_until(&self, at: &str) {
        let at: jiff::Timestamp = at.parse().expect("a time");
        let rest = at.duration_since(self.clock.now());
        self.clock.advance(Duration::try_from(rest).expect("time goes forward"));
    }

    /// The pages that the README shows, by the names of their pictures.
    pub fn pages_of_the_readme(&self) -> [(&'static str, String); 4] {
        [
            ("jobs", "/jobs".to_owned()),
            ("job", format!("/jobs/{}", self.succeeded)),
            ("overview", "/overview".to_owned()),
            ("submit", "/submit".to_owned()),
        ]
    }

    /// Every page there is, by a short name.
    pub fn pages(&self) -> Vec<(&'static str, String)> {
        let job = |id: &str| format!("/jobs/{id}");
        vec![
            ("jobs", "/jobs".to_owned()),
            ("filtered", "/jobs?status=failed&endUserId=klinik-west".to_owned()),
            ("nothing fits", "/jobs?reference=nobody".to_owned()),
            ("job", job(&self.succeeded)),
            ("conflict", job(&self.conflict)),
            ("dead relay", job(&self.dead)),
            ("unconfirmed", job(&self.unconfirmed)),
            ("awaiting", job(&self.awaiting)),
            ("overview", "/overview".to_owned()),
            ("submit", "/submit".to_owned()),
            ("erase", format!("/jobs/{}/erase", self.succeeded)),
        ]
    }
}

fn body(reference: &str, end_user: &str, structures: &[&str]) -> Value {
    let meshes: Vec<Value> = structures
        .iter()
        .map(|structure| json!({"extension": ".stl", "structures": [structure]}))
        .collect();
    json!({
        "inputFiles": {"cbct":
            {"extension": ".dcm.gz", "downloadUrl": "https://store.example/scan.dcm.gz"}},
        "outputFiles": {"meshes": meshes},
        "endUserId": end_user,
        "finishline": {"reference": reference},
    })
}

/// An application that takes results as long as it is well.
async fn target(is_well: Arc<AtomicBool>) -> String {
    let answer = async move || match is_well.load(Ordering::Relaxed) {
        true => (StatusCode::OK, "taken"),
        false => (StatusCode::BAD_GATEWAY, "upstream is down"),
    };
    serve(axum::Router::new().route("/results", post(answer))).await
}

fn targets(origin: &str) -> Value {
    json!([{"name": "planning", "url": format!("{origin}/results"), "secret": SECRET}])
}
