//! The pictures of the README, light and dark: `cargo test --test browser -- --ignored`.

use std::{fs, path::Path};

use crate::{
    browser::{Browser, Scheme},
    scene::Scene,
};

/// Where they lie, from the project's root.
const FOLDER: &str = "docs/screenshots";

/// A small laptop's window.
const SIZE: (u32, u32) = (1280, 800);

/// A picture that is larger makes the project heavy for everyone.
const MOST_BYTES: usize = 150 * 1024;

#[tokio::test]
#[ignore = "writes docs/screenshots"]
async fn pictures_of_the_pages_are_taken() {
    let browser = Browser::open().await.expect("Chromium and chromedriver are installed");
    let scene = Scene::play().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    fs::create_dir_all(&folder).unwrap();
    for (name, path) in scene.pages_of_the_readme() {
        for scheme in Scheme::BOTH {
            browser.look_at(SIZE, scheme).await;
            browser.visit(&format!("{}{path}", scene.service.api)).await;
            browser.settle().await;
            let picture = browser.picture().await;
            assert!(picture.len() < MOST_BYTES, "{name} has {} bytes", picture.len());
            fs::write(folder.join(format!("{name}-{}.png", scheme.name())), picture).unwrap();
        }
    }
}
