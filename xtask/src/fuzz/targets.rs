//! Which targets there are, how long their inputs may be, and what they start from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace::Workspace;

/// A target: a program of `fuzz/fuzz_targets/`.
pub(super) struct Target {
    pub(super) name: &'static str,
    /// Longest input that is made up, bytes: a little more than real ones need.
    pub(super) longest: u64,
    /// How many values of the first byte choose something; each seed is written once for each.
    choices: u8,
    seeds: Seeds,
}

/// What a corpus begins with.
enum Seeds {
    /// These texts.
    Texts(&'static [&'static str]),
    /// Every file under a folder of the checkout, expected results aside.
    Folder(&'static str),
    /// The imported files inside the cases of a folder (`imports[].file`).
    Imports(&'static str),
}

const fn texts(
    name: &'static str,
    longest: u64,
    choices: u8,
    texts: &'static [&'static str],
) -> Target {
    Target {
        name,
        longest,
        choices,
        seeds: Seeds::Texts(texts),
    }
}

const fn folder(name: &'static str, longest: u64, choices: u8, folder: &'static str) -> Target {
    Target {
        name,
        longest,
        choices,
        seeds: Seeds::Folder(folder),
    }
}

/// A provider's records: large, and nothing is chosen by a first byte.
const fn source(name: &'static str, cases: &'static str) -> Target {
    folder(name, 4096, 0, cases)
}

/// Every target.
pub(super) const TARGETS: [Target; 36] = [
    texts(
        "agent_dns_message",
        512,
        0,
        &[
            "\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03api\x07example\x03com\0\0\x01\0\x01",
            "\x12\x34\x01\0\0\x01\0\x01\0\0\0\0\x01x\0\0\x1c\0\x01\0\0\x1c\0\x01\0\0\0\x3c\0\x04abcd",
        ],
    ),
    texts(
        "agent_jwt",
        512,
        0,
        &[
            r#"{"iss":"https://sts.windows.net/t/","uti":"abc","sid":"s","oid":"o","tid":"t","upn":"a@b.c"}"#,
            r#"{"iss":"kubernetes/serviceaccount","jti":"j","kubernetes.io":{"namespace":"n"}}"#,
            r#"{"iss":"https://accounts.example:8443/x","jti":"j","email":"a@b.c"}"#,
        ],
    ),
    texts(
        "graph_patterns",
        128,
        0,
        &[
            "arn:aws:s3:::*\narn:aws:s3:::a*\narn:aws:s3:::ab",
            "a?c*\na*\nabc",
        ],
    ),
    texts(
        "correlator_scim_filter",
        256,
        0,
        &[
            r#"userName eq "ana" and emails[type eq "work" and primary eq true]"#,
            r#"not (active pr) or name.familyName co "B" or meta.created ge "2026-01-01""#,
            r#"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value eq "x""#,
        ],
    ),
    texts(
        "agent_command_line",
        512,
        0,
        &[
            "npx\0-y\0@scope/pkg@1.2.3\0/data",
            "sh\0-c\0exec npx -y pkg --token 'x y'",
            "docker\0run\0-i\0--rm\0-e\0TOKEN\0ghcr.io/x/y:v1",
            "uv\0run\0--directory\0/srv\0server.py\0--password\0hunter2",
        ],
    ),
    texts(
        "spool_block",
        1024,
        0,
        &["\0\x01\n\x03abc\n\0", "\x01\0\n\x7f"],
    ),
    texts(
        "agent_client_hello",
        1024,
        64,
        &[
            // A whole hello for `x.io`, and one cut short.
            "\x16\x03\x01\0\x3c\x01\0\0\x38\x03\x03\
             0123456789abcdef0123456789abcdef\0\0\x02\x13\x01\x01\0\
             \0\x0d\0\0\0\x09\0\x07\0\0\x04x.io",
            "\x16\x03\x01\0\x05\x01\0\0\x01\x03",
        ],
    ),
    texts(
        "correlator_syslog",
        1024,
        0,
        &[
            "<34>1 2026-11-24T10:00:00Z h app - - [a b=\"c\\]\"] \u{feff}CEF:0|a|b|c|d|e|5|k=v\n",
            "72 <13>Nov 24 10:00:00 host tag[1]: {\"a\":1}\0<5>1 2026-11-24T10:00:00Z V CEF:0|x",
        ],
    ),
    texts(
        "correlator_scim_patch",
        1024,
        0,
        &[
            r#"{"Operations":[{"op":"Replace","path":"emails[type eq \"work\"].value","value":"x"}]}"#,
            r#"{"Operations":[{"op":"add","value":{"Active":"False","name.givenName":"A"}},{"op":"remove","path":"groups"}]}"#,
        ],
    ),
    texts(
        "wire_fact",
        1024,
        0,
        &["\n\x06\x08\u{1}\x10\x07", "\n\0\x12\x04\n\x02\x08\x01"],
    ),
    texts(
        "wire_block",
        1024,
        0,
        &["\n\x04\n\x02\x08\x01\n\0", "\n\x02\n\0"],
    ),
    folder(
        "agent_environment",
        2048,
        0,
        "sensor-agent/tests/data/credentials",
    ),
    folder(
        "agent_mcp_config",
        2048,
        3,
        "sensor-agent/tests/data/configs",
    ),
    folder(
        "agent_credential",
        2048,
        160,
        "sensor-agent/tests/data/credentials",
    ),
    imports("graph_permissions", 7, "graph/tests/permissions"),
    imports("graph_people", 9, "graph/tests/owners"),
    folder("sources_mapping", 2048, 0, "sources/mappings"),
    folder("sources_framing", 2048, 0, "sources/tests/cases"),
    texts(
        "agent_ring_record",
        4608,
        0,
        &["\x01\0\x40\0", "\x02\0\x40\0", "\x07\0\x40\0"],
    ),
    source(
        "sources_aws_cloudtrail",
        "sources/tests/cases/aws.cloudtrail",
    ),
    source(
        "sources_bedrock_invocation",
        "sources/tests/cases/aws.bedrock-invocation",
    ),
    source(
        "sources_azure_activity",
        "sources/tests/cases/azure.activity",
    ),
    source(
        "sources_azure_key_vault",
        "sources/tests/cases/azure.key-vault",
    ),
    source("sources_entra_sign_in", "sources/tests/cases/entra.sign-in"),
    source(
        "sources_graph_activity",
        "sources/tests/cases/graph.activity",
    ),
    source("sources_azure_openai", "sources/tests/cases/azure.openai"),
    source("sources_gcp_audit", "sources/tests/cases/gcp.audit"),
    source("sources_okta", "sources/tests/cases/okta.system-log"),
    source("sources_github_audit", "sources/tests/cases/github.audit"),
    source("sources_gitlab_audit", "sources/tests/cases/gitlab.audit"),
    source("sources_vault_audit", "sources/tests/cases/vault.audit"),
    source("sources_cyberark", "sources/tests/cases/cyberark.audit"),
    source(
        "sources_salesforce",
        "sources/tests/cases/salesforce.events",
    ),
    source("sources_workday", "sources/tests/cases/workday.activity"),
    source(
        "sources_kubernetes_audit",
        "sources/tests/cases/kubernetes.audit",
    ),
    source("sources_mapped", "sources/tests/cases/mapped"),
];

