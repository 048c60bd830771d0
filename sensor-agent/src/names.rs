//! Names that processes ask resolvers for: which address a name led to, and how much is asked.
//!
//! The questions themselves can carry data out (DNS tunnelling), so they are added up by unit and
//! domain; answers give connections a name where the TLS handshake shows none. Format: RFC 1035.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use jiff::Timestamp;
use keytrail_model::fact::NameLookups;
use keytrail_model::ids::ProcessKey;
use simple_dns::rdata::RData;
use simple_dns::{Packet, PacketFlag};

use crate::hello::host_name;

/// Most (unit, domain) pairs added up at once; further ones go out at once.
const MAX_DOMAINS: usize = 4_096;
/// Most different names counted for one pair between two looks.
const MAX_NAMES: usize = 4_096;
/// Most addresses remembered; the oldest answer is forgotten for a newer one.
const MAX_ADDRESSES: usize = 16_384;
/// Most questions and answers read of one message.
const MAX_RECORDS: usize = 64;

/// What a DNS message says, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Names asked for: lower case, without a final dot.
    pub names: Vec<String>,
    /// Addresses in the answer.
    pub addresses: Vec<IpAddr>,
    /// It is an answer.
    pub answer: bool,
}

/// Reads a message. `None` when it is not one.
#[must_use]
pub fn read(data: &[u8]) -> Option<Message> {
    let packet = Packet::parse(data).ok()?;
    let names = packet
        .questions
        .iter()
        .take(MAX_RECORDS)
        .filter_map(|question| host_name(question.qname.to_string().as_bytes()));
    let addresses = packet.answers.iter().take(MAX_RECORDS);
    let addresses = addresses.filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(a) => Some(IpAddr::V6(a.address.into())),
        _ => None,
    });
    Some(Message {
        names: names.collect(),
        addresses: addresses.collect(),
        answer: packet.has_flags(PacketFlag::RESPONSE),
    })
}

/// The last two labels of a name: what one owner usually has.
#[must_use]
pub fn domain(name: &str) -> &str {
    let second_last_dot = name.rmatch_indices('.').nth(1);
    second_last_dot.map_or(name, |(at, _)| name.get(at + 1..).unwrap_or(name))
}

/// Questions under one domain since the last look.
#[derive(Debug)]
struct Asked {
    process: ProcessKey,
    since: Timestamp,
    questions: u64,
    bytes: u64,
    /// Hashes of the names.
    names: BTreeSet<u64>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Names {
    asked: BTreeMap<(ProcessKey, String), Asked>,
    addresses: BTreeMap<(ProcessKey, IpAddr), String>,
    order: VecDeque<(ProcessKey, IpAddr)>,
    unreadable: u64,
}

impl Names {
    /// Takes a message of a unit's process. Returns sums that had to make room.
    pub fn push(
        &mut self,
        unit: ProcessKey,
        process: ProcessKey,
        time: Timestamp,
        data: &[u8],
    ) -> Vec<NameLookups> {
        let Some(message) = read(data) else {
            self.unreadable += 1;
            return Vec::new();
        };
        if message.answer {
            if let Some(name) = message.names.first() {
                for address in message.addresses {
                    self.learn(unit, address, name);
                }
            }
            return Vec::new();
        }
        let mut out = Vec::new();
        for name in message.names {
            let key = (unit, domain(&name).to_owned());
            if self.asked.len() >= MAX_DOMAINS && !self.asked.contains_key(&key) {
                out.append(&mut self.take());
            }
            let asked = self.asked.entry(key).or_insert_with(|| Asked {
                process,
                since: time,
                questions: 0,
                bytes: 0,
                names: BTreeSet::new(),
            });
            asked.questions += 1;
            asked.bytes += name.len() as u64;
            if asked.names.len() < MAX_NAMES {
                let mut hasher = DefaultHasher::new();
                name.hash(&mut hasher);
                asked.names.insert(hasher.finish());
            }
        }
        out
    }

    /// What was asked since the last call.
    pub fn take(&mut self) -> Vec<NameLookups> {
        std::mem::take(&mut self.asked)
            .into_iter()
            .map(|((unit, domain), asked)| NameLookups {
                process: asked.process,
                unit,
                domain,
                since: asked.since,
                questions: asked.questions,
                names: asked.names.len() as u64,
                bytes: asked.bytes,
            })
            .collect()
    }

