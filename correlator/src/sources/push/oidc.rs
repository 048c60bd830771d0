//! Senders that prove who they are by a token that their provider signs: Google Pub/Sub's push
//! authentication (OpenID Connect ID tokens, RS256).
//!
//! Shapes: OpenID Connect Core 1.0, 2 and 3.1.3.7; RFC 7515 (compact form), RFC 7517 (key sets);
//! Google Cloud, "Authenticate Pub/Sub push subscriptions". Only RS256 is taken, whatever the
//! token's header says, and only a key of the configured set: a token cannot choose how it is
//! checked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::sources::poll::{is_safe, tls};

/// Who signs for Google.
const GOOGLE: &str = "https://accounts.google.com";
const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";
/// Clocks may differ by so much.
const SKEW: i64 = 60;
/// Largest token looked at.
const MAX_TOKEN: usize = 16 << 10;
/// Largest key set read.
const MAX_KEYS: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys are good for at least and at most so long, seconds, whatever `Cache-Control` says.
const FRESH: (i64, i64) = (300, 86_400);
/// An unknown key asks for the set anew, at most so often: anyone can make one up.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// Keys are used so long past their time while the issuer does not answer.
const STALE: SignedDuration = SignedDuration::from_hours(24);

/// `[source.oidc]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// The audience that the sender was told: for Pub/Sub what the subscription says, by default
    /// the URL that it pushes to.
    pub audience: String,
    /// The service account whose tokens are taken.
    pub email: String,
    /// Who signs (default: Google).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Where its keys are (default: Google's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
}

impl OidcConfig {
    /// Checks it.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn check(&self) -> Result<(), String> {
        if self.audience.is_empty() {
            return Err("`oidc.audience` must be what the subscription says".to_owned());
        }
        if !self.email.contains('@') {
            return Err("`oidc.email` must be the sender's service account".to_owned());
        }
        if self.issuer.is_some() != self.jwks_url.is_some() {
            return Err("give `oidc.issuer` and `oidc.jwks_url` together".to_owned());
        }
        match &self.jwks_url {
            Some(url) if !is_safe(url) => Err(format!(
                "`oidc.jwks_url` {url:?}: write `https://...`; plain http only on loopback"
            )),
            _ => Ok(()),
        }
    }
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    /// There is none, or it is no signed token.
    #[error("show the sender's signed token: `Authorization: Bearer <JWT>`")]
    NoToken,
    /// What is in it, or its signature, is not good; the text says which and nothing of it.
    #[error("the token is not taken: {0}")]
    Bad(&'static str),
    /// The keys cannot be had: the sender tries again.
    #[error("the issuer's keys cannot be had: {0}")]
    NoKeys(String),
}

/// Checks tokens; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: OidcConfig,
    keys: Mutex<Keys>,
    /// Held by the one that fetches keys.
    fetching: Mutex<()>,
}

/// The issuer's keys by their ids.
#[derive(Clone, Debug, Default)]
struct Keys {
    keys: Arc<BTreeMap<String, Key>>,
    good_until: Option<Timestamp>,
    asked: Option<Timestamp>,
}

/// An RSA public key, big-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    n: Vec<u8>,
    e: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: i64,
    iat: Option<i64>,
    nbf: Option<i64>,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    n: String,
    e: String,
}

