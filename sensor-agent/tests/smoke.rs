//! A short, repeatable run of the fuzz targets' bodies: the recorded files, damaged in many ways.
//! `KEYTRAIL_FUZZ_RUNS` sets how many a target (default 400).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test code: it fails by panicking"
)]

use std::path::Path;

use sensor_agent::fuzz;

/// Splitmix64: small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % sides.max(1)
    }
}

/// What parsers of these formats stumble over.
const ODD: [&str; 20] = [
    "[",
    "{",
    "{{",
    "\"",
    "'",
    "=",
    "\n[",
    ": ",
    "- ",
    "\\",
    "\0",
    "&a *a",
    "<<: *a",
    "-----BEGIN PRIVATE KEY-----\n",
    "-----END X-----",
    "eyJhbGciOiJ9.eyJqdGkiOjF9.c2ln",
    "ghs_",
    "AKIA",
    "pypi-AgE",
    "\u{1F980}",
];

fn damage(dice: &mut Dice, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len());
        let end = (at + dice.roll(48)).min(bytes.len());
        match dice.roll(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, ODD[dice.roll(ODD.len())].bytes())),
            4 => {
                let from = dice.roll(other.len());
                let to = (from + dice.roll(64)).min(other.len());
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            _ => {
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
        }
    }
    bytes
}

fn seeds(folder: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(folder);
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_none_or(|e| e != "expect" && e != "md"));
    files.sort();
    let seeds: Vec<Vec<u8>> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    assert!(seeds.len() > 5, "no seeds in {folder}");
    seeds
}

/// Runs `body` on damaged seeds, each after a byte that chooses the form.
fn run(seed: u64, seeds: &[Vec<u8>], forms: usize, body: impl Fn(&[u8])) {
    let asked = std::env::var("KEYTRAIL_FUZZ_RUNS").ok();
    let runs = asked.and_then(|n| n.parse().ok()).unwrap_or(400);
    let mut dice = Dice(seed);
    for _ in 0..runs {
        let (one, other) = (dice.roll(seeds.len()), dice.roll(seeds.len()));
        let mut input = vec![dice.roll(forms) as u8];
        input.extend(damage(&mut dice, &seeds[one], &seeds[other]));
        body(&input);
    }
}

#[test]
fn credentials() {
    run(1, &seeds("credentials"), fuzz::forms(), fuzz::credential);
    assert!(
        (100..=256).contains(&fuzz::forms()),
        "a byte must choose the form"
    );
}

#[test]
fn environments() {
    let blocks: Vec<Vec<u8>> = seeds("credentials")
        .iter()
        .map(|seed| {
            seed.iter()
                .map(|b| if *b == b'\n' { 0 } else { *b })
                .collect()
        })
        .collect();
    run(2, &blocks, 1, |data| fuzz::environment(&data[1..]));
}

#[test]
fn configurations() {
    run(3, &seeds("configs"), 3, fuzz::mcp_config);
}

#[test]
fn command_lines() {
    let lines: Vec<Vec<u8>> = [
        "npx\0-y\0@scope/pkg@1.2.3\0/data",
        "sh\0-c\0exec npx -y pkg --token 'x y'",
        "docker\0run\0-i\0--rm\0-e\0TOKEN\0ghcr.io/x/y:v1",
        "uv\0run\0--directory\0/srv\0server.py\0--password\0hunter2",
        "supergateway\0--stdio\0npx -y pkg /x",
        "env\0A=b\0timeout\x005\0node\0--require\0./x.js\0server.js",
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec();
    run(4, &lines, 1, |data| fuzz::command_line(&data[1..]));
}

#[test]
fn tokens() {
    let claims = [
        r#"{"iss":"https://sts.windows.net/t/","uti":"abc","sid":"s","oid":"o","tid":"t","upn":"a@b.c"}"#,
        r#"{"iss":"kubernetes/serviceaccount","jti":"j","kubernetes.io":{"namespace":"n"}}"#,
        r#"{"iss":"https://accounts.example:8443/x","jti":"j","email":"a@b.c"}"#,
    ]
    .map(|claims| claims.as_bytes().to_vec());
    run(8, &claims, 1, |data| fuzz::jwt(&data[1..]));
}

/// A ClientHello with a server name, as RFC 8446 section 4.1.2 and RFC 6066 section 3 lay it out.
fn hello(name: &str) -> Vec<u8> {
    let u16 = |n: usize| (n as u16).to_be_bytes();
    let entry = [&[0][..], &u16(name.len()), name.as_bytes()].concat();
    let list = [&u16(entry.len())[..], &entry].concat();
    let extension = [&[0, 0][..], &u16(list.len()), &list].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &u16(2),
        &[0x13, 1],
        &[1, 0],
        &u16(extension.len()),
        &extension,
    ]
    .concat();
    let handshake = [&[1, 0][..], &u16(body.len()), &body].concat();
    [&[0x16, 3, 1][..], &u16(handshake.len()), &handshake].concat()
}

#[test]
fn hellos() {
    let hellos = ["s3.us-east-1.amazonaws.com", "x", "api.example.com"]
        .map(hello)
        .to_vec();
    run(5, &hellos, 256, fuzz::client_hello);
}

#[test]
fn dns_messages() {
    // A question for a name, and an answer that points back at it (RFC 1035, section 4).
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03api\x07example\x03com\x00\x00\x01\x00\x01";
    let mut answer = question.to_vec();
    answer[2] = 0x81;
    answer[7] = 1;
    answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x01");
    run(7, &[question.to_vec(), answer], 1, |data| {
        fuzz::dns_message(&data[1..])
    });
}

#[test]
fn ring_records() {
    let records: Vec<Vec<u8>> = (0_u16..24)
        .map(|kind| [&kind.to_ne_bytes()[..], &[64, 0], &[0; 4200]].concat())
        .collect();
    run(6, &records, 1, |data| fuzz::ring_record(&data[1..]));
}
