//! Bodies of the fuzz targets (`fuzz/fuzz_targets/agent_*.rs`), and of the short run in
//! `tests/smoke.rs`.
//!
//! Each panics when an invariant does not hold, and only then. The first byte of the data chooses
//! between the formats of one target.

use std::path::Path;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keytrail_model::ids::ConnectionId;

use crate::agents::catalogue::ConfigFormat;
use crate::agents::{config, launch};
use crate::credentials::{
    FileFormat, Form, Hasher, Identified, MAX_FOUND, Recogniser, TokenCatalogue, WatchCatalogue,
};
use crate::hello::Hellos;
use crate::kernel::decode;
use crate::redact::{redact_argv, redact_text};
use crate::tree::{RawArgv, SecretEnv};

struct Known {
    recogniser: Recogniser,
    forms: Vec<Form>,
}

fn known() -> Option<&'static Known> {
    static KNOWN: OnceLock<Option<Known>> = OnceLock::new();
    let make = || {
        let tokens = TokenCatalogue::builtin().ok()?;
        Some(Known {
            recogniser: Recogniser::new(tokens, Hasher::new(&[7; 32], true)),
            forms: WatchCatalogue::builtin().ok()?.forms().collect(),
        })
    };
    KNOWN.get_or_init(make).as_ref()
}

/// How many forms [`credential`] chooses from.
#[must_use]
pub fn forms() -> usize {
    known().map_or(0, |known| known.forms.len())
}

/// A credential file, in one of the forms of the catalogue: whatever it holds, parsing ends, twice
/// the same, bounded, and what comes out can be written down and read back.
///
/// # Panics
/// When it does not.
pub fn credential(data: &[u8]) {
    let (Some(known), Some((choice, bytes))) = (known(), data.split_first()) else {
        return;
    };
    let Some(form) = known
        .forms
        .get(usize::from(*choice) % known.forms.len().max(1))
    else {
        return;
    };
    let path = Path::new("/home/ada/UTC--x--0123456789abcdef0123456789abcdef01234567");
    let found = known.recogniser.identify_file(form, path, bytes);
    assert!(
        found == known.recogniser.identify_file(form, path, bytes),
        "parsed otherwise the second time"
    );
    assert!(found.found.len() <= MAX_FOUND, "more findings than allowed");
    for one in &found.found {
        assert!(one.destinations.len() <= 8, "more servers than kept");
        let entry = one.entry.as_deref().unwrap_or_default();
        assert!(!entry.chars().any(char::is_control), "a control character");
    }
    let text = serde_json::to_string(&found).unwrap_or_default();
    let read: Option<Identified> = serde_json::from_str(&text).ok();
    assert!(read.as_ref() == Some(&found), "cannot be read back");
}

/// An environment block.
///
/// # Panics
/// When more comes out than may.
pub fn environment(data: &[u8]) {
    if let Some(known) = known() {
        let found = known
            .recogniser
            .identify_env(&SecretEnv::new(data.to_vec()));
        assert!(found.len() <= MAX_FOUND, "more findings than allowed");
    }
}

/// An agent's configuration, and the command lines that it lists.
///
/// # Panics
/// When a listed server has no command.
pub fn mcp_config(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let format = match choice % 3 {
        0 => ConfigFormat::Json,
        1 => ConfigFormat::Toml,
        _ => ConfigFormat::Yaml,
    };
    for at in [Vec::new(), vec![vec!["*".to_owned()], Vec::new()]] {
        for listed in config::servers(format, bytes, &at).unwrap_or_default() {
            assert!(!listed.command.is_empty(), "a server without command");
            let _launch = launch::unwrap(&listed.command);
        }
    }
}

/// A command line: taken apart, and masked.
///
/// # Panics
/// When a masked command line masks more the second time.
pub fn command_line(data: &[u8]) {
    let argv = RawArgv::from_block(data);
    let _launch = launch::unwrap(argv.args());
    assert!(
        redact_argv(argv.args()).len() <= 49,
        "more arguments than kept"
    );
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(redact_text(text).chars().count() <= 513, "longer than kept");
    }
}

/// A ClientHello in two segments says what it says in one.
///
/// # Panics
/// When it does not.
pub fn client_hello(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let whole = Hellos::default().push(ConnectionId(1), 0, bytes);
    let at = usize::from(*choice).min(bytes.len());
    let (first, second) = bytes.split_at(at);
    let mut hellos = Hellos::default();
    let early = hellos.push(ConnectionId(1), 0, first);
    // What follows a complete hello is no part of it.
    if early.is_none() && whole.is_some() && !first.is_empty() {
        let offset = u32::try_from(at).unwrap_or(u32::MAX);
        let split = hellos.push(ConnectionId(1), offset, second);
        assert!(split == whole, "another name in two segments");
    }
}

/// The claims of a JSON Web Token, whatever they hold.
///
/// # Panics
/// When a token is identified otherwise the second time, or as what cannot be read back.
pub fn jwt(data: &[u8]) {
    let Some(known) = known() else { return };
    let claims = URL_SAFE_NO_PAD.encode(data);
    let token = format!("eyJhbGciOiJub25lIn0.{claims}.c2lnbmF0dXJl");
    let read = || {
        let form = Form::from(FileFormat::Text);
        let path = Path::new("/home/ada/token");
        known
            .recogniser
            .identify_file(&form, path, token.as_bytes())
    };
    let found = read();
    assert!(found == read(), "identified otherwise the second time");
    for one in &found.found {
        let text = one.credential.to_string();
        assert!(
            text.parse().as_ref() == Ok(&one.credential),
            "an id that cannot be read back"
        );
    }
}

/// A record of the kernel's ring: decoded or refused.
pub fn ring_record(data: &[u8]) {
    let _decoded = decode::decode(data);
}

/// A DNS message: read or refused.
pub fn dns_message(data: &[u8]) {
    let _message = crate::names::read(data);
}
