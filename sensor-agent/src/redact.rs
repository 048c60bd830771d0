//! Masks secrets in command lines before anything leaves the host.
//!
//! Better a masked word too many than a secret on the wire: a word is masked when it has a known
//! token's form, stands where secrets stand (`--password X`, `Authorization: X`, `user:X@host`,
//! `API_KEY=X`), or is long and looks random.

/// What stands in place of a secret.
pub const MASK: &str = "[masked]";
/// Most arguments kept of one command line, and most characters of one argument.
const MAX_ARGS: usize = 48;
const MAX_ARG: usize = 512;

/// Prefixes of published token formats (providers' documentation and open rule sets). What follows
/// must be at least eight token characters.
const PREFIXES: [&str; 62] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glptt-",
    "gloas-",
    "glagent-",
    "glft-",
    "glimt-",
    "glsoat-",
    "glffct-",
    "npm_",
    "pypi-",
    "sk-",
    "sk_live_",
    "rk_live_",
    "sk_test_",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxc-",
    "xoxd-",
    "xoxs-",
    "xapp-",
    "hvs.",
    "hvb.",
    "hvr.",
    "dop_v1_",
    "doo_v1_",
    "HRKU-",
    "sbp_",
    "hf_",
    "gsk_",
    "xai-",
    "r8_",
    "pplx-",
    "lsv2_",
    "shpat_",
    "shpss_",
    "ATATT3",
    "lin_api_",
    "ntn_",
    "secret_",
    "NRAK-",
    "glsa_",
    "glc_",
    "dckr_pat_",
    "pul-",
    "AIza",
    "ya29.",
    "ABSK",
    "bedrock-api-key-",
    "AGE-SECRET-KEY-",
    "ops_eyJ",
    "eyJ",
    "SG.",
];

/// Masks a whole command line: a flag such as `--password` also masks the argument after it.
#[must_use]
pub fn redact_argv(args: &[String]) -> Vec<String> {
    let mut masked = Vec::with_capacity(args.len().min(MAX_ARGS));
    let mut mask_next = false;
    for (index, arg) in args.iter().enumerate() {
        if index >= MAX_ARGS {
            masked.push(format!("[{} more]", args.len() - MAX_ARGS));
            break;
        }
        if mask_next && !arg.starts_with("--") {
            masked.push(MASK.to_owned());
            mask_next = false;
            continue;
        }
        // The first argument is the program's name, never a flag.
        mask_next = index > 0 && is_secret_flag(arg);
        masked.push(redact_text(arg));
    }
    masked
}

/// Masks the secrets in one text (an argument, a path, a shell command) and cuts it to size.
#[must_use]
pub fn redact_text(text: &str) -> String {
    let text = mask_userinfo(text);
    let mut out = String::with_capacity(text.len());
    let mut before = "";
    let mut context = Context::default();
    for (separator, word) in words(&text) {
        out.push_str(separator);
        if context.masks(before, separator, word) {
            out.push_str(MASK);
        } else {
            out.push_str(word);
        }
        if !word.is_empty() {
            before = word;
        }
    }
    cut(out)
}

/// What the words before say about the next one.
#[derive(Default)]
struct Context {
    /// Words still to be masked after an `Authorization:` header's scheme.
    header: u8,
}

impl Context {
    fn masks(&mut self, before: &str, separator: &str, word: &str) -> bool {
        if word.is_empty() {
            return false;
        }
        if self.header > 0 {
            self.header -= 1;
            let scheme = [
                "basic",
                "bearer",
                "token",
                "digest",
                "negotiate",
                "aws4-hmac-sha256",
            ]
            .iter()
            .any(|s| word.eq_ignore_ascii_case(s));
            if scheme {
                self.header = 1;
                return false;
            }
            return true;
        }
        let assigned = separator.contains(['=', ':']) || separator.contains("\":\"");
        if assigned && is_header(before) {
            let scheme = [
                "basic",
                "bearer",
                "token",
                "digest",
                "negotiate",
                "aws4-hmac-sha256",
            ];
            if scheme.iter().any(|s| word.eq_ignore_ascii_case(s)) {
                self.header = 1;
                return false;
            }
            return true;
        }
        let named = assigned && is_secret_name(before);
        let flagged = separator.chars().any(char::is_whitespace) && is_secret_flag(before);
        let bearer = before.eq_ignore_ascii_case("bearer") && separator.trim().is_empty();
        named || flagged || bearer || is_token(word)
    }
}

