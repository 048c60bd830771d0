//! What to do about an alert, in a safe order: isolate, remove persistence, then revoke.
//!
//! Revoking first is wrong: published malware watches the stolen token and wipes the home
//! directory when it stops working. Nothing here is carried out by Keytrail (invariant 10).

use std::collections::BTreeSet;

use keytrail_model::alert::{Alert, EgressEvidence, ExposureEvidence, ProposedAction, Verdict};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::fact::{ExposureSource, NameSource};
use keytrail_model::process::{Actor, UnitKind};
use keytrail_model::text::shown;

use crate::lifecycle;

/// Proposed steps for `alert`, whose credential minted `children`.
/// `edges` are the daemons that the responsible unit asked to act for it, and through what.
pub(crate) fn actions(
    alert: &Alert,
    children: &BTreeSet<CredentialId>,
    edges: &[(String, String)],
) -> Vec<ProposedAction> {
    let mut actions = Vec::new();
    if matches!(
        alert.verdict,
        Verdict::Closed | Verdict::BlindSpot | Verdict::Posture
    ) {
        return actions;
    }
    let has = |code: &str| alert.reasons.iter().any(|reason| reason.code == code);
    if alert.verdict == Verdict::ExposedServer {
        actions.extend(alert.exposure.iter().map(|e| close_server(&e.actor)));
        return actions;
    }
    if let Some(exposure) = &alert.exposure {
        actions.push(isolate(exposure));
        actions.extend(remove(exposure));
        if exposure.unexpected_reader {
            actions.push(persistence(edges));
        }
    }
    if has("agent-config-changed") {
        actions.push(ProposedAction {
            what: "Take the change back out of the agent's configuration".to_owned(),
            how: None,
            risk: None,
        });
    }
    if alert.verdict == Verdict::Suspected {
        actions.push(ProposedAction {
            what: "Ask the owner whether this read was wanted; if not, go on as for a theft"
                .to_owned(),
            how: None,
            risk: None,
        });
    }
    actions.push(revoke(&alert.credential));
    for child in children {
        let mut action = revoke(child);
        action.what = format!("{} (minted from the stolen one)", action.what);
        actions.push(action);
    }
    if !alert.also_exposed.is_empty() {
        let others: Vec<String> = alert.also_exposed.iter().map(ToString::to_string).collect();
        actions.push(ProposedAction {
            what: format!("Rotate what was in the same hands: {}", others.join(", ")),
            how: None,
            risk: Some("whatever else uses them stops until it has the new ones".to_owned()),
        });
    }
    actions
}

/// Proposed steps for an alert about a host itself.
pub(crate) fn for_subject(alert: &Alert, actor: Option<&Actor>) -> Vec<ProposedAction> {
    if alert.verdict == Verdict::Closed {
        return Vec::new();
    }
    let Some(actor) = actor else {
        return vec![ProposedAction {
            what: "Find out who did this and whether it was wanted".to_owned(),
            how: None,
            risk: None,
        }];
    };
    if alert.verdict == Verdict::ExposedServer {
        return vec![close_server(actor)];
    }
    let mut actions = vec![stop(actor)];
    actions.push(ProposedAction {
        what: "Take the change back out of the agent's configuration".to_owned(),
        how: None,
        risk: None,
    });
    actions
}

fn close_server(actor: &Actor) -> ProposedAction {
    ProposedAction {
        what: format!(
            "Have {} listen on loopback only, or ask its callers for authentication",
            shown(&actor.label(), 120)
        ),
        how: None,
        risk: Some("callers from elsewhere lose it".to_owned()),
    }
}

fn isolate(exposure: &ExposureEvidence) -> ProposedAction {
    let mut action = stop(&exposure.actor);
    action.what = format!("{}, on {}", action.what, exposure.event.host);
    action
}

fn stop(actor: &Actor) -> ProposedAction {
    ProposedAction {
        what: format!(
            "Stop {} and keep its files for evidence",
            shown(&actor.label(), 120)
        ),
        how: Some(format!(
            "kill -STOP {} (and its descendants)",
            actor.unit.pid
        )),
        risk: Some("the agent session that uses it will hang or fail".to_owned()),
    }
}

