//! A mesh that one can turn: the picture moves under the hand and under the keys.
//!
//! The file comes from the test, in the place of the file store's answer: what is looked at is the
//! reader, the drawing and the hands.

use serde_json::json;

use crate::{browser::Browser, support::*};

/// The protocol's code of a key.
const ARROW_RIGHT: &str = "\u{E014}";

/// A tetrahedron without symmetry, so that it looks different from every side.
const MESH: &str = "solid t
facet normal 0 0 0 outer loop
vertex 0 0 0
vertex 4 0 0
vertex 0 2 0
endloop endfacet
facet normal 0 0 0 outer loop
vertex 0 0 0
vertex 4 0 0
vertex 0 0 1
endloop endfacet
facet normal 0 0 0 outer loop
vertex 0 0 0
vertex 0 2 0
vertex 0 0 1
endloop endfacet
facet normal 0 0 0 outer loop
vertex 4 0 0
vertex 0 2 0
vertex 0 0 1
endloop endfacet
endsolid t
";

/// Answers for the outputs' addresses with the first argument.
const SERVE: &str = "
    const file = arguments[0], real = window.fetch;
    window.fetch = (address, how) => String(address).includes('/outputs/')
        ? Promise.resolve(new Response(file)) : real(address, how)";

/// The canvas as it is seen, once it has been drawn.
async fn seen(browser: &Browser) -> Vec<u8> {
    browser.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))").await;
    browser.picture_of("dialog canvas").await
}

#[tokio::test]
async fn a_mesh_turns_under_the_hand_and_under_the_keys() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    browser.visit(&format!("{}/jobs/{}", service.api, text(&job["id"]))).await;
    browser.settle().await;
    browser.run_with(SERVE, json!([MESH])).await;
    browser.click("[data-mesh]").await;
    browser.wait_until("document.querySelector('dialog canvas')").await;
    assert!(browser.text_of("dialog").await.contains("4 triangles"));
    // The ring around what has the focus comes with the first key, and is not the mesh.
    browser.run("document.querySelector('dialog canvas').style.outline = 'none'").await;
    let first = seen(&browser).await;
    browser.drag("dialog canvas", (120, 60)).await;
    let turned = seen(&browser).await;
    assert!(first != turned, "the hand turns it");
    browser.press(ARROW_RIGHT).await;
    assert!(turned != seen(&browser).await, "the keys turn it");
    browser.press("0").await;
    assert!(first == seen(&browser).await, "it is as it was");
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_file_that_is_no_mesh_is_refused_in_words() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    browser.visit(&format!("{}/jobs/{}", service.api, text(&job["id"]))).await;
    browser.settle().await;
    browser.run_with(SERVE, json!(["<script>window.hurt = 1</script>"])).await;
    browser.click("[data-mesh]").await;
    browser
        .wait_until(
            "document.querySelector('dialog [role=status]')?.innerText.includes('cannot be shown')",
        )
        .await;
    assert_eq!(browser.run("return window.hurt ?? null").await, json!(null));
}
