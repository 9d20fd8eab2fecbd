//! What the documentation shows is what is there.

const GUIDE: &str = include_str!("../../docs/RECEIVING.md");

#[test]
fn the_receivers_of_the_guide_are_the_files_beside_it() {
    for (language, file) in [
        ("python", include_str!("../../examples/receivers/receiver.py")),
        ("js", include_str!("../../examples/receivers/receiver.mjs")),
    ] {
        assert!(GUIDE.contains(&format!("```{language}\n{file}```\n")), "{language}");
    }
}