/// Splits into (separator, word) pairs. Words are runs of characters that tokens consist of.
fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = rest.find(is_token_char).unwrap_or(rest.len());
        let (separator, tail) = rest.split_at_checked(start)?;
        let end = tail.find(|c| !is_token_char(c)).unwrap_or(tail.len());
        let (word, tail) = tail.split_at_checked(end)?;
        // `base64==`: the padding belongs to the word.
        let padding = tail.len() - tail.trim_start_matches('=').len();
        let (word, tail) = if padding > 0 && (2..=2).contains(&padding) && word.len() > 16 {
            let cut = end + padding;
            let whole = rest.get(start..start + cut)?;
            (whole, rest.get(start + cut..)?)
        } else {
            (word, tail)
        };
        rest = tail;
        Some((separator, word))
    })
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '_' | '-' | '.' | '+' | '/' | '~' | '%' | '$')
        || !c.is_ascii()
}

/// `scheme://user:secret@host`: everything before the last `@` of the authority.
fn mask_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at_checked(at + 3).unwrap_or((rest, ""));
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\''))
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at_checked(end).unwrap_or((after, ""));
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(MASK);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn is_header(name: &str) -> bool {
    [
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "cookie",
        "private-token",
    ]
    .iter()
    .any(|h| name.eq_ignore_ascii_case(h))
}

/// `--password`, `--api-key`, `-p` is left alone: too often a port or a path.
fn is_secret_flag(arg: &str) -> bool {
    let name = arg.trim_start_matches('-');
    let dashes = arg.len() - name.len();
    (dashes == 2 || (dashes == 1 && name.len() > 2)) && !name.contains('=') && is_secret_name(name)
}

/// Names under which secrets are passed.
pub(crate) fn is_secret_name(name: &str) -> bool {
    const ENDS: [&str; 21] = [
        "password",
        "passwd",
        "passphrase",
        "pass",
        "pwd",
        "secret",
        "token",
        "apikey",
        "accesskey",
        "secretkey",
        "privatekey",
        "credential",
        "credentials",
        "auth",
        "authtoken",
        "sessionkey",
        "signature",
        "sig",
        "bearer",
        "accesskeyid",
        "pat",
    ];
    const MIDDLES: [&str; 4] = ["password", "secret", "apikey", "token"];
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    // An access key id is an identifier, but masked all the same: it is sent where it belongs.
    let file = ["file", "path", "dir", "url", "name", "id"]
        .iter()
        .any(|e| plain.ends_with(e));
    ENDS.iter().any(|end| plain.ends_with(end))
        || (!file && MIDDLES.iter().any(|part| plain.contains(part)))
        || plain == "key"
        || plain.ends_with("accesskeyid")
}

fn is_token(word: &str) -> bool {
    let aws = |prefix: &str| {
        word.find(prefix).is_some_and(|at| {
            let rest = word.get(at + 4..).unwrap_or_default();
            rest.bytes()
                .take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
                .count()
                >= 12
        })
    };
    let prefixed = PREFIXES.iter().any(|prefix| {
        word.match_indices(prefix).any(|(at, _)| {
            let boundary = at == 0
                || word
                    .as_bytes()
                    .get(at - 1)
                    .is_some_and(|b| !b.is_ascii_alphanumeric());
            let tail = word.get(at + prefix.len()..).unwrap_or_default();
            boundary && token_run(tail) >= 8 && !is_plain(tail)
        })
    });
    prefixed
        || aws("AKIA")
        || aws("ASIA")
        || word.split(['/', '.']).any(is_random)
        || is_random(word)
}

fn token_run(text: &str) -> usize {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        .count()
}

/// Lower-case words and dashes (`npm_config_registry`, `sk-learn-tools`): a name, not a token.
fn is_plain(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '-' | '.' | '/'))
}

/// Long, and of mixed characters, or hexadecimal as keys are: 32 characters and more. Hashes of
/// content (64 hex digits after `sha256`, git's 40) are masked too; they are not worth the risk.
fn is_random(text: &str) -> bool {
    let text = text.trim_end_matches('=');
    if text.len() < 28
        || !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/_-".contains(&b))
    {
        return false;
    }
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let upper = text.bytes().filter(u8::is_ascii_uppercase).count();
    let lower = text.bytes().filter(u8::is_ascii_lowercase).count();
    if hex && text.len() >= 32 {
        return digits > 3;
    }
    // A path or a sentence-like name has few capitals and digits among its lower-case letters.
    let mixed = usize::from(digits > 1) + usize::from(upper > 2) + usize::from(lower > 2) >= 2;
    mixed && (upper + digits) * 5 >= text.len()
}

fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(MAX_ARG) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
