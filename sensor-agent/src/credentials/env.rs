//! Which credentials an environment holds.

use keytrail_model::credential::CredentialId;

use super::{Findings, MAX_FOUND, Recogniser};
use crate::tree::SecretEnv;

/// Variables in which GitHub's tools and servers look for a token of any form.
const GITHUB_VARIABLES: [&[u8]; 6] = [
    b"GITHUB_TOKEN",
    b"GH_TOKEN",
    b"GITHUB_PERSONAL_ACCESS_TOKEN",
    b"COPILOT_GITHUB_TOKEN",
    b"GH_ENTERPRISE_TOKEN",
    b"GITHUB_ENTERPRISE_TOKEN",
];
/// Longest value looked into.
const MAX_VALUE: usize = 64 * 1024;

/// One credential in an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundInEnv {
    /// Which.
    pub credential: CredentialId,
    /// The variable that holds it; untrusted text.
    pub variable: String,
    /// Server names that the environment says it is for.
    pub destinations: Vec<String>,
}

impl Recogniser {
    /// Every credential in the environment: the variables that tools know, and any other value
    /// that has the form of one. At most [`MAX_FOUND`].
    #[must_use]
    pub fn identify_env(&self, env: &SecretEnv) -> Vec<FoundInEnv> {
        let mut findings = Findings::new(self);
        for (name, value) in env.iter() {
            variable(name, value, &mut findings, &|other| env.text(other));
        }
        let found = findings.finish().found.into_iter().take(MAX_FOUND);
        found
            .map(|f| FoundInEnv {
                credential: f.credential,
                variable: f.entry.unwrap_or_default(),
                destinations: f.destinations,
            })
            .collect()
    }
}

/// One variable, of an environment or a dotenv file; `lookup` gives the value of another one,
/// where that says which server the secret is for. True when its name alone made it a secret.
pub(super) fn variable(
    name: &[u8],
    value: &[u8],
    findings: &mut Findings<'_>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> bool {
    let entry = std::str::from_utf8(name).unwrap_or("(not text)");
    let value = value.get(..MAX_VALUE).unwrap_or(value);
    if name == b"AWS_ACCESS_KEY_ID" {
        let id = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
        if let Ok(id) = CredentialId::aws_access_key(id) {
            findings.push(id, Some(entry));
        }
        return true;
    }
    if GITHUB_VARIABLES.contains(&name) && findings.know.github_field(value).is_some() {
        findings.github(value, Some(entry));
        return true;
    }
    if let Some(known) = findings.know.tokens.variable(entry) {
        let host = known.host_from.as_deref().and_then(lookup);
        let hosts: Vec<&str> = known
            .hosts
            .iter()
            .map(String::as_str)
            .chain(host.as_deref())
            .collect();
        findings.secret(&known.kind, value, Some(entry), &hosts);
        return true;
    }
    url_password(value, Some(entry), findings);
    findings.scan(value, Some(entry));
    false
}

/// The password of `scheme://user:password@host`, as in `DATABASE_URL`.
pub(super) fn url_password(value: &[u8], entry: Option<&str>, findings: &mut Findings<'_>) {
    let Ok(text) = std::str::from_utf8(value) else {
        return;
    };
    let Some((scheme, rest)) = text.trim().split_once("://") else {
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, host)) = authority.rsplit_once('@') else {
        return;
    };
    let Some((_, password)) = user.split_once(':') else {
        return;
    };
    // A driver behind a plus (`postgresql+asyncpg`) changes nothing about what it is.
    let kind = match scheme.split('+').next().unwrap_or(scheme) {
        "postgres" | "postgresql" | "mysql" | "mariadb" | "mssql" | "sqlserver" | "oracle"
        | "mongodb" | "clickhouse" | "cockroachdb" => "database-password",
        "redis" | "rediss" => "redis-password",
        "amqp" | "amqps" => "amqp-password",
        "smtp" | "smtps" => "smtp-password",
        "http" | "https" => "http-password",
        _ => "url-password",
    };
    findings.secret(kind, password.as_bytes(), entry, &[host]);
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tests::classic;
    use super::*;

    #[test]
    fn known_variables_and_known_forms_are_found() {
        let token = classic("ghp_", &"a".repeat(30));
        let old = "0123456789abcdef0123456789abcdef01234567";
        let block = format!(
            "PATH=/bin\0AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE\0\
             AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\0\
             DEPLOY_KEYS=prod:ASIAQNZGKIQY56JQ7WML,{token}\0GH_TOKEN={old}\0COMMIT={old}\0"
        );
        let found = Recogniser::for_tests().identify_env(&SecretEnv::new(block.into_bytes()));
        let shown: Vec<String> = found
            .iter()
            .map(|f| format!("{} {}", f.variable, f.credential))
            .collect();
        assert_eq!(
            shown,
            [
                "AWS_ACCESS_KEY_ID aws-access-key:AKIAIOSFODNN7EXAMPLE".to_owned(),
                "DEPLOY_KEYS aws-access-key:ASIAQNZGKIQY56JQ7WML".to_owned(),
                format!(
                    "DEPLOY_KEYS {}",
                    CredentialId::github_token(token.as_bytes())
                ),
                format!("GH_TOKEN {}", CredentialId::github_token(old.as_bytes())),
            ]
        );
    }

    #[test]
    fn other_variables_say_which_server_it_is_for() {
        let block = "VAULT_ADDR=https://vault.example:8200\0VAULT_TOKEN=s.old-form-of-token\0\
                     DATABASE_URL=postgresql+asyncpg://app:hunter2@db.example:5432/shop\0\
                     OPENAI_API_KEY=${OTHER}\0HTTP_PROXY=http://proxy.example:3128\0";
        let found =
            Recogniser::for_tests().identify_env(&SecretEnv::new(block.as_bytes().to_vec()));
        let shown: Vec<String> = found
            .iter()
            .map(|f| {
                let id = f.credential.to_string();
                let kind = id.split('/').next().unwrap();
                format!("{} {kind} {}", f.variable, f.destinations.join(","))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "VAULT_TOKEN keyed-hash:vault-token vault.example",
                "DATABASE_URL keyed-hash:database-password db.example",
            ]
        );
        assert!(!format!("{found:?}").contains("hunter2"));
    }
}
