//! Keys made by `ssh-keygen` and `openssl` in the test itself, where those are installed, and the
//! fingerprints that the same tools print.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::super::Recogniser;
use super::*;

fn found(text: &[u8], naming: Naming) -> Vec<String> {
    let mut findings = Findings::new(Recogniser::for_tests());
    pem(text, naming, None, &mut findings);
    let found = findings.finish().found;
    found.iter().map(|f| f.credential.to_string()).collect()
}

/// Runs a tool; `None` when it is not installed.
fn run(line: &str, dir: &Path) -> Option<String> {
    let mut words = line.split(' ').map(|w| if w == "EMPTY" { "" } else { w });
    let output = Command::new(words.next()?)
        .args(words)
        .current_dir(dir)
        .output()
        .ok()?;
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn fingerprints_are_those_that_ssh_keygen_prints() {
    let dir = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for (name, options) in [
        ("ed25519", "-t ed25519 -N EMPTY"),
        ("ed25519-passphrase", "-t ed25519 -N made-up-passphrase"),
        ("rsa", "-t rsa -b 2048 -N EMPTY"),
        ("rsa-pem", "-t rsa -b 2048 -m PEM -N EMPTY"),
        ("rsa-pkcs8", "-t rsa -b 2048 -m PKCS8 -N EMPTY"),
        ("ecdsa", "-t ecdsa -b 384 -N EMPTY"),
        ("ecdsa-pem", "-t ecdsa -b 256 -m PEM -N EMPTY"),
        ("ecdsa-pkcs8", "-t ecdsa -b 521 -m PKCS8 -N EMPTY"),
    ] {
        let file = name.to_owned();
        let Some(_) = run(&format!("ssh-keygen -q {options} -f {file}"), dir.path()) else {
            println!("SKIPPED fingerprints_are_those_that_ssh_keygen_prints: no ssh-keygen here");
            return;
        };
        let printed = run(&format!("ssh-keygen -l -f {file}.pub"), dir.path()).unwrap();
        let fingerprint = printed.split(' ').nth(1).unwrap();
        let text = std::fs::read(dir.path().join(&file)).unwrap();
        assert_eq!(
            found(&text, Naming::Ssh),
            [format!("ssh-key:{fingerprint}")],
            "{name}"
        );
        compared += 1;
    }
    assert_eq!(compared, 8);
}

#[test]
fn keys_and_certificates_are_named_as_openssl_does() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        "ed25519",
        "rsa -pkeyopt rsa_keygen_bits:2048",
        "ec -pkeyopt ec_paramgen_curve:P-256",
    ] {
        let Some(_) = run(
            &format!("openssl genpkey -algorithm {options} -out key.pem"),
            dir.path(),
        ) else {
            println!("SKIPPED keys_and_certificates_are_named_as_openssl_does: no openssl here");
            return;
        };
        run(
            "openssl pkey -in key.pem -pubout -outform DER -out public.der",
            dir.path(),
        )
        .unwrap();
        let spki = std::fs::read(dir.path().join("public.der")).unwrap();
        run(
            "openssl req -new -x509 -key key.pem -subj /CN=test -days 1 -out cert.pem",
            dir.path(),
        )
        .unwrap();
        run(
            "openssl x509 -in cert.pem -outform DER -out cert.der",
            dir.path(),
        )
        .unwrap();
        let der = std::fs::read(dir.path().join("cert.der")).unwrap();
        let both = [
            std::fs::read(dir.path().join("key.pem")).unwrap(),
            std::fs::read(dir.path().join("cert.pem")).unwrap(),
        ]
        .concat();
        let expected = [
            format!("public-key:spki-sha256/{}", hex(&Sha256::digest(spki))),
            format!("x509-certificate:{}", hex(&Sha256::digest(der))),
        ];
        assert_eq!(found(&both, Naming::Spki), expected, "{options}");
        // As JSON and YAML write it.
        let text = String::from_utf8(both).unwrap().replace('\n', "\\n");
        assert_eq!(
            found(text.as_bytes(), Naming::Spki),
            expected,
            "{options}, escaped"
        );
    }
}

#[test]
fn an_encrypted_key_is_known_by_its_block() {
    let text = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIBpTBPBgkqhkiG9w0BBQ0w\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let ids = found(text, Naming::Ssh);
    assert_eq!(ids.len(), 1);
    assert!(ids[0].starts_with("keyed-hash:private-key/"), "{ids:?}");
    for text in [
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN X-----\n-----END X-----",
        "",
    ] {
        assert_eq!(found(text.as_bytes(), Naming::Ssh), [""; 0], "{text}");
    }
}

proptest! {
    #[test]
    fn any_der_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        for label in ["OPENSSH PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "CERTIFICATE"] {
            let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(&bytes));
            prop_assert!(found(text.as_bytes(), Naming::Ssh).len() <= 1);
        }
        let magic = [&b"openssh-key-v1\0"[..], &bytes].concat();
        let _ = openssh_public(&magic);
    }
}
