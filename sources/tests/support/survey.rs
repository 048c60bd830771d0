//! Reads the folder of recorded logs beside the repository, and counts what became of every record.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use keytrail_sources::framing::{Cut, Records};
use keytrail_sources::{Options, Parser, SourceKind};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Where the recorded logs are, when they are there.
pub fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    beside.is_dir().then_some(beside)
}

/// Why they are not read.
pub const ABSENT: &str = "no folder ../shared/corpora beside the repository";

/// What became of the records of one source.
#[derive(Debug, Default)]
pub struct Tally {
    pub records: u64,
    pub with_uses: u64,
    pub uses: u64,
    pub skipped: BTreeMap<&'static str, u64>,
    pub rejected: BTreeMap<&'static str, u64>,
    pub exact: u64,
}

impl Tally {
    /// Records of which nothing is known.
    pub fn unaccounted(&self) -> u64 {
        let skipped: u64 = self.skipped.values().sum();
        let rejected: u64 = self.rejected.values().sum();
        self.records - self.with_uses - skipped - rejected
    }
}

/// A line of a rule's test file: the record, and the name of its schema.
#[derive(Deserialize)]
struct Labelled<'a> {
    log_type: String,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// The kind of a schema's name.
fn kind(log_type: &str) -> Option<SourceKind> {
    Some(match log_type {
        "AWS.CloudTrail" => SourceKind::AwsCloudTrail,
        "AWS.BedrockModelInvocation" => SourceKind::BedrockInvocation,
        "Azure.MonitorActivity" => SourceKind::AzureActivity,
        "Azure.Audit" => SourceKind::EntraSignIn,
        "Amazon.EKS.Audit" => SourceKind::KubernetesAudit,
        "GCP.AuditLog" => SourceKind::GcpAudit,
        "GitHub.Audit" => SourceKind::GithubAudit,
        log if log.starts_with("GitLab.") => SourceKind::GitlabAudit,
        "Okta.SystemLog" => SourceKind::Okta,
        log if log.starts_with("Salesforce.") => SourceKind::Salesforce,
        _ => return None,
    })
}

/// Reads every file of the folder; `each` sees every refused record.
///
/// # Panics
/// When a file cannot be read or cut.
pub fn survey(folder: &Path, mut each: impl FnMut(&str, &str, &[u8])) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for path in files(folder) {
        let raw = BufReader::new(File::open(&path).unwrap());
        let input: Box<dyn BufRead> = if path.extension().is_some_and(|e| e == "gz") {
            Box::new(BufReader::new(MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        let set = path.parent().and_then(Path::file_name).unwrap_or_default();
        let set = set.to_string_lossy().into_owned();
        let mut records = Records::new(input);
        while let Some(cut) = records.next_record().unwrap() {
            let Cut::Record(bytes) = cut else {
                panic!("{}: {cut:?}", path.display());
            };
            let labelled: Option<Labelled<'_>> = serde_json::from_slice(bytes).ok();
            let (kind, record) = match &labelled {
                Some(one) => (kind(&one.log_type), one.record.get().as_bytes()),
                None => (Some(SourceKind::AwsCloudTrail), bytes),
            };
            let kind = kind.unwrap_or_else(|| panic!("{}: a schema of no source", path.display()));
            let tally = tallies.entry(format!("{kind} ({set})")).or_default();
            tally.records += 1;
            let mut uses = Vec::new();
            match Parser::new(kind, Options::default()).parse(record, &mut uses) {
                Ok(parsed) if parsed.uses > 0 => {
                    assert_eq!(parsed.uses, uses.len());
                    tally.with_uses += 1;
                    tally.uses += u64::try_from(parsed.uses).unwrap();
                    let exact = uses.iter().filter(|u| u.credential.kind().is_exact());
                    tally.exact += u64::try_from(exact.count()).unwrap();
                }
                Ok(parsed) => {
                    let why = parsed.skipped.unwrap().as_str();
                    *tally.skipped.entry(why).or_default() += 1;
                    each(kind.as_str(), why, record);
                }
                Err(why) => {
                    *tally.rejected.entry(why.as_str()).or_default() += 1;
                    each(kind.as_str(), why.as_str(), record);
                }
            }
        }
    }
    tallies
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains(".ndjson") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The counts as a table.
pub fn table(tallies: &BTreeMap<String, Tally>) -> String {
    let words = |counts: &BTreeMap<&str, u64>| {
        let each = counts.iter().map(|(why, count)| format!("{why} {count}"));
        let text = each.collect::<Vec<_>>().join(", ");
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    let mut out = String::from(
        "| source | records | uses | by exact id | skipped | rejected | unaccounted |\n|---|---:|---:|---:|---|---|---:|\n",
    );
    for (name, tally) in tallies {
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} | {} | {} | {} |",
            tally.records,
            tally.uses,
            tally.exact,
            words(&tally.skipped),
            words(&tally.rejected),
            tally.unaccounted()
        );
    }
    out
}