    /// The name that led this unit to an address, if one did.
    #[must_use]
    pub fn of(&self, unit: ProcessKey, address: IpAddr) -> Option<&str> {
        self.addresses.get(&(unit, address)).map(String::as_str)
    }

    /// Messages that could not be read: cut, or not DNS.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn learn(&mut self, unit: ProcessKey, address: IpAddr, name: &str) {
        let key = (unit, address);
        if self.addresses.insert(key, name.to_owned()).is_some() {
            return;
        }
        self.order.push_back(key);
        while self.order.len() > MAX_ADDRESSES {
            if let Some(oldest) = self.order.pop_front() {
                self.addresses.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::{CLASS, Name, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

    use super::*;

    const UNIT: ProcessKey = ProcessKey {
        pid: 1,
        start_ns: 2,
    };

    fn message(name: &str, addresses: &[&str]) -> Vec<u8> {
        let mut packet = if addresses.is_empty() {
            Packet::new_query(7)
        } else {
            Packet::new_reply(7)
        };
        let name = Name::new_unchecked(name);
        let (kind, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
        packet
            .questions
            .push(Question::new(name.clone(), kind, class, false));
        for address in addresses {
            let data = match address.parse().unwrap() {
                IpAddr::V4(v4) => RData::A(v4.into()),
                IpAddr::V6(v6) => RData::AAAA(v6.into()),
            };
            let record = ResourceRecord::new(name.clone(), CLASS::IN, 60, data);
            packet.answers.push(record);
        }
        packet.build_bytes_vec().unwrap()
    }

    fn push(names: &mut Names, data: &[u8]) -> Vec<NameLookups> {
        names.push(UNIT, UNIT, Timestamp::UNIX_EPOCH, data)
    }

    #[test]
    fn an_answer_names_its_addresses() {
        let mut names = Names::default();
        push(
            &mut names,
            &message("API.GitHub.com", &["192.0.2.7", "2001:db8::7"]),
        );
        for address in ["192.0.2.7", "2001:db8::7"] {
            assert_eq!(
                names.of(UNIT, address.parse().unwrap()),
                Some("api.github.com")
            );
        }
        assert_eq!(names.of(UNIT, "192.0.2.8".parse().unwrap()), None);
    }

    #[test]
    fn questions_are_added_up_by_domain() {
        let mut names = Names::default();
        for name in [
            "a1.evil.example",
            "a2.evil.example",
            "a2.evil.example",
            "x.org",
        ] {
            assert!(push(&mut names, &message(name, &[])).is_empty());
        }
        let shown: Vec<_> = names
            .take()
            .into_iter()
            .map(|l| (l.domain, l.questions, l.names, l.bytes))
            .collect();
        assert_eq!(
            shown,
            [
                ("evil.example".to_owned(), 3, 2, 45),
                ("x.org".to_owned(), 1, 1, 5)
            ]
        );
        assert!(names.take().is_empty());
    }

    #[test]
    fn everything_is_bounded() {
        let mut names = Names::default();
        let mut flushed = 0;
        for n in 0..MAX_DOMAINS + 10 {
            flushed += push(&mut names, &message(&format!("x.d{n}.example{n}"), &[])).len();
            push(
                &mut names,
                &message("x.org", &[&format!("10.{}.{}.1", n / 250, n % 250)]),
            );
        }
        assert_eq!(flushed, MAX_DOMAINS);
        assert!(names.addresses.len() <= MAX_ADDRESSES);
        assert_eq!(names.addresses.len(), names.order.len());
    }

    #[test]
    fn domains() {
        for (name, want) in [
            ("a.b.example.com", "example.com"),
            ("example.com", "example.com"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(domain(name), want);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            push(&mut Names::default(), &data);
        }

        #[test]
        fn any_damage_is_survived(at in 0usize..60, byte: u8, cut in 0usize..80) {
            let mut data = message("a.long.name.example", &["192.0.2.7"]);
            if let Some(place) = data.get_mut(at) {
                *place = byte;
            }
            data.truncate(cut);
            push(&mut Names::default(), &data);
        }
    }
}
