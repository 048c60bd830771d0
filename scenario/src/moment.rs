//! Moments and stretches of time as people write them: `+90s`, `-5m`, `1h30m`, `3d`.

use jiff::{SignedDuration, Timestamp};

use crate::error::Fault;

/// A stretch of time. Units: `ms`, `s`, `m`, `h`, `d`, `w`; a number alone is seconds.
pub(crate) fn span(text: &str) -> Result<SignedDuration, Fault> {
    let fault = || Fault::Form {
        found: text.to_owned(),
        wanted: "time such as +90s, -5m, 1h30m or 3d",
    };
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total = SignedDuration::ZERO;
    if rest.is_empty() {
        return Err(fault());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: i64 = number.parse().map_err(|_| fault())?;
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let milliseconds: i64 = match unit {
            "ms" => 1,
            "s" | "" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(fault()),
        };
        let part = number.checked_mul(milliseconds).ok_or_else(fault)?;
        total = total
            .checked_add(SignedDuration::from_millis(part))
            .ok_or_else(fault)?;
        rest = tail;
    }
    Ok(if negative { -total } else { total })
}

/// A moment: a stretch of time after `start`, or an RFC 3339 time.
pub(crate) fn moment(text: &str, start: Timestamp) -> Result<Timestamp, Fault> {
    if text.contains('T')
        && let Ok(time) = text.parse()
    {
        return Ok(time);
    }
    later(start, span(text)?)
}

/// `time` moved by `by`.
pub(crate) fn later(time: Timestamp, by: SignedDuration) -> Result<Timestamp, Fault> {
    time.checked_add(by).map_err(|_| Fault::Form {
        found: format!("{time} {by}"),
        wanted: "time between the years -9999 and 9999",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("+90s", Some(90_000)),
            ("90", Some(90_000)),
            ("-5m", Some(-300_000)),
            ("1h30m", Some(5_400_000)),
            ("+6w", Some(3_628_800_000_i64)),
            ("250ms", Some(250)),
            ("", None),
            ("+", None),
            ("5y", None),
            ("m5", None),
            ("9223372036854775807d", None),
        ] {
            let found = span(text).ok().map(|span| span.as_millis());
            assert_eq!(found, milliseconds.map(i128::from), "{text}");
        }
    }
}
