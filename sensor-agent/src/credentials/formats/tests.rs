//! Cases are files in `tests/data/credentials`; see the README there.

use std::path::Path;

use proptest::prelude::*;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::*;

fn format_of(name: &str) -> FileFormat {
    let name: StrDeserializer<'_, ValueError> = name.into_deserializer();
    FileFormat::deserialize(name).unwrap()
}

#[test]
fn every_recorded_file_is_identified() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/credentials");
    let mut cases = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "case") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (input, expected) = text.split_once("--- expect\n").unwrap();
        let identified =
            identify_file(format_of(name.split('.').next().unwrap()), input.as_bytes());
        let shown: String = identified
            .found
            .iter()
            .map(|f| format!("{} {}\n", f.entry.as_deref().unwrap_or("-"), f.credential))
            .collect();
        assert_eq!(shown, expected, "{name}");
        cases += 1;
    }
    assert!(cases >= 15, "{cases} cases in {}", dir.display());
}

#[test]
fn a_wrong_checksum_is_counted_not_reported() {
    let identified = identify_file(
        FileFormat::Text,
        b"ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    );
    assert_eq!((identified.found.len(), identified.bad_checksums), (0, 1));
}

#[test]
fn too_many_credentials_are_counted() {
    let text: String = (0..100).map(|n| format!("AKIA{}\n", base32(n))).collect();
    let identified = identify_file(FileFormat::Text, text.as_bytes());
    assert_eq!((identified.found.len(), identified.dropped), (64, 36));
}

fn base32(number: u32) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    (0..16)
        .map(|at| char::from(digits[(number >> at) as usize % 32]))
        .collect()
}

#[test]
fn formats_are_guessed_from_names() {
    for (path, format) in [
        ("/h/.aws/credentials", FileFormat::AwsIni),
        ("/h/.config/gh/hosts.yml", FileFormat::GhHosts),
        ("/p/.env.local", FileFormat::Dotenv),
        ("/p/credentials", FileFormat::Text),
    ] {
        assert_eq!(FileFormat::guess(Path::new(path)), format, "{path}");
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_format_are_taken(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        name in prop::sample::select(vec!["aws-ini", "aws-json", "ini", "gh-hosts",
            "git-credentials", "netrc", "npmrc", "dotenv", "docker-config", "text"]),
    ) {
        let identified = identify_file(format_of(name), &bytes);
        prop_assert!(identified.found.len() <= 64);
    }

    /// No finding carries the secret part, whatever the file looks like.
    #[test]
    fn secrets_do_not_come_out(secret in "[A-Za-z0-9/+]{40}", name in "[a-z]{1,8}") {
        let text = format!("[{name}]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n\
                            aws_secret_access_key = {secret}\n");
        let shown = format!("{:?}", identify_file(FileFormat::AwsIni, text.as_bytes()));
        prop_assert!(!shown.contains(&secret));
    }
}
