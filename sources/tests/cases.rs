//! Every source's cases: a folder each under `tests/cases/`, a record a file, and beside it what
//! becomes of it. `UPDATE_CASES=1 cargo test -p keytrail-sources --test cases` writes what there is
//! now; look at the difference before committing it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code: it fails by panicking"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use keytrail_model::consumption::{ActionClass, Caller, Consumption, Outcome};
use keytrail_sources::framing::{Cut, Records};
use keytrail_sources::{Mapping, Options, Parser, SourceKind};

/// A value that stands for a secret; no use may hold it, whatever the record does with it.
const CANARY: &str = "CANARY";

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    found.sort();
    found
}

/// The settings that the cases are written for.
fn parser(kind: SourceKind, mapping: Option<&str>) -> Parser {
    let endpoints = match kind {
        SourceKind::VaultAudit => vec!["vault.corp.example".to_owned()],
        SourceKind::Okta => vec!["login.corp.example".to_owned()],
        _ => Vec::new(),
    };
    let mapping = mapping.map(|name| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("mappings/{name}.toml"));
        Mapping::from_toml(&fs::read_to_string(file).unwrap()).unwrap()
    });
    Parser::new(
        kind,
        Options {
            endpoints,
            tenant: None,
            mapping,
        },
    )
}

/// What becomes of every record of a file.
fn outcome(parser: &Parser, bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut records = Records::framed(bytes, parser.framing());
    loop {
        let record = match records.next_record() {
            Ok(None) => break,
            Ok(Some(Cut::Record(record))) => record,
            Ok(Some(cut)) => {
                let _ = writeln!(out, "cut: {cut:?}");
                continue;
            }
            Err(error) => {
                let _ = writeln!(out, "framing: {error}");
                break;
            }
        };
        let mut uses = Vec::new();
        match parser.parse(record, &mut uses) {
            Err(why) => {
                let _ = writeln!(out, "rejected: {}", why.as_str());
            }
            Ok(parsed) => {
                assert_eq!(parsed.uses, uses.len());
                if let Some(why) = parsed.skipped {
                    let _ = writeln!(out, "skipped: {why}");
                }
                let flags = [
                    (parsed.derived_id, "derived-id"),
                    (parsed.masked_id, "masked-id"),
                    (parsed.unknown_version, "unknown-version"),
                    (parsed.refused_inside > 0, "refused-inside"),
                ];
                let flags: Vec<&str> = flags
                    .iter()
                    .filter(|(is, _)| *is)
                    .map(|(_, name)| *name)
                    .collect();
                if !flags.is_empty() {
                    let _ = writeln!(out, "flags: {}", flags.join(" "));
                }
                uses.iter().for_each(|usage| show(&mut out, usage));
            }
        }
    }
    out
}

/// One use, a line a member, nothing where there is nothing.
fn show(out: &mut String, usage: &Consumption) {
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name}: {value}");
        }
    };
    let list = |ids: &[keytrail_model::credential::CredentialId]| {
        ids.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" < ")
    };
    let id = &usage.id.0;
    line(
        "use",
        if id.contains(":sha256-") {
            id.split(":sha256-").next().unwrap().to_owned() + ":sha256"
        } else {
            id.clone()
        },
    );
    line(
        "  credential",
        format!("{} ({:?})", usage.credential, usage.strength),
    );
    line("  descends", list(&usage.descends));
    line(
        "  time",
        format!("{} (to {} ms)", usage.time, usage.granularity_ms),
    );
    line(
        "  caller",
        match &usage.caller {
            Caller::Address { address } => address.to_string(),
            Caller::Service { service } => format!("the service {service}"),
            Caller::Unknown => "unknown".to_owned(),
        },
    );
    line(
        "  network",
        usage
            .network
            .as_ref()
            .map(|n| n.to_string())
            .unwrap_or_default(),
    );
    line("  with", usage.user_agent.clone().unwrap_or_default());
    line("  service", usage.service.clone());
    line("  region", usage.region.clone().unwrap_or_default());
    line("  action", usage.action.clone());
    line(
        "  class",
        match usage.class {
            ActionClass::Other => String::new(),
            class => format!("{class:?}"),
        },
    );
    line("  on", usage.resources.join(", "));
    line(
        "  name asked",
        usage.server_name.clone().unwrap_or_default(),
    );
    line("  endpoints", usage.endpoints.join(" "));
    line(
        "  failed",
        match &usage.outcome {
            Outcome::Success => String::new(),
            Outcome::Failure(code) => code.clone(),
        },
    );
    line("  as", usage.principal.clone().unwrap_or_default());
    line("  account", usage.account.clone().unwrap_or_default());
    line(
        "  minted",
        usage
            .minted
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
    line(
        "  revoked",
        usage
            .revoked
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
    line(
        "  restored",
        usage
            .restored
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
}

#[test]
fn every_case_comes_out_as_written() {
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut check = |parser: &Parser, file: &Path| {
        seen += 1;
        let found = outcome(parser, &fs::read(file).unwrap());
        assert!(
            !found.contains(CANARY),
            "{}: a secret is kept:\n{found}",
            file.display()
        );
        let expected = file.with_extension("expect");
        if update {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            eprintln!("{}:\n{found}", file.display());
            wrong.push(file.display().to_string());
        }
    };
    for kind in SourceKind::ALL {
        let folder = cases().join(kind.as_str());
        if kind == SourceKind::Mapped {
            for mapping in entries(&cases().join("mapped")) {
                let name = mapping.file_name().unwrap().to_string_lossy().into_owned();
                let parser = parser(kind, Some(&name));
                records(&mapping)
                    .iter()
                    .for_each(|file| check(&parser, file));
            }
            continue;
        }
        let parser = parser(kind, None);
        let files = records(&folder);
        assert!(!files.is_empty(), "{kind} has no case");
        files.iter().for_each(|file| check(&parser, file));
    }
    assert!(wrong.is_empty(), "other than written: {wrong:#?}");
    assert!(seen > 60, "only {seen} cases were found");
}

/// The case files of a folder: all but what is expected of them.
fn records(folder: &Path) -> Vec<PathBuf> {
    let mut files = entries(folder);
    files.retain(|file| file.extension().is_none_or(|e| e != "expect"));
    files
}

#[test]
fn every_shipped_mapping_has_a_case_that_gives_a_use() {
    for file in entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings")) {
        if file.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let cases = records(&cases().join("mapped").join(&name));
        let parser = parser(SourceKind::Mapped, Some(&name));
        let gives = cases
            .iter()
            .any(|case| outcome(&parser, &fs::read(case).unwrap()).contains("use: "));
        assert!(gives, "{name}: no case gives a use");
    }
}
