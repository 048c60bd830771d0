//! JSON Web Tokens (RFC 7519): the identifiers in their claims. Signatures are not checked: the
//! question is which token this is, not whether it is valid.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keytrail_model::credential::{CredentialId, CredentialKind};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::hasher::Hasher;
use super::tokens::Known;

/// Longest token taken apart.
pub(super) const MAX_JWT: usize = 16 * 1024;

/// The claims that identify a token or whose it is; everything else is skipped.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    jti: Option<String>,
    /// Entra: id of this token, `uniqueTokenIdentifier` in the logs.
    #[serde(default)]
    uti: Option<String>,
    /// Entra: id of the session.
    #[serde(default)]
    sid: Option<String>,
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    tid: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    upn: Option<String>,
    #[serde(default)]
    preferred_username: Option<String>,
    #[serde(default)]
    email: Option<String>,
    /// Kubernetes: bound service account tokens carry the pod and the account here.
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Option<serde::de::IgnoredAny>,
}

/// True for the beginning of a token: a JSON object in base64 starts with `eyJ`.
#[must_use]
pub(super) fn starts(text: &[u8]) -> bool {
    text.starts_with(b"eyJ")
}

/// Length of the token at the start of `text`: three parts, two dots.
#[must_use]
pub(super) fn length(text: &[u8]) -> Option<usize> {
    let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let len = text.iter().take(MAX_JWT).take_while(|b| part(b)).count();
    let mut token = text.get(..len)?;
    // The full stop of a sentence.
    while token.iter().filter(|b| **b == b'.').count() > 2 && token.ends_with(b".") {
        token = token.strip_suffix(b".")?;
    }
    let mut parts = token.split(|b| *b == b'.');
    let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && header.len() > 8 && claims.len() > 8;
    (whole && signature.len() > 8).then_some(token.len())
}

/// The identifiers in a token.
///
/// - Kubernetes service account tokens: `jti`, the audit log's `JTI=`;
/// - Entra (issuer `sts.windows.net`, `login.microsoftonline.com`): `uti`, `sid`, and the account
///   by object id and by name;
/// - others: `<issuer's host>/<jti>`, or a keyed hash where there is none.
#[must_use]
pub(super) fn identify(token: &[u8], hasher: &Hasher) -> Option<Known> {
    let claims = claims(token)?;
    let issuer = claims.iss.as_deref().unwrap_or_default();
    let host = issuer_host(issuer);
    let mut known = Known::default();
    if claims.kubernetes.is_some() || issuer == "kubernetes/serviceaccount" {
        match &claims.jti {
            Some(jti) => known.id(CredentialKind::KubernetesToken, jti),
            None => known.ids.extend(hasher.identify("kubernetes-token", token)),
        }
        return Some(known);
    }
    let entra = [
        "sts.windows.net",
        "login.microsoftonline.com",
        "login.microsoftonline.us",
    ]
    .iter()
    .any(|known| host.as_deref() == Some(*known));
    if entra || (claims.uti.is_some() && claims.tid.is_some()) {
        entra_ids(&claims, &mut known);
        if known.ids.is_empty() {
            known.ids.extend(hasher.identify("jwt", token));
        }
        return Some(known);
    }
    match (&host, &claims.jti) {
        (Some(host), Some(jti)) => {
            let id = CredentialId::scoped(CredentialKind::Jwt, host, jti);
            known
                .ids
                .extend(id.ok().or_else(|| hasher.identify("jwt", token)));
        }
        _ => known.ids.extend(hasher.identify("jwt", token)),
    }
    known.hosts.extend(host);
    Some(known)
}

fn entra_ids(claims: &Claims, known: &mut Known) {
    if let Some(uti) = &claims.uti {
        known.id(CredentialKind::EntraToken, uti);
    }
    if let Some(sid) = &claims.sid {
        known.id(CredentialKind::EntraSession, sid);
    }
    let name = claims
        .upn
        .as_ref()
        .or(claims.preferred_username.as_ref())
        .or(claims.email.as_ref())
        .map(|name| name.to_lowercase());
    for account in [claims.oid.clone(), name].into_iter().flatten() {
        let id = CredentialId::scoped(CredentialKind::Principal, "entra", &account);
        known.ids.extend(id.ok());
    }
}

fn claims(token: &[u8]) -> Option<Claims> {
    let part = token.split(|b| *b == b'.').nth(1)?;
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(part).ok()?);
    serde_json::from_slice(&decoded).ok()
}

/// The host of an issuer's address, in lower case.
fn issuer_host(issuer: &str) -> Option<String> {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    let host = rest
        .split(['/', ':', '?', '#'])
        .next()?
        .to_ascii_lowercase();
    let named = host.contains('.')
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    named.then_some(host)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token with these claims and no real signature.
    pub(in crate::credentials) fn token(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let header = part(r#"{"alg":"RS256","typ":"JWT"}"#);
        format!("{header}.{}.{}", part(claims), part("not a real signature"))
    }

    fn shown(claims: &str) -> String {
        let known = identify(token(claims).as_bytes(), &Hasher::new(b"k", true)).unwrap();
        let ids: Vec<String> = known.ids.iter().map(ToString::to_string).collect();
        format!("{} > {}", ids.join(" "), known.hosts.join(" "))
    }

    #[test]
    fn claims_identify_tokens() {
        for (claims, expected) in [
            (
                r#"{"iss":"https://kubernetes.default.svc","jti":"a1-b2","kubernetes.io":{"pod":{"uid":"u"}}}"#,
                "kubernetes-token:a1-b2 > ",
            ),
            (
                r#"{"iss":"https://sts.windows.net/t/","uti":"pYc8-A","sid":"00-11","oid":"o-1","upn":"Ana@Example.com","tid":"t"}"#,
                "entra-token:pYc8-A entra-session:00-11 principal:entra/o-1 principal:entra/ana@example.com > ",
            ),
            (
                r#"{"iss":"https://token.actions.githubusercontent.com","jti":"j","sub":"repo:a/b"}"#,
                "jwt:token.actions.githubusercontent.com/j > token.actions.githubusercontent.com",
            ),
            (
                r#"{"iss":"idp.example:8443/realm","jti":"j"}"#,
                "jwt:idp.example/j > idp.example",
            ),
        ] {
            assert_eq!(shown(claims), expected, "{claims}");
        }
        assert!(shown(r#"{"iss":"supabase","role":"anon"}"#).starts_with("keyed-hash:jwt/"));
        assert!(
            shown(r#"{"iss":"kubernetes/serviceaccount"}"#)
                .starts_with("keyed-hash:kubernetes-token/")
        );
    }

    #[test]
    fn a_token_ends_where_it_ends() {
        let token = token("{\"jti\":\"a-jti-of-some-length\"}");
        for (text, expected) in [
            (token.clone(), Some(token.len())),
            (format!("{token}. Next"), Some(token.len())),
            (format!("{token}\""), Some(token.len())),
            (format!("{token}.more.parts"), None),
            ("eyJhbGciOiJ9.eyJ".to_owned(), None),
        ] {
            assert_eq!(length(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(text in "eyJ[A-Za-z0-9_.-]{0,120}") {
            if let Some(len) = length(text.as_bytes()) {
                prop_assert!(len <= text.len());
                let _ = identify(text.get(..len).unwrap().as_bytes(), &Hasher::new(b"k", true));
            }
        }
    }
}
