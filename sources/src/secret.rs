//! What looks like a secret, and is struck out.
//!
//! The forms are the published prefixes of token formats (the vendors' secret-scanning pages), JSON
//! Web Tokens, private keys, `name=value` pairs with a telling name, and passwords in addresses.
//! AWS access key ids, key fingerprints and hashes are identifiers, not secrets, and stay.

/// What stands in a secret's place.
pub(crate) const STRUCK: &str = "[removed]";

/// Prefixes of tokens, and how many characters must follow at least.
const PREFIXES: &[(&str, usize)] = &[
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 12),
    ("gldt-", 12),
    ("glrt-", 12),
    ("glcbt-", 12),
    ("glptt-", 12),
    ("gloas-", 12),
    ("glagent-", 12),
    ("glsoat-", 12),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("xoxa-", 10),
    ("xoxr-", 10),
    ("xoxc-", 10),
    ("xoxd-", 10),
    ("xoxe-", 10),
    ("xoxe.", 10),
    ("xapp-", 10),
    ("sk-", 16),
    ("sk_live_", 10),
    ("rk_live_", 10),
    ("hvs.", 16),
    ("hvb.", 16),
    ("hvr.", 16),
    ("s.", 24),
    ("AIza", 30),
    ("ya29.", 20),
    ("GOCSPX-", 16),
    ("1//", 30),
    ("npm_", 24),
    ("pypi-", 24),
    ("dckr_pat_", 16),
    ("dckr_oat_", 16),
    ("ATATT3", 24),
    ("ABSK", 24),
    ("bedrock-api-key-", 16),
    ("dapi", 30),
    ("dop_v1_", 16),
    ("hf_", 24),
    ("gsk_", 24),
    ("xai-", 24),
    ("SG.", 24),
    ("shpat_", 16),
    ("lin_api_", 16),
    ("ntn_", 24),
    ("glsa_", 16),
    ("NRAK-", 16),
    ("ops_eyJ", 16),
    ("AGE-SECRET-KEY-1", 16),
    ("eyJ", 30),
];

/// Names whose value is a secret, lower case; a name that ends in one counts too.
const NAMES: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "secret",
    "client_secret",
    "clientsecret",
    "secretaccesskey",
    "secret_access_key",
    "sessiontoken",
    "session_token",
    "access_token",
    "accesstoken",
    "refresh_token",
    "id_token",
    "auth_token",
    "private_token",
    "api_key",
    "apikey",
    "x-amz-signature",
    "x-amz-security-token",
    "authorization",
    "sig",
];

/// `text` with what looks like a secret struck out; `None` when nothing does (the usual case, which
/// then costs no allocation).
pub(crate) fn struck_out(text: &str) -> Option<String> {
    if !may_hold(text) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut struck = false;
    // The name before a `=` or `:`, whose value comes next.
    let mut named = false;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_boundary).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        let secret = !word.is_empty() && (named || is_token(word));
        // `Bearer`, `Basic` after `Authorization:` name the value's form; the value follows.
        let scheme = named
            && matches!(
                word.to_ascii_lowercase().as_str(),
                "bearer" | "basic" | "token"
            );
        if secret && !scheme {
            out.push_str(STRUCK);
            struck = true;
        } else {
            out.push_str(word);
        }
        let mut chars = tail.chars();
        let Some(boundary) = chars.next() else {
            break;
        };
        out.push(boundary);
        rest = chars.as_str();
        named = match boundary {
            // `...:secret:prod/db` is a name's part (an ARN); `secret: x` is not.
            ':' if word.eq_ignore_ascii_case("secret") => rest.starts_with([' ', '"', '\'']),
            '=' | ':' if !word.is_empty() => is_telling(word),
            // `password: x`, `"password": "x"`, `Bearer x`: the value is still to come.
            ' ' | '"' | '\'' | ':' | '=' => {
                scheme || (word.is_empty() && named) || (boundary != ' ' && is_telling(word))
            }
            _ => false,
        };
    }
    if let Some(cleaned) = without_password(&out) {
        return Some(cleaned);
    }
    if text.contains("PRIVATE KEY-----") {
        return Some(STRUCK.to_owned());
    }
    struck.then_some(out)
}

/// A cheap look, once over the bytes: is there anything that the slow look could find?
fn may_hold(text: &str) -> bool {
    if text.len() < 8 {
        return false;
    }
    let bytes = text.as_bytes();
    // Where the word began that the present byte belongs to.
    let mut word = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'=' | b':' => {
                let before = text.get(word..at).unwrap_or_default();
                let rest = bytes.get(at..).unwrap_or_default();
                if is_telling(before) || (rest.starts_with(b"://") && rest.contains(&b'@')) {
                    return true;
                }
                word = at + 1;
            }
            b'-' if at + 5 <= bytes.len() && bytes.get(at..at + 5) == Some(b"-----") => {
                return true;
            }
            _ if BOUNDARIES.get(usize::from(*byte)) == Some(&true) => {
                // `"password": "x"`: the quote comes before the colon.
                if *byte == b'"' && is_telling(text.get(word..at).unwrap_or_default()) {
                    return true;
                }
                word = at + 1;
            }
            _ if at == word && begins_token(text.get(at..).unwrap_or_default()) => return true,
            _ => {}
        }
    }
    false
}