const fn imports(name: &'static str, choices: u8, folder: &'static str) -> Target {
    Target {
        name,
        longest: 2048,
        choices,
        seeds: Seeds::Imports(folder),
    }
}

/// Writes a target's seeds into `dir`.
///
/// # Errors
/// When a folder of seeds cannot be read or `dir` cannot be written.
pub(super) fn plant(ws: &Workspace, target: &Target, dir: &Path) -> Result<()> {
    for (nr, seed) in seeds(ws, target)?.into_iter().enumerate() {
        let write = |name: String, bytes: &[u8]| {
            let file = dir.join(name);
            fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))
        };
        if target.choices == 0 {
            write(format!("{nr:04}"), &seed)?;
        }
        for choice in 0..target.choices {
            write(
                format!("{nr:04}-{choice:03}"),
                &[&[choice], &*seed].concat(),
            )?;
        }
    }
    Ok(())
}

fn seeds(ws: &Workspace, target: &Target) -> Result<Vec<Vec<u8>>> {
    Ok(match target.seeds {
        Seeds::Texts(texts) => texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
        Seeds::Folder(folder) => read(&ws.root.join(folder))?,
        Seeds::Imports(folder) => {
            let cases = read(&ws.root.join(folder))?;
            cases.iter().flat_map(|case| imported(case)).collect()
        }
    })
}

/// The contents of all files under `dir` that are no expected results, in the order of their paths.
fn read(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir)
            .with_context(|| format!("the seeds in {} cannot be read", dir.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_none_or(|e| e != "expect" && e != "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
        .iter()
        .map(|file| fs::read(file).with_context(|| format!("cannot read {}", file.display())))
        .collect()
}

/// The files inside a case: a text as it is, anything else as JSON.
fn imported(case: &[u8]) -> Vec<Vec<u8>> {
    let case: Value = serde_json::from_slice(case).unwrap_or_default();
    let imports = case.get("imports").and_then(Value::as_array);
    let files = imports.into_iter().flatten().filter_map(|i| i.get("file"));
    files
        .map(|file| match file.as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => file.to_string().into_bytes(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_names_every_target_and_its_seeds_exist() {
        let ws = Workspace::find().unwrap();
        let files = fs::read_dir(ws.root.join("fuzz/fuzz_targets")).unwrap();
        let files: BTreeSet<String> = files
            .map(|file| file.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let named: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
        assert_eq!(files, named);
        let manifest = fs::read_to_string(ws.root.join("fuzz/Cargo.toml")).unwrap();
        for target in &TARGETS {
            let name = format!("name = \"{}\"", target.name);
            assert!(manifest.contains(&name), "no [[bin]] {}", target.name);
            let seeds = seeds(&ws, target).unwrap();
            assert!(seeds.len() > 1, "{} starts from nothing", target.name);
        }
    }
}
