//! Meshes on a job's page: which outputs can be shown, and where from.

use finishline::simulator::FaultRate;
use serde_json::json;

use super::support::*;

#[tokio::test]
async fn outputs_that_are_meshes_are_offered_to_be_shown_from_this_service() {
    let service = Service::start().await;
    let structures = json!(["mandible", "\"><script>"]);
    let meshes: Vec<_> = [".stl", ".PLY", ".obj", ".drc"]
        .iter()
        .map(|extension| json!({"extension": extension, "structures": structures}))
        .collect();
    let job = ready_job_with(json!({"outputFiles": {"meshes": meshes}}));
    let job = service.submitted(&job).await;
    let id = text(&job["id"]).to_owned();
    let open = service.get(&format!("/jobs/{id}")).await.expect(200).text();
    assert!(!open.contains("data-mesh"), "there is no file yet: {open}");
    let outputs: Vec<_> = meshes
        .iter()
        .map(|mesh| {
            let mut output = mesh.clone();
            output["status"] = json!("Available");
            output["url"] = json!("https://store.example/mesh?X-Signature=top-secret");
            output
        })
        .collect();
    let result = json!({"success": true, "outputFiles": {"meshes": outputs}});
    service.post_to(&service.callback_url(&id), result.to_string()).await.expect(200);
    let html = service.get(&format!("/jobs/{id}")).await.expect(200).text();
    for (index, format) in ["stl", "ply", "obj"].iter().enumerate() {
        let button = format!(
            "data-mesh=\"/v1/jobs/{id}/outputs/meshes-{index}\" data-format=\"{format}\" \
             data-name=\"meshes-{index}: mandible, &quot;&gt;&lt;script&gt;\""
        );
        assert!(html.contains(&button), "{button}: {html}");
    }
    let offered = html.matches("data-mesh=").count();
    assert_eq!(offered, 3, "what no script can read is not offered: {html}");
    assert!(html.contains("/mesh.js\"></script>"), "{html}");
}

#[tokio::test]
async fn a_job_s_copies_are_offered_with_their_size_and_seen_on_its_time_line() {
    let setup = Setup::new().finishing_at_once().set("MIRROR__STORE", "memory:///");
    let setup = setup.engine(|options| {
        options.download_answer = Some(503);
        options.download_answer_rate = FaultRate::First(1);
    });
    let service = setup.start().await;
    let id = text(&service.submitted(&ready_job()).await["id"]).to_owned();
    let job = wait_for("the file to be copied", async || {
        Some(service.job(&id).await).filter(|job| job["secured"] == true)
    })
    .await;
    assert!(job["outputs"][0]["file"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{job}");
    let html = service.get(&format!("/jobs/{id}")).await.expect(200).text();
    for expected in [
        format!("href=\"/v1/jobs/{id}/outputs/meshes-0\" title=\"Kept here"),
        format!("href=\"/v1/jobs/{id}/outputs?bundle=zip\""),
        "aria-label=\"Mirror: mirror failed, mirrored, secured\"".to_owned(),
    ] {
        assert!(html.contains(&expected), "{expected}: {html}");
    }
}
