//! MaxMind databases, whoever makes them.
//!
//! Records: GeoLite2-ASN (`autonomous_system_number`, `autonomous_system_organization`), GeoLite2-Country
//! and -City (`country.iso_code`), DB-IP (the same), IPinfo (`asn`, `as_name`, `country_code`),
//! ip-location-db (`country_code`).

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use jiff::Timestamp;
use maxminddb::{Reader, WithinOptions};
use serde_json::Value;

use super::{ReadError, country, system};
use crate::database::{Draft, Entry, Role};
use crate::error::Problem;
use crate::span::Span;

/// What a record says; records are shared by many networks.
#[derive(Clone, Debug, Default)]
struct Said {
    asn: Option<u32>,
    organisation: Option<String>,
    country: Option<[u8; 2]>,
}

/// Marks the beginning of a MaxMind database's description of itself.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// Reads a database.
pub(super) fn read(
    bytes: &[u8],
    (role, name): (Role, &str),
    draft: &mut Draft,
) -> Result<&'static str, ReadError> {
    if !bytes
        .windows(MARKER.len())
        .rev()
        .take(128 << 10)
        .any(|window| window == MARKER)
    {
        return Err(Problem::Binary.into());
    }
    walk(bytes, role, name, draft)?;
    Ok("MaxMind database")
}

fn walk(bytes: &[u8], role: Role, name: &str, draft: &mut Draft) -> Result<(), Problem> {
    let damaged = |error: maxminddb::MaxMindDbError| Problem::Mmdb(error.to_string());
    let reader = Reader::from_source(bytes).map_err(damaged)?;
    let built = i64::try_from(reader.metadata().build_epoch).ok();
    draft.dated = built.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let mut known: HashMap<usize, Said> = HashMap::new();
    let networks = reader.networks(WithinOptions::default()).map_err(damaged)?;
    for result in networks {
        let result = result.map_err(damaged)?;
        let Some(offset) = result.offset() else {
            continue;
        };
        let net = result.network().map_err(damaged)?;
        let span = Span::parse(&net.to_string())?;
        let said = match known.entry(offset) {
            Occupied(known) => known.into_mut(),
            Vacant(new) => {
                let record: Option<Value> = result.decode().map_err(damaged)?;
                new.insert(record.as_ref().map(said).unwrap_or_default())
            }
        };
        let entry = Entry {
            asn: said.asn,
            organisation: said.organisation.as_deref(),
            country: said.country,
            label: (role == Role::Pool).then_some(name),
            generic: false,
        };
        draft.add(span, entry)?;
    }
    Ok(())
}

fn said(record: &Value) -> Said {
    let text = |path: &str| record.pointer(path).and_then(Value::as_str);
    let number = [
        "/autonomous_system_number",
        "/asn",
        "/as_number",
        "/traits/autonomous_system_number",
    ]
    .iter()
    .find_map(|path| record.pointer(path));
    let asn = match number {
        Some(Value::Number(number)) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
        Some(Value::String(text)) => system(text).ok().flatten(),
        _ => None,
    };
    let organisation = [
        "/autonomous_system_organization",
        "/as_name",
        "/as_organization",
        "/traits/autonomous_system_organization",
    ]
    .iter()
    .find_map(|path| text(path))
    .or_else(|| asn.and_then(|_| text("/name")));
    let code = [
        "/country/iso_code",
        "/country_code",
        "/country",
        "/registered_country/iso_code",
    ]
    .iter()
    .find_map(|path| text(path).and_then(country));
    Said {
        asn: asn.filter(|asn| *asn != 0),
        organisation: organisation.map(str::to_owned),
        country: code,
    }
}
