//! Cases are files in `tests/data/credentials`; see the README there.

use std::path::Path;

use proptest::prelude::*;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::super::WatchCatalogue;
use super::*;

fn format_of(name: &str) -> FileFormat {
    let name: StrDeserializer<'_, ValueError> = name.into_deserializer();
    FileFormat::deserialize(name).unwrap()
}

/// The case's text, the form of its catalogue row (first line `--- row <path>`), its path.
fn case_of<'t>(name: &str, text: &'t str, catalogue: &WatchCatalogue) -> (&'t str, Form, String) {
    let Some(rest) = text.strip_prefix("--- row ") else {
        let format = format_of(name.split('.').next().unwrap());
        return (text, format.into(), format!("/home/ada/{name}"));
    };
    let (row, rest) = rest.split_once('\n').unwrap();
    let form = catalogue
        .form_of(row)
        .unwrap_or_else(|| panic!("{name}: no row `{row}` in catalogue/watch.toml"));
    // A row for a directory or a pattern: the file's name is on the next line.
    match rest.strip_prefix("--- file ") {
        Some(rest) => {
            let (file, rest) = rest.split_once('\n').unwrap();
            (rest, form, file.to_owned())
        }
        None => (rest, form, format!("/home/ada/{name}")),
    }
}

#[test]
fn every_recorded_file_is_identified() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/credentials");
    let catalogue = WatchCatalogue::builtin().unwrap();
    let know = Recogniser::for_tests();
    let mut cases = 0;
    let mut wrong = String::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "case") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (body, expected) = text.split_once("--- expect\n").unwrap();
        let (input, form, file) = case_of(&name, body, &catalogue);
        let identified = know.identify_file(&form, Path::new(&file), input.as_bytes());
        let shown: String = identified
            .found
            .iter()
            .map(|f| {
                let entry = f.entry.as_deref().unwrap_or("-");
                let hosts: String = f.destinations.iter().map(|h| format!(" > {h}")).collect();
                format!("{entry} {}{hosts}\n", f.credential)
            })
            .collect();
        if shown != expected {
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(&path, format!("{body}--- expect\n{shown}")).unwrap();
            }
            wrong += &format!("{name}: found\n{shown}expected\n{expected}\n");
        }
        for (at, _) in input.match_indices("s3cr3t") {
            let secret = input[at..]
                .split(|c: char| !c.is_ascii_alphanumeric())
                .next()
                .unwrap();
            assert!(
                !format!("{identified:?}").contains(secret),
                "{name} shows a secret"
            );
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases >= 60, "{cases} cases in {}", dir.display());
}

#[test]
fn a_wrong_checksum_is_counted_not_reported() {
    let identified = Recogniser::for_tests().identify_file(
        &FileFormat::Text.into(),
        Path::new("/x"),
        b"ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa npm_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    );
    assert_eq!((identified.found.len(), identified.bad_checksums), (0, 2));
}

#[test]
fn too_many_credentials_are_counted() {
    let text: String = (0..100).map(|n| format!("AKIA{}\n", base32(n))).collect();
    let identified = Recogniser::for_tests().identify_file(
        &FileFormat::Text.into(),
        Path::new("/x"),
        text.as_bytes(),
    );
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
        ("/h/.kube/config", FileFormat::Kubeconfig),
        ("/p/credentials", FileFormat::Text),
    ] {
        assert_eq!(FileFormat::guess(Path::new(path)), format, "{path}");
    }
}

