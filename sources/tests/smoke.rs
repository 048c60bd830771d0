//! A short, repeatable run of the fuzz targets' bodies: records of the cases, damaged in many ways.
//! `KEYTRAIL_FUZZ_RUNS` sets how many a source (default 2,000).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test code: it fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use keytrail_sources::{Mapping, SourceKind, fuzz};

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

/// Values that parsers stumble over.
const ODD: [&str; 24] = [
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "[[[[[[[[",
    "{\"a\":",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\u{feff}",
    "\"AKIAIOSFODNN7EXAMPLE\"",
    "99999999999999",
    "\"2026-13-45T99:99:99Z\"",
    "\"::ffff:1.2.3.4\"",
    "\"a/b:c@d?e=f\"",
    "\"hmac-sha256:\"",
    "\n",
    "\\",
    "\"\\\"",
    "\u{1F980}",
];

fn damage(dice: &mut Dice, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len());
        match dice.roll(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            1 => bytes.truncate(at),
            2 => {
                let end = (at + dice.roll(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let odd = ODD[dice.roll(ODD.len())].bytes();
                bytes.splice(at..at, odd);
            }
            // A member's value by an odd one: from a colon to the next comma.
            4 | 5 => {
                let colon = bytes
                    .iter()
                    .skip(at)
                    .position(|b| *b == b':')
                    .map(|p| at + p + 1);
                if let Some(start) = colon {
                    let run = bytes
                        .iter()
                        .skip(start)
                        .position(|b| matches!(b, b',' | b'}'));
                    let end = run.map_or(bytes.len(), |p| start + p);
                    bytes.splice(start..end, ODD[dice.roll(ODD.len())].bytes());
                }
            }
            6 => {
                let from = dice.roll(other.len());
                let to = (from + dice.roll(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let end = (at + dice.roll(48)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn runs() -> usize {
    let asked = std::env::var("KEYTRAIL_FUZZ_RUNS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

fn seeds(folder: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|e| e != "expect") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// Runs `body` on damaged seeds.
fn run(seed: u64, seeds: &[Vec<u8>], body: impl Fn(&[u8])) {
    let mut dice = Dice(seed);
    seeds.iter().for_each(|seed| body(seed));
    for _ in 0..runs() {
        let (one, other) = (dice.roll(seeds.len()), dice.roll(seeds.len()));
        body(&damage(&mut dice, &seeds[one], &seeds[other]));
    }
}

macro_rules! smoke {
    ($($name:ident $kind:ident,)*) => {$(
        #[test]
        fn $name() {
            let kind = SourceKind::$kind;
            let folder = if kind == SourceKind::Mapped { "mapped/slack" } else { kind.as_str() };
            run(kind as u64, &seeds(&cases().join(folder)), |data| fuzz::record(kind, data));
        }
    )*};
}

smoke! {
    aws_cloudtrail AwsCloudTrail,
    bedrock_invocation BedrockInvocation,
    azure_activity AzureActivity,
    azure_key_vault AzureKeyVault,
    entra_sign_in EntraSignIn,
    graph_activity GraphActivity,
    azure_openai AzureOpenAi,
    gcp_audit GcpAudit,
    okta Okta,
    github_audit GithubAudit,
    gitlab_audit GitlabAudit,
    vault_audit VaultAudit,
    cyberark CyberArk,
    salesforce Salesforce,
    workday Workday,
    kubernetes_audit KubernetesAudit,
    mapped Mapped,
}

#[test]
fn framing() {
    run(90, &seeds(&cases()), fuzz::framing);
}

#[test]
fn mapping() {
    let maps = seeds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings"));
    let record = br#"{"id":1,"date_create":1763928843,"action":"x","actor":{"email":"a@b.c"},"time":1763928843,"created_at":1763928843}"#;
    let pairs: Vec<Vec<u8>> = maps
        .iter()
        .map(|map| [map.as_slice(), &[0], record].concat())
        .collect();
    run(91, &pairs, fuzz::mapping);
    assert!(Mapping::shipped_names().count() >= 10);
}

/// Every source's parser is given every other source's records: it refuses them, or takes what is
/// in them, but never falls over.
#[test]
fn foreign_records() {
    let all = seeds(&cases());
    for kind in SourceKind::ALL {
        all.iter().for_each(|data| fuzz::record(kind, data));
    }
}
