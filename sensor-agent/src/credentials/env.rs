//! Which credentials an environment holds.

use keytrail_model::credential::CredentialId;

use super::tokens::{self, Token};
use super::{Findings, MAX_FOUND};
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
}

/// Every credential in the environment: the variables that tools know, and any other value that
/// has the form of one. At most [`MAX_FOUND`].
#[must_use]
pub fn identify_env(env: &SecretEnv) -> Vec<FoundInEnv> {
    let mut findings = Findings::default();
    for (name, value) in env.iter() {
        variable(name, value, &mut findings);
    }
    let found = findings.finish().found.into_iter().take(MAX_FOUND);
    found
        .map(|f| FoundInEnv {
            credential: f.credential,
            variable: f.entry.unwrap_or_default(),
        })
        .collect()
}

/// One variable, of an environment or a dotenv file.
pub(super) fn variable(name: &[u8], value: &[u8], findings: &mut Findings) {
    let entry = std::str::from_utf8(name).unwrap_or("(not text)");
    let value = value.get(..MAX_VALUE).unwrap_or(value);
    if name == b"AWS_ACCESS_KEY_ID" {
        let id = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
        if let Ok(id) = CredentialId::aws_access_key(id) {
            findings.push(id, Some(entry));
        }
        return;
    }
    if GITHUB_VARIABLES.contains(&name)
        && let Some(Token::Credential(id)) = tokens::github_field(value)
    {
        findings.push(id, Some(entry));
        return;
    }
    findings.scan(value, Some(entry));
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
        let found = identify_env(&SecretEnv::new(block.into_bytes()));
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
}