/// gcloud's databases as its own code makes them (`CREATE TABLE` of googlecloudsdk's
/// `core/credentials/creds.py`), one of them left in write-ahead mode.
#[test]
fn gclouds_databases_are_read_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, sql: &str| {
        let path = dir.path().join(name);
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        std::fs::read(path).unwrap()
    };
    let credentials = make(
        "credentials.db",
        r#"PRAGMA journal_mode=WAL;
           CREATE TABLE credentials (account_id TEXT PRIMARY KEY, value BLOB);
           INSERT INTO credentials VALUES ('Ana@Example.com', '{"type":"authorized_user","client_secret":"d-FL95Q19q7MQmFpd7hHD0Ty","refresh_token":"1//0gRefreshTokenThatIsMadeUpForTheTests0000000"}');
           INSERT INTO credentials VALUES ('ci@p.iam.gserviceaccount.com', '{"type":"service_account","client_email":"ci@p.iam.gserviceaccount.com","private_key_id":"0b1c2d3e4f5061728394a5b6c7d8e9f001122334"}');"#,
    );
    let tokens = make(
        "access_tokens.db",
        "CREATE TABLE access_tokens (account_id TEXT PRIMARY KEY, access_token TEXT, token_expiry TIMESTAMP, rapt_token TEXT, id_token TEXT);
         INSERT INTO access_tokens VALUES ('ana@example.com', 'ya29.a0MadeUpAccessTokenForTheTests-000000000000000', NULL, NULL, NULL);",
    );
    let kinds = |bytes: &[u8]| -> Vec<String> {
        let found = Recogniser::for_tests().identify_file(
            &FileFormat::GcloudSqlite.into(),
            Path::new("/x"),
            bytes,
        );
        // A keyed hash without its digits.
        let shown = |id: String| match id.split_once('/') {
            Some((kind, _)) if kind.starts_with("keyed-hash:") => kind.to_owned(),
            _ => id,
        };
        found
            .found
            .iter()
            .map(|f| shown(f.credential.to_string()))
            .collect()
    };
    assert_eq!(
        kinds(&credentials),
        [
            "principal:gcp/ana@example.com",
            "keyed-hash:google-oauth",
            "keyed-hash:google-client-secret",
            "principal:gcp/ci@p.iam.gserviceaccount.com",
            "gcp-service-account-key:0b1c2d3e4f5061728394a5b6c7d8e9f001122334",
            "principal:gcp/ci@p.iam.gserviceaccount.com",
        ]
    );
    assert_eq!(kinds(&tokens).len(), 2);
    assert_eq!(kinds(b"SQLite format 3\0 and nothing else"), [""; 0]);
}

const FORMATS: [&str; 26] = [
    "aws-ini",
    "aws-json",
    "ini",
    "gh-hosts",
    "git-credentials",
    "netrc",
    "npmrc",
    "dotenv",
    "docker-config",
    "kubeconfig",
    "gcloud-sqlite",
    "json",
    "yaml",
    "toml",
    "xml",
    "mcp-json",
    "mcp-toml",
    "mcp-yaml",
    "pem",
    "ssh-key",
    "pgpass",
    "token",
    "age-keys",
    "solana-key",
    "store",
    "text",
];

proptest! {
    #[test]
    fn any_bytes_in_any_format_are_taken(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        name in prop::sample::select(FORMATS.to_vec()),
    ) {
        let form = format_of(name).into();
        let identified = Recogniser::for_tests().identify_file(&form, Path::new("/x/y"), &bytes);
        prop_assert!(identified.found.len() <= 64);
    }

    #[test]
    fn any_text_in_any_format_is_taken(
        text in "([\\[\\]{}<>:=,\"'#a-z0-9 \n-]|-----BEGIN [A-Z]{1,3} PRIVATE KEY-----|eyJ|env|users){0,60}",
        name in prop::sample::select(FORMATS.to_vec()),
    ) {
        let form = format_of(name).into();
        let identified = Recogniser::for_tests().identify_file(&form, Path::new("/x/y"), text.as_bytes());
        prop_assert!(identified.found.len() <= 64);
    }

    /// No finding carries the secret, whatever the file looks like.
    #[test]
    fn secrets_do_not_come_out(secret in "[A-Za-z0-9+]{40}", name in "[a-z]{1,8}") {
        for (format, text) in [
            ("aws-ini", format!("[{name}]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = {secret}\n")),
            ("dotenv", format!("DB_PASSWORD={secret}\nURL=https://{name}:{secret}@h.example/\n")),
            ("netrc", format!("machine h.example login {name} password {secret}\n")),
            ("npmrc", format!("//h.example/:_authToken={secret}\n")),
            ("pgpass", format!("h:1:d:{name}:{secret}\n")),
            ("token", secret.clone()),
            ("mcp-json", format!("{{\"mcpServers\":{{\"{name}\":{{\"env\":{{\"API_KEY\":\"{secret}\"}}}}}}}}")),
            ("docker-config", format!("{{\"auths\":{{\"h.example\":{{\"identitytoken\":\"{secret}\"}}}}}}")),
        ] {
            let form = format_of(format).into();
            let identified = Recogniser::for_tests().identify_file(&form, Path::new("/x"), text.as_bytes());
            prop_assert!(!identified.found.is_empty(), "{}", format);
            prop_assert!(!format!("{identified:?}").contains(&secret), "{}", format);
        }
    }
}
