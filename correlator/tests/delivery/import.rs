//! `correlator import`: files and standard input, into a running correlator and a stopped one.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::{Rig, file, gzip, minutes_ago, record};
use crate::line;

fn import(arguments: &[&str], data: &Path, input: &[u8]) -> (bool, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_correlator"))
        .arg("import")
        .args(arguments)
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdin.take().unwrap().write_all(input));
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_standard_input_are_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let api = rig.url("");
    let one = dir.path().join("one.json.gz");
    let two = dir.path().join("two.json.zst");
    let good = |id: &str| record(id, minutes_ago(10));
    std::fs::write(&one, gzip(&file(&[good("i1"), json!(7), good("i2")]))).unwrap();
    let lines = format!("{}{}", line("i2"), line("i3"));
    std::fs::write(&two, zstd::encode_all(lines.as_bytes(), 1).unwrap()).unwrap();
    let kind = ["--kind", "aws.cloudtrail", "--api", api.as_str()];
    let files = [one.to_str().unwrap(), two.to_str().unwrap()];
    let (ok, out, error) = import(&[kind.as_slice(), &files].concat(), &rig.data, b"");
    assert!(ok, "{error}");
    assert!(
        out.starts_with("5 records: 4 uses, 3 of them new, 1 seen before"),
        "{out}"
    );
    assert!(out.contains("refused: 1 not-object"), "{out}");
    let piped = [kind.as_slice(), &["-"]].concat();
    let (ok, out, error) = import(&piped, &rig.data, line("i4").as_bytes());
    assert!(ok && out.contains("1 of them new"), "{out}{error}");
    // A damaged file: what came before counts, and it is said.
    let torn = file(&[good("i5"), good("i6")]);
    let (ok, out, error) = import(&piped, &rig.data, &torn[..torn.len() - 9]);
    assert!(!ok && error.contains("ends in the middle"), "{error}");
    assert!(out.contains("1 of them new"), "{out}");
    let wrong = ["--kind", "aws.cloudtrial", "--api", api.as_str(), "-"];
    let (ok, _, error) = import(&wrong, &rig.data, b"");
    assert!(!ok && error.contains("aws.cloudtrail"), "{error}");
    assert_eq!(rig.counter("uses_new").await, 5);
    rig.server.stop().await;

    // Offline, into the same data.
    let offline = ["--kind", "aws.cloudtrail", "--offline", "-"];
    let input = format!("{}{}", line("i4"), line("i7"));
    let (ok, out, error) = import(&offline, &rig.data, input.as_bytes());
    assert!(ok, "{error}");
    assert!(
        out.starts_with("2 records: 2 uses, 1 of them new, 1 seen before"),
        "{out}"
    );
    let rig = Rig::start(dir.path()).await;
    let status = rig.get("/v1/status").await;
    let uses: u64 = status["store"]["uses"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(uses, 6, "{status}");
    // While it runs, the data is its own.
    let (ok, _, error) = import(&offline, &rig.data, input.as_bytes());
    assert!(
        !ok && error.contains("in use by another correlator"),
        "{error}"
    );
    rig.server.stop().await;
}