impl Verifier {
    pub(super) fn new(config: OidcConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            keys: Mutex::default(),
            fetching: Mutex::default(),
        }))
    }

    /// Whether the token is good now. Blocks while keys are fetched.
    pub(super) fn check(&self, token: &str) -> Result<(), Denial> {
        let now = clock::now();
        if token.len() > MAX_TOKEN {
            return Err(Denial::Bad("it is too long"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Denial::NoToken)?;
        let (header, claims) = signed.split_once('.').ok_or(Denial::NoToken)?;
        let header: Header = part(header)?;
        if header.alg != "RS256" {
            return Err(Denial::Bad("it is not signed by RS256"));
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Denial::NoToken)?;
        let key = self.key(&header.kid, now)?;
        RsaPublicKeyComponents {
            n: &key.n,
            e: &key.e,
        }
        .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
        .map_err(|_| Denial::Bad("its signature does not fit"))?;
        self.allows(&part(claims)?, now)
    }

    /// Whether what was signed is meant for us, now, from the configured sender.
    fn allows(&self, claims: &Claims, now: Timestamp) -> Result<(), Denial> {
        let config = &self.0.config;
        let issuer = config.issuer.as_deref().unwrap_or(GOOGLE);
        // Google writes its name with and without the scheme.
        let bare = |name: &str| name.strip_prefix("https://").unwrap_or(name).to_owned();
        if bare(&claims.iss) != bare(issuer) {
            return Err(Denial::Bad("another issuer"));
        }
        let meant = match &claims.aud {
            Audience::One(one) => *one == config.audience,
            Audience::Several(all) => all.contains(&config.audience),
        };
        if !meant {
            return Err(Denial::Bad("another audience"));
        }
        if claims.email.as_deref() != Some(config.email.as_str()) || !claims.email_verified {
            return Err(Denial::Bad("another sender"));
        }
        let now = now.as_second();
        if claims.exp.saturating_add(SKEW) < now {
            return Err(Denial::Bad("it has expired"));
        }
        let begins = claims.iat.max(claims.nbf).unwrap_or(now);
        if begins.saturating_sub(SKEW) > now {
            return Err(Denial::Bad("it is not valid yet; check the clocks"));
        }
        Ok(())
    }

    /// The key of that id; the set is fetched when it is old, or does not have it.
    fn key(&self, id: &str, now: Timestamp) -> Result<Key, Denial> {
        if let Some(key) = self.fresh(id, now) {
            return Ok(key);
        }
        // One asks, the others wait for its answer.
        let _one = self
            .0
            .fetching
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = self.fresh(id, now) {
            return Ok(key);
        }
        let asked = self.lock().asked.replace(now);
        let mut failed = None;
        if asked.is_none_or(|asked| now.duration_since(asked) >= AGAIN) {
            match fetch(self.url()) {
                Ok((keys, lasts)) => {
                    let mut mine = self.lock();
                    mine.keys = Arc::new(keys);
                    mine.good_until = now.checked_add(lasts).ok();
                }
                Err(error) => failed = Some(error),
            }
        } else {
            self.lock().asked = asked;
        }
        let mine = self.lock();
        let usable = mine
            .good_until
            .is_some_and(|until| now.duration_since(until) < STALE);
        match mine.keys.get(id) {
            // Old keys are better than none while the issuer does not answer, but not for ever.
            Some(key) if usable => Ok(key.clone()),
            _ if mine.keys.is_empty() || failed.is_some() => {
                Err(Denial::NoKeys(failed.unwrap_or_else(|| {
                    "it did not answer a moment ago".to_owned()
                })))
            }
            _ => Err(Denial::Bad("its key is none of the issuer's")),
        }
    }

    fn fresh(&self, id: &str, now: Timestamp) -> Option<Key> {
        let mine = self.lock();
        let fresh = mine.good_until.is_some_and(|until| now < until);
        mine.keys.get(id).filter(|_| fresh).cloned()
    }

    fn url(&self) -> &str {
        self.0.config.jwks_url.as_deref().unwrap_or(GOOGLE_KEYS)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a token: JSON in base64url.
fn part<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Denial> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Denial::NoToken)?;
    serde_json::from_slice(&bytes).map_err(|_| Denial::Bad("its parts are not what they must be"))
}

/// The issuer's keys, and how long they are good.
fn fetch(url: &str) -> Result<(BTreeMap<String, Key>, SignedDuration), String> {
    let tls = tls(None, url).map_err(|e| e.to_string())?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(TIMEOUT))
        .max_redirects(0)
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|e| e.to_string())?;
    let lasts = response
        .headers()
        .get("cache-control")
        .and_then(|value| value.to_str().ok())
        .and_then(max_age)
        .unwrap_or(FRESH.0);
    let body = response
        .body_mut()
        .with_config()
        .limit(MAX_KEYS)
        .read_to_vec()
        .map_err(|e| e.to_string())?;
    let keys = key_set(&body).map_err(|e| format!("{url}: no key set: {e}"))?;
    let lasts = SignedDuration::from_secs(lasts.clamp(FRESH.0, FRESH.1));
    Ok((keys, lasts))
}

fn max_age(header: &str) -> Option<i64> {
    header
        .split(',')
        .find_map(|one| one.trim().strip_prefix("max-age="))?
        .parse()
        .ok()
}