fn remove(exposure: &ExposureEvidence) -> Option<ProposedAction> {
    let actor = &exposure.actor;
    let server = actor
        .mcp_server
        .as_ref()
        .filter(|_| actor.unit_kind == UnitKind::McpServer)?;
    let what = match (&server.name, &server.config) {
        (Some(name), Some(config)) => format!(
            "Remove MCP server \"{}\" from {}",
            shown(name, 80),
            shown(config, 200)
        ),
        _ => "Find what started this unlisted MCP server, and remove it".to_owned(),
    };
    let how = server.package.as_ref().map(|package| {
        format!(
            "uninstall {} package {}",
            package.ecosystem,
            shown(&package.to_string(), 120)
        )
    });
    Some(ProposedAction {
        what,
        how,
        risk: None,
    })
}

/// What was left behind to start again, or to take revenge.
fn persistence(edges: &[(String, String)]) -> ProposedAction {
    let known: Vec<String> = edges
        .iter()
        .map(|(daemon, through)| format!("{} ({})", shown(daemon, 40), shown(through, 160)))
        .collect();
    let what = "Remove its persistence before anything is revoked: user units, timers and cron, \
                start-up files of shells, hooks and tasks of agents and editors";
    ProposedAction {
        what: what.to_owned(),
        how: (!known.is_empty()).then(|| format!("it asked {}: begin there", known.join(", "))),
        risk: None,
    }
}

fn revoke(credential: &CredentialId) -> ProposedAction {
    match credential.kind() {
        CredentialKind::AwsAccessKey if credential.value().starts_with("ASIA") => ProposedAction {
            what: format!("Revoke the role sessions behind {}", credential.value()),
            how: Some(
                "attach AWSRevokeOlderSessions to the role (denies tokens issued before now)"
                    .to_owned(),
            ),
            risk: Some("hits every session of that role, for minutes".to_owned()),
        },
        CredentialKind::AwsAccessKey => ProposedAction {
            what: format!(
                "Deactivate access key {} and issue another",
                credential.value()
            ),
            how: Some(format!(
                "aws iam update-access-key --access-key-id {} --status Inactive",
                credential.value()
            )),
            risk: Some(
                "everything else that uses this key stops; sessions minted from it live on"
                    .to_owned(),
            ),
        },
        CredentialKind::GithubToken => ProposedAction {
            what: "Revoke the GitHub token".to_owned(),
            how: Some(
                "POST /credentials/revoke from the endpoint that holds it (needs the token itself)"
                    .to_owned(),
            ),
            risk: Some("irreversible; whatever else uses it stops".to_owned()),
        },
        CredentialKind::GcpServiceAccountKey => ProposedAction {
            what: format!("Disable service account key {}", credential.value()),
            how: Some(format!(
                "gcloud iam service-accounts keys disable {}",
                credential.value()
            )),
            risk: Some(
                "whatever else uses the key stops; access tokens already issued may last up to an \
                 hour"
                    .to_owned(),
            ),
        },
        CredentialKind::EntraToken | CredentialKind::EntraSession => ProposedAction {
            what: "Revoke the user's sign-in sessions in Entra".to_owned(),
            how: Some("POST /users/{id}/revokeSignInSessions (Microsoft Graph)".to_owned()),
            risk: Some("the user signs in anew everywhere; access tokens live on for up to an hour where continuous access evaluation is off".to_owned()),
        },
        CredentialKind::EntraClientCredential => ProposedAction {
            what: format!(
                "Remove client credential {} from its application",
                credential.value()
            ),
            how: Some(
                "POST /applications/{id}/removePassword or removeKey (Microsoft Graph)".to_owned(),
            ),
            risk: Some("whatever else signs in with it stops".to_owned()),
        },
        CredentialKind::VaultToken => ProposedAction {
            what: format!("Revoke the Vault token with accessor {}", credential.value()),
            how: Some("vault token revoke -accessor <accessor>".to_owned()),
            risk: Some("its child tokens and leases end with it".to_owned()),
        },
        CredentialKind::OktaApiToken
        | CredentialKind::GitlabToken
        | CredentialKind::PypiToken
        | CredentialKind::KubernetesToken
        | CredentialKind::X509Certificate
        | CredentialKind::SshKey
        | CredentialKind::Jwt
        | CredentialKind::Session
        | CredentialKind::Principal
        | CredentialKind::PublicKey
        | CredentialKind::CredentialStore
        | CredentialKind::KeyedHash => ProposedAction {
            what: format!(
                "Revoke or rotate {} {}",
                credential.kind().title(),
                credential.value()
            ),
            how: None,
            risk: Some("whatever else uses it stops until it has the new one".to_owned()),
        },
    }
}

