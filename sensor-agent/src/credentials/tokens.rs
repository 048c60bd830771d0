//! Finding credentials in bytes by their form: AWS access key ids, GitHub tokens, JSON Web Tokens,
//! PyPI's macaroons, and every form of `catalogue/tokens.toml`.

use keytrail_model::credential::{CredentialId, CredentialKind};

use super::catalogue::TokenRow;
use super::hasher::Hasher;
use super::{Recogniser, jwt, macaroon};

/// What a secret is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its identifiers: one, or several where a provider's logs name several (a token, its
    /// session, its account).
    pub ids: Vec<CredentialId>,
    /// Server names that it is for, beside what its kind says.
    pub hosts: Vec<String>,
}

impl Known {
    /// By one identifier.
    #[must_use]
    pub(super) fn by(id: CredentialId) -> Self {
        Self {
            ids: vec![id],
            hosts: Vec::new(),
        }
    }

    /// Adds an identifier, if it has its kind's form.
    pub(super) fn id(&mut self, kind: CredentialKind, value: &str) {
        self.ids.extend(CredentialId::new(kind, value).ok());
    }
}

/// One finding of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A credential.
    Credential(Known),
    /// The form of a token with a wrong checksum: a truncated or made-up one.
    BadChecksum,
}

impl Token {
    fn one(id: CredentialId) -> Self {
        Self::Credential(Known::by(id))
    }
}

/// Longest token looked at; GitHub's stateless `ghs_` form is about 520 characters.
const MAX_TOKEN: usize = 2048;
/// A classic GitHub token after its prefix: 30 random characters and 6 of checksum.
const CLASSIC_BODY: usize = 30;
const CLASSIC: usize = 36;

impl Recogniser {
    /// Every credential in `text`, in order. Tokens are recognised at word boundaries only.
    #[must_use]
    pub fn scan(&self, text: &[u8]) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut at = 0;
        let mut previous: Option<u8> = None;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if !previous.is_some_and(is_word)
                && let Some((token, len)) = self.token_at(rest)
            {
                tokens.extend(token);
                previous = Some(b'a');
                at += len.max(1);
                continue;
            }
            previous = rest.first().copied();
            at += 1;
        }
        tokens.extend(self.patterns(text));
        tokens
    }

    /// The credential in a value that stands alone (a variable, a field).
    #[must_use]
    pub fn whole(&self, value: &[u8]) -> Option<Token> {
        let value = value.trim_ascii();
        match self.token_at(value) {
            Some((token, len)) if len == value.len() => token,
            Some(_) | None => None,
        }
    }

    /// A field that GitHub's own tools fill with a token of any age: the known forms, or the 40
    /// hex digits of before 2021.
    #[must_use]
    pub fn github_field(&self, value: &[u8]) -> Option<Token> {
        let value = value.trim_ascii();
        if value.len() == 40 && value.iter().all(u8::is_ascii_hexdigit) {
            return Some(Token::one(CredentialId::github_token(value)));
        }
        self.whole(value)
    }

    /// Looks for a token at the start of `rest`: what it is (`None`: a form we step over) and how
    /// long.
    fn token_at(&self, rest: &[u8]) -> Option<(Option<Token>, usize)> {
        let first = *rest.first()?;
        let special = match first {
            b'A' => aws_at(rest),
            b'g' => github_at(rest),
            b'e' if jwt::starts(rest) => jwt_at(rest, &self.hasher),
            b'p' if rest.starts_with(b"pypi-") => pypi_at(rest, &self.hasher),
            b'b' if rest.starts_with(BEDROCK) => bedrock_at(rest, &self.hasher),
            _ => None,
        };
        special.or_else(|| {
            let mut rows = self.tokens.starting_with(first);
            rows.find_map(|row| row_at(row, rest, &self.hasher))
        })
    }

    /// What the user's own patterns find.
    fn patterns(&self, text: &[u8]) -> Vec<Token> {
        self.tokens
            .patterns()
            .flat_map(|pattern| {
                let found = pattern.find(text);
                found.filter_map(|secret| {
                    let id = self.hasher.identify(&pattern.name, secret)?;
                    Some(Token::Credential(Known {
                        ids: vec![id],
                        hosts: pattern.hosts.clone(),
                    }))
                })
            })
            .collect()
    }
}