/// The RSA keys of a set; others are left out.
fn key_set(body: &[u8]) -> Result<BTreeMap<String, Key>, serde_json::Error> {
    let set: KeySet = serde_json::from_slice(body)?;
    let keys = set.keys.into_iter().filter_map(|value| {
        if value.get("kty").and_then(serde_json::Value::as_str) != Some("RSA") {
            return None;
        }
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let number = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let key = Key {
            n: number(&jwk.n)?,
            e: number(&jwk.e)?,
        };
        Some((jwk.kid, key))
    });
    Ok(keys.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verifier() -> Verifier {
        Verifier::new(OidcConfig {
            audience: "https://keytrail.example/v1/push/gcp".to_owned(),
            email: "push@p.iam.gserviceaccount.com".to_owned(),
            issuer: None,
            jwks_url: None,
        })
    }

    #[test]
    fn claims_must_be_meant_for_us_now_from_that_sender() {
        let now = Timestamp::from_second(1_795_514_400).unwrap();
        let good = serde_json::json!({
            "iss": "https://accounts.google.com",
            "aud": "https://keytrail.example/v1/push/gcp",
            "email": "push@p.iam.gserviceaccount.com", "email_verified": true,
            "iat": 1_795_514_300, "exp": 1_795_517_900,
        });
        for (name, value, expected) in [
            ("sub", serde_json::json!("1"), "good"),
            ("iss", serde_json::json!("accounts.google.com"), "good"),
            (
                "aud",
                serde_json::json!(["x", "https://keytrail.example/v1/push/gcp"]),
                "good",
            ),
            ("exp", serde_json::json!(1_795_514_341), "good"),
            ("exp", serde_json::json!(1_795_514_339), "it has expired"),
            (
                "iat",
                serde_json::json!(1_795_514_461),
                "it is not valid yet; check the clocks",
            ),
            (
                "nbf",
                serde_json::json!(1_795_514_461),
                "it is not valid yet; check the clocks",
            ),
            (
                "iss",
                serde_json::json!("https://evil.example"),
                "another issuer",
            ),
            (
                "aud",
                serde_json::json!("https://other"),
                "another audience",
            ),
            ("aud", serde_json::json!([]), "another audience"),
            (
                "email",
                serde_json::json!("x@p.iam.gserviceaccount.com"),
                "another sender",
            ),
            ("email", serde_json::json!(null), "another sender"),
            ("email_verified", serde_json::json!(false), "another sender"),
        ] {
            let mut claims = good.clone();
            claims[name] = value.clone();
            let claims: Claims = serde_json::from_value(claims).unwrap();
            let told = match verifier().allows(&claims, now) {
                Ok(()) => "good".to_owned(),
                Err(Denial::Bad(why)) => why.to_owned(),
                Err(other) => other.to_string(),
            };
            assert_eq!(told, expected, "{name}: {value}");
        }
    }

    #[test]
    fn what_is_no_rs256_token_is_refused_before_any_key_is_asked_for() {
        let header = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for (token, expected) in [
            ("secret".to_owned(), Denial::NoToken),
            ("a.b".to_owned(), Denial::NoToken),
            ("!.b.c".to_owned(), Denial::NoToken),
            (
                format!("{}.e30.", header(r#"{"alg":"none","kid":"1"}"#)),
                Denial::Bad("it is not signed by RS256"),
            ),
            (
                format!("{}.e30.AAAA", header(r#"{"alg":"HS256","kid":"1"}"#)),
                Denial::Bad("it is not signed by RS256"),
            ),
            (
                format!("{}.e30.AAAA", header(r#"{"alg":"RS256"}"#)),
                Denial::Bad("its parts are not what they must be"),
            ),
            ("x".repeat(MAX_TOKEN + 1), Denial::Bad("it is too long")),
        ] {
            assert_eq!(verifier().check(&token), Err(expected), "{token:.60}");
        }
    }

    #[test]
    fn a_key_set_gives_its_rsa_keys() {
        let keys = key_set(
            br#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","alg":"RS256"},
                {"kty":"EC","kid":"b","x":"AQAB"},{"kty":"RSA","kid":"c","n":"!","e":"AQAB"},{}]}"#,
        )
        .unwrap();
        assert_eq!(keys.into_keys().collect::<Vec<_>>(), ["a"]);
        for (header, expected) in [
            ("public, max-age=19845, must-revalidate", Some(19845)),
            ("no-cache", None),
            ("max-age=x", None),
        ] {
            assert_eq!(max_age(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_token_is_refused_without_panic(token in "[A-Za-z0-9_=-]{0,40}(\\.[A-Za-z0-9_=-]{0,40}){0,3}") {
            // Nothing so short names a key.
            prop_assert!(verifier().check(&token).is_err());
        }
    }
}
