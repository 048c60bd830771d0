//! Parts that every alert has.

use jiff::Timestamp;
use keytrail_model::alert::{Alert, Owner, Verdict};
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::AlertId;
use keytrail_model::process::{Actor, Confidence};

use super::MAX_ACTORS;

/// The accounts that actors run as.
pub(crate) fn owners_of<'a>(actors: impl Iterator<Item = &'a Actor>) -> Vec<Owner> {
    let mut owners: Vec<Owner> = Vec::new();
    for user in actors.filter_map(|actor| actor.user.as_ref()) {
        let (name, method, confidence) = match (&user.login_uid, &user.name) {
            (Some(login), _) => (
                format!("login uid {login}"),
                "audit login uid",
                Confidence::High,
            ),
            (None, Some(name)) => (name.clone(), "account of the process", Confidence::Medium),
            (None, None) => (
                format!("uid {}", user.uid),
                "account of the process",
                Confidence::Low,
            ),
        };
        let name = match (&user.login_uid, &user.name) {
            (Some(login), Some(account)) if *login == user.uid => account.clone(),
            _ => name,
        };
        if !owners.iter().any(|known| known.name == name) {
            owners.push(Owner {
                name,
                method: method.to_owned(),
                confidence,
            });
        }
    }
    owners.truncate(MAX_ACTORS);
    owners
}

/// An alert with nothing in it yet.
pub(crate) fn blank(
    id: AlertId,
    verdict: Verdict,
    credential: &CredentialId,
    title: String,
) -> Alert {
    Alert {
        id,
        verdict,
        severity: verdict.severity().to_owned(),
        title,
        credential: credential.clone(),
        account: credential.aws_account(),
        strength: None,
        first_seen: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        exposure: None,
        egress: Vec::new(),
        also_exposed: Vec::new(),
        explained: Vec::new(),
        explained_total: 0,
        unexplained: Vec::new(),
        unexplained_total: 0,
        undecided_total: 0,
        holders: Vec::new(),
        owners: Vec::new(),
        blind_spots: Vec::new(),
        actions: Vec::new(),
        techniques: Vec::new(),
        reasons: Vec::new(),
        misuse: Vec::new(),
        ancestors: Vec::new(),
        suppressed: None,
        history: Vec::new(),
    }
}
