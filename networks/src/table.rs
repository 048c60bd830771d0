//! Several databases asked together.

use std::net::IpAddr;
use std::sync::Arc;

use keytrail_model::consumption::Network;

use crate::database::{Database, Found, Role};

/// Databases in ascending precedence. Cheap to clone.
///
/// Of every field (system with its organisation, country, provider's range, pool) the database
/// with the smallest range around the address is believed; of ranges of one size the later database.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Arc<Database>>);

/// The best so far of one field.
struct Best<T>(Option<(u8, T)>);

impl<T> Best<T> {
    fn offer(&mut self, bits: u8, value: Option<T>) {
        if let Some(value) = value
            && self.0.as_ref().is_none_or(|(best, _)| bits <= *best)
        {
            self.0 = Some((bits, value));
        }
    }

    fn take(self) -> Option<T> {
        self.0.map(|(_, value)| value)
    }
}

impl Table {
    /// A table over `databases`.
    #[must_use]
    pub fn new(databases: Vec<Arc<Database>>) -> Self {
        Self(databases)
    }

    /// True when there is nothing to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The network of an address; `None` when no database knows it. An IPv4 address in IPv6
    /// (`::ffff:192.0.2.1`) is looked up as IPv4.
    #[must_use]
    pub fn network(&self, address: IpAddr) -> Option<Network> {
        let address = address.to_canonical();
        let mut system = Best(None);
        let mut country = Best(None);
        let mut provider = Best(None);
        let mut pool = Best(None);
        for database in &self.0 {
            let Some(found) = database.find(address) else {
                continue;
            };
            let Found {
                asn,
                organisation,
                label,
                bits,
                ..
            } = found;
            let named = asn.is_some() || organisation.is_some();
            system.offer(bits, named.then_some((asn, organisation)));
            country.offer(bits, found.country);
            match database.role() {
                Role::World => provider.offer(bits, label),
                Role::Pool => pool.offer(bits, label),
            }
        }
        let (asn, organisation) = system.take().unwrap_or_default();
        let network = Network {
            asn,
            organisation: organisation.map(str::to_owned),
            country: country
                .take()
                .map(|code| code.iter().copied().map(char::from).collect()),
            provider: provider.take().map(str::to_owned),
            pool: pool.take().map(str::to_owned),
        };
        (!network.is_empty()).then_some(network)
    }

    /// Memory that the databases take, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|database| database.bytes()).sum()
    }
}
