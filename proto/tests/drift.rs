//! The committed code is what the `.proto` files generate.

mod generate;

#[test]
fn generated_code_is_current() {
    let fresh = tempfile::tempdir().unwrap();
    generate::into(fresh.path()).unwrap();
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    let mut names = 0;
    for entry in std::fs::read_dir(fresh.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let new = std::fs::read_to_string(fresh.path().join(&name)).unwrap();
        let old = std::fs::read_to_string(committed.join(&name)).unwrap_or_default();
        assert!(
            new == old,
            "src/gen/{} is stale: run `cargo run --release -p keytrail-proto --example generate`",
            name.display()
        );
        names += 1;
    }
    assert_eq!(names, 1, "one package, one file");
}