/// Techniques that the evidence shows: MITRE ATT&CK, then ATLAS.
/// Source: attack.mitre.org (v17) and atlas.mitre.org (v5), by name.
pub(crate) fn techniques(alert: &Alert) -> Vec<String> {
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    if let Some(exposure) = &alert.exposure {
        exposed(exposure, &mut ids);
    }
    if !alert.egress.is_empty() {
        // Exfiltration Over Web Service; Exfiltration via Cyber Means.
        ids.extend(["T1567", "AML.T0025"]);
        let tunnel =
            |e: &EgressEvidence| e.name_source == Some(NameSource::Dns) && e.remote.port() == 53;
        if alert.egress.iter().any(tunnel) {
            // Exfiltration Over Alternative Protocol; Application Layer Protocol: DNS.
            ids.extend(["T1048", "T1071.004"]);
        }
    }
    if alert.unexplained_total > 0 || !alert.misuse.is_empty() {
        // Valid Accounts: Cloud Accounts; Valid Accounts.
        ids.extend(["T1078.004", "AML.T0012"]);
    }
    for reason in &alert.reasons {
        ids.extend(of_reason(&reason.code));
    }
    let (atlas, attack): (Vec<&str>, Vec<&str>) =
        ids.into_iter().partition(|id| id.starts_with("AML."));
    attack.into_iter().chain(atlas).map(str::to_owned).collect()
}

fn exposed(exposure: &ExposureEvidence, ids: &mut BTreeSet<&'static str>) {
    ids.insert(match exposure.source {
        // Unsecured Credentials: Credentials In Files / Unsecured Credentials.
        ExposureSource::File { .. } => "T1552.001",
        ExposureSource::Environment { .. } => "T1552",
        // Credentials from Password Stores.
        ExposureSource::Socket { .. } => "T1555",
        // Unsecured Credentials: Cloud Instance Metadata API.
        ExposureSource::Metadata { .. } => "T1552.005",
        // OS Credential Dumping: Proc Filesystem.
        ExposureSource::Process { .. } => "T1003.007",
    });
    if exposure.actor.agent.is_some() {
        // Unsecured Credentials.
        ids.insert("AML.T0055");
    }
    if exposure.actor.unit_kind == UnitKind::McpServer {
        // AI Agent Tool Credential Harvesting; AI Supply Chain Compromise.
        ids.extend(["AML.T0098", "AML.T0010"]);
    }
    if lifecycle::of(&exposure.actor).is_some() {
        // Supply Chain Compromise: Compromise Software Dependencies and Development Tools.
        ids.insert("T1195.001");
    }
}

fn of_reason(code: &str) -> &'static [&'static str] {
    match code {
        // Credentials from Password Stores: Cloud Secrets Management Stores.
        "mass-secret-read" | "new-secret" => &["T1555.006"],
        // Modify AI Agent Configuration; Supply Chain Compromise.
        "agent-config-changed" => &["AML.T0081", "T1195"],
        // Rootkit.
        "bpf-loaded" => &["T1014"],
        // Impair Defenses: Disable or Modify Tools.
        "sensor-tampered" => &["T1562.001"],
        // Exploit Public-Facing Application; AI Agent Tool Invocation.
        "called-from-outside" | "listens-beyond-loopback" => &["T1190", "AML.T0053"],
        "used-after-revocation" | "outside-envelope" => &["T1078.004"],
        "install-script-use" => &["T1195.001", "T1567.001"],
        _ => &[],
    }
}
