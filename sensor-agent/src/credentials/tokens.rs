//! Finding AWS access key ids and GitHub tokens in bytes.

use keytrail_model::credential::CredentialId;

/// One finding of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A credential, by its identifier.
    Credential(CredentialId),
    /// The form of a classic GitHub token with a wrong checksum: a truncated or made-up one.
    BadChecksum,
}

/// Longest token looked at; GitHub's stateless `ghs_` form is about 520 characters.
const MAX_TOKEN: usize = 2048;
/// A classic GitHub token after its prefix: 30 random characters and 6 of checksum.
const CLASSIC_BODY: usize = 30;
const CLASSIC: usize = 36;

/// Every credential in `text`, in order. Tokens are recognised at word boundaries only.
#[must_use]
pub fn scan(text: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut previous: Option<u8> = None;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if !previous.is_some_and(is_word)
            && let Some((token, len)) = token_at(rest)
        {
            tokens.extend(token);
            previous = Some(b'a');
            at += len.max(1);
            continue;
        }
        previous = rest.first().copied();
        at += 1;
    }
    tokens
}

/// The first credential in a value that stands alone (a variable, a field).
#[must_use]
pub fn whole(value: &[u8]) -> Option<Token> {
    let value = value.trim_ascii();
    match token_at(value) {
        Some((token, len)) if len == value.len() => token,
        Some(_) | None => None,
    }
}

/// A field that GitHub's own tools fill with a token of any age: the known forms, or the 40 hex
/// digits of before 2021.
#[must_use]
pub fn github_field(value: &[u8]) -> Option<Token> {
    let value = value.trim_ascii();
    if value.len() == 40 && value.iter().all(u8::is_ascii_hexdigit) {
        return Some(Token::Credential(CredentialId::github_token(value)));
    }
    whole(value)
}

/// Looks for a token at the start of `rest`: what it is (`None`: a form we step over) and how long.
fn token_at(rest: &[u8]) -> Option<(Option<Token>, usize)> {
    match rest.first()? {
        b'A' => aws_at(rest),
        b'g' => github_at(rest),
        _ => None,
    }
}

/// `AKIA`/`ASIA` and 16 base32 characters (IAM's unique-id documentation: prefixes and length).
fn aws_at(rest: &[u8]) -> Option<(Option<Token>, usize)> {
    if !(rest.starts_with(b"AKIA") || rest.starts_with(b"ASIA")) {
        return None;
    }
    let len = run(rest, is_word);
    let id = rest.get(..len)?;
    let base32 = |b: &u8| b.is_ascii_uppercase() || (b'2'..=b'7').contains(b);
    if len != 20 || !id.iter().all(base32) {
        return Some((None, len));
    }
    let id = CredentialId::aws_access_key(std::str::from_utf8(id).ok()?).ok()?;
    Some((Some(Token::Credential(id)), len))
}

/// GitHub's prefixes (github.blog, "Behind GitHub's new authentication token formats", and the
/// 2026 change of `ghs_` to a stateless form with dots).
fn github_at(rest: &[u8]) -> Option<(Option<Token>, usize)> {
    if rest.starts_with(b"github_pat_") {
        return Some(fine_grained(rest));
    }
    let kind = rest.get(..4)?;
    if !matches!(kind, b"ghp_" | b"gho_" | b"ghu_" | b"ghr_" | b"ghs_") {
        return None;
    }
    if kind == b"ghs_"
        && let Some(found) = stateless(rest)
    {
        return Some(found);
    }
    let len = run(rest, is_word);
    let body = rest.get(4..len)?;
    // A refresh token (`ghr_`) is longer: 70 random characters and 6 of checksum.
    let plausible = body.len() == CLASSIC || (kind == b"ghr_" && body.len() == 76);
    if !plausible || !body.iter().all(u8::is_ascii_alphanumeric) {
        return Some((None, len));
    }
    let split = body.len() - (CLASSIC - CLASSIC_BODY);
    let (random, checksum) = body.split_at_checked(split)?;
    let token = if checksum_of(random).as_slice() == checksum {
        Token::Credential(CredentialId::github_token(rest.get(..len)?))
    } else {
        Token::BadChecksum
    };
    Some((Some(token), len))
}

/// `github_pat_`, 22 characters, `_`, 59 characters.
fn fine_grained(rest: &[u8]) -> (Option<Token>, usize) {
    let len = run(rest, is_word);
    let token = rest.get(..len).unwrap_or(rest);
    let body = token.get(11..).unwrap_or_default();
    let fits = body.len() == 82 && body.get(22) == Some(&b'_');
    let credential = fits.then(|| Token::Credential(CredentialId::github_token(token)));
    (credential, len)
}

