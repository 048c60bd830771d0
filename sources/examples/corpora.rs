//! `cargo xtask corpora`: what becomes of every record of the logs beside the repository.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a developer's tool: it talks on its terminal and stops at what it cannot read"
)]

#[path = "../tests/support/survey.rs"]
mod survey;

fn main() {
    let Some(folder) = survey::folder() else {
        println!("SKIPPED corpora: {}", survey::ABSENT);
        return;
    };
    let show = std::env::args().nth(1);
    let tallies = survey::survey(&folder, |source, why, record| {
        if show
            .as_deref()
            .is_some_and(|show| show == why || show == source || show == "all")
        {
            println!("{source} {why}: {}", String::from_utf8_lossy(record));
        }
    });
    print!("{}", survey::table(&tallies));
}