/// True when a token's prefix begins the text.
fn begins_token(text: &str) -> bool {
    let first = text.as_bytes().first();
    PREFIXES
        .iter()
        .any(|(prefix, _)| prefix.as_bytes().first() == first && text.starts_with(prefix))
}

/// Bytes that end a word, by their value.
static BOUNDARIES: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b" \t\r\n\x0b\x0c\"'=&?;,()/<>[]{}|:@";
    let mut at = 0;
    while at < bytes.len() {
        #[expect(clippy::indexing_slicing, reason = "at compile time")]
        {
            table[bytes[at] as usize] = true;
        }
        at += 1;
    }
    table
};

fn is_boundary(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '\''
                | '='
                | '&'
                | '?'
                | ';'
                | ','
                | '('
                | ')'
                | '/'
                | '<'
                | '>'
                | '['
                | ']'
                | '{'
                | '}'
                | '|'
                | ':'
                | '@'
        )
}

fn is_token(word: &str) -> bool {
    PREFIXES.iter().any(|(prefix, more)| {
        word.strip_prefix(prefix).is_some_and(|rest| {
            rest.len() >= *more
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+' | b'~'))
                // `sk-` and `s.` begin ordinary words too; a secret has digits or both cases.
                && looks_random(rest)
        })
    })
}

fn looks_random(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let upper = text.bytes().any(|b| b.is_ascii_uppercase());
    let lower = text.bytes().any(|b| b.is_ascii_lowercase());
    (upper && lower) || (digits >= 2 && (upper || lower))
}

fn is_telling(word: &str) -> bool {
    let word = word
        .trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .as_bytes();
    // Every name ends in one of these; most words do not.
    let last = word.last().map(u8::to_ascii_lowercase);
    if !matches!(last, Some(b'd' | b't' | b'y' | b'n' | b'e' | b'g')) {
        return false;
    }
    NAMES.iter().any(|name| {
        let Some(start) = word.len().checked_sub(name.len()) else {
            return false;
        };
        let (before, end) = word.split_at(start);
        end.eq_ignore_ascii_case(name.as_bytes())
            && before.last().is_none_or(|b| !b.is_ascii_alphanumeric())
    })
}

/// `https://user:password@host` without the password.
fn without_password(text: &str) -> Option<String> {
    let at = text.find("://")? + 3;
    let authority_end = text
        .get(at..)?
        .find(['/', '?', '#', ' '])
        .map_or(text.len(), |end| at + end);
    let authority = text.get(at..authority_end)?;
    let (user, host) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    (!password.is_empty() && password != STRUCK).then(|| {
        let name = user.split(':').next().unwrap_or_default();
        format!(
            "{}{name}:{STRUCK}@{host}{}",
            text.get(..at).unwrap_or_default(),
            text.get(authority_end..).unwrap_or_default()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_names_stay() {
        for (text, expected) in [
            (
                "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
                Some("[removed]"),
            ),
            (
                "repo/ghp_16C7e42F292c6912E7710c838347Ae178B4a/x",
                Some("repo/[removed]/x"),
            ),
            ("password=hunter2", Some("password=[removed]")),
            ("db_password: hunter2", Some("db_password: [removed]")),
            (
                "\"client_secret\": \"a\"",
                Some("\"client_secret\": \"[removed]\""),
            ),
            (
                "Authorization: Bearer abcdef",
                Some("Authorization: Bearer [removed]"),
            ),
            (
                "https://ana:hunter2@host/x",
                Some("https://ana:[removed]@host/x"),
            ),
            ("sk-ant-api03-AbC0123456789AbCdEfG", Some("[removed]")),
            (
                "curl eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x",
                Some("curl [removed]"),
            ),
            ("-----BEGIN RSA PRIVATE KEY-----abc", Some("[removed]")),
            (
                "?X-Amz-Signature=00ff&a=b",
                Some("?X-Amz-Signature=[removed]&a=b"),
            ),
            // Names and identifiers.
            (
                "arn:aws:secretsmanager:us-east-1:1:secret:prod/db-AbCdEf",
                None,
            ),
            ("arn:aws:secretsmanager:eu-west-1:1:secret:db-AbCdEf", None),
            ("secret: hunter2hunter2", Some("secret: [removed]")),
            ("arn:aws:iam::123456789012:user/password-reset", None),
            ("AKIAIOSFODNN7EXAMPLE", None),
            ("projects/p/secrets/api-key/versions/3", None),
            ("https://v.vault.azure.net/secrets/password", None),
            ("aws-cli/2.15.0 md/awscrt#0.19.19 ua/2.0 os/linux#6.1", None),
            ("task-scheduler-service-account", None),
            ("hmac-sha256:00ff11ee22dd33cc44bb55aa66997788", None),
            ("Mozilla/5.0 (X11; Linux x86_64)", None),
        ] {
            assert_eq!(struck_out(text).as_deref(), expected, "{text}");
        }
    }
}
