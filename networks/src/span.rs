//! Ranges as files write them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Problem, excerpt};

/// An inclusive range of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    V4(u32, u32),
    V6(u128, u128),
}

/// An IPv4 address within IPv6 (`::ffff:192.0.2.1`) is the IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

impl Span {
    /// From one address to another, both included.
    pub(crate) fn between(first: IpAddr, last: IpAddr) -> Result<Self, Problem> {
        match (plain(first), plain(last)) {
            (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => Ok(Self::V4(a.to_bits(), b.to_bits())),
            (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => Ok(Self::V6(a.to_bits(), b.to_bits())),
            _ => Err(Problem::Reversed(format!("{first}-{last}"))),
        }
    }

    /// `192.0.2.0/24`, `192.0.2.7`, `192.0.2.1-192.0.2.9`. Bits behind a prefix are ignored.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || Problem::NoRange(excerpt(text));
        let text = text.trim();
        if let Ok(net) = text.parse::<IpNet>() {
            return Self::between(net.network(), net.broadcast());
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Self::between(address, address);
        }
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let first = first.trim().parse().map_err(|_| wrong())?;
        let last = last.trim().parse().map_err(|_| wrong())?;
        Self::between(first, last)
    }
}

/// An address, or its number: up to 2^32 - 1 one of IPv4, above one of IPv6 (ip-location-db's
/// `-num` files).
pub(crate) fn address(text: &str) -> Result<IpAddr, Problem> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: u128 = text.parse().map_err(|_| Problem::NoRange(excerpt(text)))?;
        return Ok(match u32::try_from(number) {
            Ok(v4) => IpAddr::from(v4.to_be_bytes()),
            Err(_) => IpAddr::from(number.to_be_bytes()),
        });
    }
    text.parse().map_err(|_| Problem::NoRange(excerpt(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_range() {
        let v4 = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().to_bits();
        for (text, first, last) in [
            ("192.0.2.0/24", "192.0.2.0", "192.0.2.255"),
            (" 192.0.2.9/24 ", "192.0.2.0", "192.0.2.255"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("192.0.2.1 - 192.0.2.9", "192.0.2.1", "192.0.2.9"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
        ] {
            assert_eq!(
                Span::parse(text),
                Ok(Span::V4(v4(first), v4(last))),
                "{text}"
            );
        }
        assert_eq!(Span::parse("::/0"), Ok(Span::V6(0, u128::MAX)));
        for text in [
            "",
            "192.0.2",
            "192.0.2.0/33",
            "192.0.2.9-192.0.2.1",
            "1.1.1.1-::1",
            "x-y",
        ] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_as_numbers() {
        for (text, expected) in [
            ("16777216", "1.0.0.0"),
            ("42540488161975842760550356425300246528", "2001::"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(address(text), Ok(expected.parse().unwrap()), "{text}");
        }
        assert!(address("340282366920938463463374607431768211456").is_err());
        assert!(address("-1").is_err());
    }
}
