//! gcloud's credential databases, read from memory: no journal, no lock, no other file is touched.

use keytrail_model::credential::{CredentialId, CredentialKind};
use rusqlite::{Connection, MAIN_DB};
use zeroize::Zeroizing;

use super::Findings;
use super::structured::{self, Field};
use crate::agents::catalogue::ConfigFormat;

/// Most rows read.
const MAX_ROWS: usize = 256;

/// `credentials(account_id, value)` with the credential as JSON, `access_tokens(account_id,
/// access_token, ...)`: the account, and what is known of each credential.
pub(super) fn gcloud(bytes: &[u8], findings: &mut Findings<'_>) {
    if read(bytes, findings).is_none() {
        // Cut short or of another version: tokens still have their forms.
        findings.scan(bytes, None);
    }
}

fn read(bytes: &[u8], findings: &mut Findings<'_>) -> Option<()> {
    let mut image = Zeroizing::new(bytes.to_vec());
    // Bytes 18 and 19 say "write-ahead log"; an image in memory has none (sqlite.org, file format).
    for at in [18, 19] {
        *image.get_mut(at)? = 1;
    }
    let mut db = Connection::open_in_memory().ok()?;
    db.deserialize_read_exact(MAIN_DB, image.as_slice(), image.len(), true)
        .ok()?;
    let mut any = false;
    for (query, kind) in [
        ("SELECT account_id, value FROM credentials", "credentials"),
        (
            "SELECT account_id, access_token FROM access_tokens",
            "access_tokens",
        ),
    ] {
        let Ok(mut statement) = db.prepare(query) else {
            continue;
        };
        let Ok(mut rows) = statement.query([]) else {
            continue;
        };
        any = true;
        for _ in 0..MAX_ROWS {
            let Ok(Some(row)) = rows.next() else { break };
            let text = |at| row.get::<_, String>(at).map(Zeroizing::new);
            let (Ok(account), Ok(value)) = (text(0), text(1)) else {
                continue;
            };
            let entry = Some(account.as_str());
            let principal =
                CredentialId::scoped(CredentialKind::Principal, "gcp", &account.to_lowercase());
            principal
                .into_iter()
                .for_each(|id| findings.push(id, entry));
            if kind == "credentials" {
                structured::identify(ConfigFormat::Json, value.as_bytes(), &fields(), findings);
            } else {
                findings.secret("google-oauth", value.as_bytes(), entry, &[]);
            }
        }
    }
    any.then_some(())
}

/// The fields of one stored credential, the same as in the files of `catalogue/watch.toml`.
fn fields() -> [Field; 4] {
    let field = |at: &str, kind: Option<&str>, id, scope: Option<&str>| Field {
        at: at.to_owned(),
        kind: kind.map(str::to_owned),
        id,
        scope: scope.map(str::to_owned),
        host: None,
        hosts: Vec::new(),
    };
    [
        field(
            "private_key_id",
            None,
            Some(CredentialKind::GcpServiceAccountKey),
            None,
        ),
        field(
            "client_email",
            None,
            Some(CredentialKind::Principal),
            Some("gcp"),
        ),
        field("refresh_token", Some("google-oauth"), None, None),
        field("client_secret", Some("google-client-secret"), None, None),
    ]
}