/// A token of a catalogue row.
fn row_at(row: &TokenRow, rest: &[u8], hasher: &Hasher) -> Option<(Option<Token>, usize)> {
    let len = row.length(rest)?;
    let token = rest.get(..len)?;
    if row.has_checksum() {
        let split = token.len().checked_sub(CLASSIC - CLASSIC_BODY)?;
        let (body, checksum) = token
            .get(row.prefix().len()..)?
            .split_at_checked(split - row.prefix().len())?;
        if checksum_of(body).as_slice() != checksum {
            return Some((Some(Token::BadChecksum), len));
        }
    }
    let mut known = Known {
        ids: Vec::new(),
        hosts: row.hosts.clone(),
    };
    known.ids.extend(row.identify(token, hasher));
    (!known.ids.is_empty()).then_some((Some(Token::Credential(known)), len))
}

fn jwt_at(rest: &[u8], hasher: &Hasher) -> Option<(Option<Token>, usize)> {
    let len = jwt::length(rest)?;
    let known = jwt::identify(rest.get(..len)?, hasher)?;
    Some((Some(Token::Credential(known)), len))
}

/// PyPI's token: a macaroon with the token's UUID as its identifier.
fn pypi_at(rest: &[u8], hasher: &Hasher) -> Option<(Option<Token>, usize)> {
    let body = rest.get(5..)?;
    let len = run(body, |b| is_word(b) || b == b'-');
    let token = rest.get(..5 + len)?;
    if len < 64 {
        return None;
    }
    let read = macaroon::read(token.get(5..)?);
    let id = read
        .as_ref()
        .and_then(|m| CredentialId::new(CredentialKind::PypiToken, &m.identifier).ok())
        .or_else(|| hasher.identify("pypi-token", token))?;
    let hosts = read.and_then(|m| m.location).into_iter().collect();
    Some((
        Some(Token::Credential(Known {
            ids: vec![id],
            hosts,
        })),
        token.len(),
    ))
}

/// Short-term Bedrock keys wrap a presigned request, in which the session's access key id stands.
const BEDROCK: &[u8] = b"bedrock-api-key-";

fn bedrock_at(rest: &[u8], hasher: &Hasher) -> Option<(Option<Token>, usize)> {
    use base64::Engine as _;
    let body = rest.get(BEDROCK.len()..)?;
    let len = body
        .iter()
        .take(4 * MAX_TOKEN)
        .take_while(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b))
        .count();
    if len < 32 {
        return None;
    }
    let token = rest.get(..BEDROCK.len() + len)?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(body.get(..len)?)
        .map(zeroize::Zeroizing::new)
        .unwrap_or_default();
    let inside = (0..decoded.len()).find_map(|at| {
        let rest = decoded.get(at..at + 20)?;
        match aws_at(rest)? {
            (Some(Token::Credential(known)), _) => known.ids.into_iter().next(),
            _ => None,
        }
    });
    let id = inside.or_else(|| hasher.identify("bedrock-api-key", token))?;
    Some((Some(Token::one(id)), token.len()))
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
    Some((Some(Token::one(id)), len))
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
        Token::one(CredentialId::github_token(rest.get(..len)?))
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
    let credential = fits.then(|| Token::one(CredentialId::github_token(token)));
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
    Some((Some(Token::one(CredentialId::github_token(token))), len))
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
        Recogniser::for_tests()
            .scan(text.as_bytes())
            .into_iter()
            .flat_map(|t| match t {
                Token::Credential(known) => known.ids.iter().map(ToString::to_string).collect(),
                Token::BadChecksum => vec!["bad".to_owned()],
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
            prop_assert!(Recogniser::for_tests().scan(&text).len() <= text.len() / 8 + 1);
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
