//! Bodies of the fuzz targets (`fuzz/fuzz_targets/`), and of the short run in `tests/smoke.rs`.
//!
//! Each panics when an invariant does not hold, and only then.

use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;

use crate::framing::{Cut, Framing, MAX_RECORD_BYTES, Records, Shape};
use crate::text::MAX_TEXT;
use crate::{Mapping, Options, Parser, SourceKind, make};

/// One record of one source: whatever it holds, parsing ends, twice the same, and what comes out
/// is bounded and can be written down and read back.
///
/// # Panics
/// When it does not.
pub fn record(kind: SourceKind, data: &[u8]) {
    let parser = Parser::new(kind, options(kind));
    let mut uses = Vec::new();
    let parsed = parser.parse(data, &mut uses);
    let mut again = Vec::new();
    assert!(
        parsed == parser.parse(data, &mut again),
        "parsed otherwise the second time"
    );
    assert!(uses == again, "other uses the second time");
    match parsed {
        Ok(parsed) => {
            assert!(parsed.uses == uses.len(), "uses are miscounted");
            assert!(
                (parsed.uses == 0) == parsed.skipped.is_some(),
                "no use and no reason"
            );
        }
        Err(_) => assert!(uses.is_empty(), "a refused record left a use"),
    }
    uses.iter().for_each(check);
}

/// A file: it is cut to its end or to an error, and no record exceeds the limit.
///
/// # Panics
/// When one does.
pub fn framing(data: &[u8]) {
    for shape in [Shape::Json, Shape::JsonOrCsv, Shape::JsonOrLines] {
        let mut records = Records::framed(data, Framing::shaped(shape));
        let mut left = data.len().saturating_add(2);
        while let Ok(Some(cut)) = records.next_record() {
            if let Cut::Record(record) = cut {
                // A CSV row grows by its names and its escapes.
                let limit = if shape == Shape::JsonOrCsv {
                    MAX_RECORD_BYTES * 8
                } else {
                    MAX_RECORD_BYTES
                };
                assert!(record.len() <= limit, "a record above the limit");
            }
            assert!(left > 0, "more records than bytes");
            left -= 1;
        }
    }
}

/// A mapping and a record, with a zero byte between them.
///
/// # Panics
/// When uses are miscounted, or one is unbounded or cannot be read back.
pub fn mapping(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let Ok(mapping) = Mapping::from_toml(&text) else {
        return;
    };
    let options = Options {
        mapping: Some(mapping),
        ..Options::default()
    };
    let parser = Parser::new(SourceKind::Mapped, options);
    let mut uses = Vec::new();
    let parsed = parser.parse(parts.next().unwrap_or_default(), &mut uses);
    assert!(
        parsed.map_or(0, |parsed| parsed.uses) == uses.len(),
        "uses are miscounted"
    );
    uses.iter().for_each(check);
}

fn options(kind: SourceKind) -> Options {
    let mapping = (kind == SourceKind::Mapped).then(|| Mapping::shipped("slack.audit"));
    Options {
        endpoints: vec!["vault.corp.example".to_owned()],
        tenant: None,
        mapping: mapping.flatten(),
    }
}

/// What must hold of every use.
fn check(usage: &Consumption) {
    let fits = |text: &str| text.chars().count() <= MAX_TEXT + 64;
    let texts = [
        Some(&usage.service),
        Some(&usage.action),
        usage.region.as_ref(),
        usage.user_agent.as_ref(),
        usage.principal.as_ref(),
        usage.account.as_ref(),
    ];
    assert!(
        texts.into_iter().flatten().all(|text| fits(text)),
        "a text above the limit"
    );
    assert!(
        usage.resources.len() <= make::MAX_RESOURCES,
        "too many resources"
    );
    assert!(
        usage.resources.iter().all(|text| fits(text)),
        "a resource above the limit"
    );
    assert!(
        !usage.descends.contains(&usage.credential),
        "a credential is its own ancestor"
    );
    assert!(
        usage.minted.as_ref() != Some(&usage.credential),
        "a credential makes itself"
    );
    let ids = usage.descends.iter().chain([&usage.credential]);
    for id in ids
        .chain(&usage.minted)
        .chain(&usage.revoked)
        .chain(&usage.restored)
    {
        assert!(
            id.to_string().parse::<CredentialId>().as_ref() == Ok(id),
            "an id that cannot be read back"
        );
    }
    let written = serde_json::to_vec(usage).unwrap_or_default();
    let read: Option<Consumption> = serde_json::from_slice(&written).ok();
    assert!(
        read.as_ref() == Some(usage),
        "a use that cannot be read back"
    );
}
