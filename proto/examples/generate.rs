//! Writes `src/gen/` from `proto/`. Run after every change of a `.proto` file:
//! `cargo run --release -p keytrail-proto --example generate`.

#[path = "../tests/generate/mod.rs"]
mod generate;

fn main() {
    let out = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    if let Err(error) = generate::into(&out) {
        #[expect(clippy::print_stderr, reason = "a developer's command line tool")]
        {
            eprintln!("cannot generate {}: {error}", out.display());
        }
        std::process::exit(1);
    }
}