/// The stateless `ghs_`: a JSON web token, so letters, digits, `-`, `_` and two dots.
fn stateless(rest: &[u8]) -> Option<(Option<Token>, usize)> {
    let mut len = run(rest, |b| is_word(b) || b == b'.' || b == b'-');
    // A full stop or dash after the token belongs to the sentence around it.
    while rest
        .get(len.checked_sub(1)?)
        .is_some_and(|b| matches!(b, b'.' | b'-'))
    {
        len -= 1;
    }
    let token = rest.get(..len)?;
    let dots = token.iter().filter(|b| **b == b'.').count();
    if dots != 2 || len < 4 + 60 {
        return None;
    }
    Some((
        Some(Token::Credential(CredentialId::github_token(token))),
        len,
    ))
}

/// Six base-62 digits of the CRC-32 of the random part.
#[must_use]
pub fn checksum_of(random: &[u8]) -> [u8; 6] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut value = crc32fast::hash(random);
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS.get((value % 62) as usize).copied().unwrap_or(b'0');
        value /= 62;
    }
    digits
}

fn run(bytes: &[u8], part: impl Fn(u8) -> bool) -> usize {
    bytes
        .iter()
        .take(MAX_TOKEN)
        .take_while(|b| part(**b))
        .count()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token of the classic form with a right checksum, made up.
    pub(crate) fn classic(prefix: &str, random: &str) -> String {
        let checksum = checksum_of(random.as_bytes());
        format!("{prefix}{random}{}", String::from_utf8_lossy(&checksum))
    }

    fn ids(text: &str) -> Vec<String> {
        scan(text.as_bytes())
            .into_iter()
            .map(|t| match t {
                Token::Credential(id) => id.to_string(),
                Token::BadChecksum => "bad".to_owned(),
            })
            .collect()
    }

    #[test]
    fn the_published_sample_has_a_right_checksum() {
        // From GitHub's description of the format; revoked since.
        assert_eq!(&checksum_of(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"), b"0mLq17");
    }

    #[test]
    fn tokens_are_found_at_word_boundaries() {
        let good = classic("ghp_", "abcdefghijABCDEFGHIJ0123456789");
        let hash = CredentialId::github_token(good.as_bytes()).to_string();
        let aws = "aws-access-key:AKIAIOSFODNN7EXAMPLE".to_owned();
        for (text, expected) in [
            (format!("token={good}\n"), vec![hash.clone()]),
            (format!("https://x:{good}@github.com"), vec![hash.clone()]),
            (format!("x{good}"), vec![]),
            (format!("{good}x"), vec![]),
            (good.replace("ghp_a", "ghp_b"), vec!["bad".to_owned()]),
            ("id AKIAIOSFODNN7EXAMPLE, done".to_owned(), vec![aws]),
            ("AKIAIOSFODNN7EXAMPLEX".to_owned(), vec![]),
            ("XAKIAIOSFODNN7EXAMPLE".to_owned(), vec![]),
            ("AKIAIOSFODNN1EXAMPLE".to_owned(), vec![]),
        ] {
            assert_eq!(ids(&text), expected, "{text}");
        }
    }

    #[test]
    fn a_stateless_installation_token_is_hashed_whole() {
        let token = format!(
            "ghs_{}.{}.{}",
            "h".repeat(36),
            "p-_x".repeat(100),
            "s".repeat(86)
        );
        let hash = CredentialId::github_token(token.as_bytes()).to_string();
        assert_eq!(
            ids(&format!("GITHUB_TOKEN={token}\n")),
            std::slice::from_ref(&hash)
        );
        assert_eq!(ids(&format!("It is {token}.")), [hash]);
    }

    #[test]
    fn a_fine_grained_token_has_two_parts() {
        let token = format!("github_pat_{}_{}", "A".repeat(22), "b".repeat(59));
        assert_eq!(
            ids(&token),
            [CredentialId::github_token(token.as_bytes()).to_string()]
        );
        assert_eq!(ids(&format!("{token}b")), [""; 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_in_bounds(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(scan(&text).len() <= text.len() / 20 + 1);
        }

        #[test]
        fn a_right_token_is_found_wherever_it_stands(
            random in "[A-Za-z0-9]{30}", before in "[ =:@/\"']{0,3}", after in "[ ,;\n\"'@]{0,3}"
        ) {
            let token = classic("gho_", &random);
            let hash = CredentialId::github_token(token.as_bytes()).to_string();
            prop_assert_eq!(ids(&format!("{before}{token}{after}")), vec![hash]);
        }
    }
}
