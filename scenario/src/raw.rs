//! Providers' own records, as the sources take them.

use keytrail_model::consumption::Consumption;
use keytrail_sources::framing::{Cut, Records};
use keytrail_sources::{Options, Parser, Rejection, SourceKind};

/// The uses in `bytes`, which `source` delivered: one record, or what wraps several.
pub(crate) fn uses(source: &str, bytes: &[u8]) -> Result<Vec<Consumption>, String> {
    let kind = SourceKind::named(source)
        .filter(|kind| *kind != SourceKind::Mapped)
        .ok_or_else(|| {
            let known: Vec<&str> = SourceKind::ALL
                .into_iter()
                .filter(|kind| *kind != SourceKind::Mapped)
                .map(SourceKind::as_str)
                .collect();
            format!(
                "no source is called `{source}`; known: {}",
                known.join(", ")
            )
        })?;
    let parser = Parser::new(kind, Options::default());
    let mut records = Records::framed(bytes, parser.framing());
    let mut uses = Vec::new();
    loop {
        let parsed = match records.next_record().map_err(|error| error.to_string())? {
            None => return Ok(uses),
            Some(Cut::Record(record)) => parser.parse(record, &mut uses),
            Some(Cut::NotObject) => Err(Rejection::NotObject),
            Some(Cut::TooLarge) => Err(Rejection::TooLarge),
        };
        let parsed = parsed.map_err(|why| why.to_string())?;
        if let Some(skip) = parsed.skipped {
            return Err(format!("it is no use of a credential ({})", skip.as_str()));
        }
    }
}
