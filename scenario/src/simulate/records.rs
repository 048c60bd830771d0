//! How cloud records reach the correlator, and those of machines without a sensor.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use keytrail_join::Input;
use keytrail_model::consumption::{Caller, Consumption, Network};
use keytrail_model::ids::RecordId;

use super::life::made_up;
use super::{Air, after};
use crate::random::Random;
use crate::world::inode_of;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Sends a record on its way.
pub(super) fn deliver(random: &mut Random, usage: Consumption, air: &mut Air) {
    // A provider delivers a file for some minutes of a service in a region at once, its records in
    // any order; a few records come on their own, hours later.
    let minutes = usage.time.as_second().div_euclid(300);
    let file = format!("{} {:?} {minutes}", usage.service, usage.region);
    let milliseconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let time = milliseconds(usage.time.as_millisecond());
    let minutes_end = milliseconds((minutes + 1) * 300_000);
    let delay = match random.below(100) {
        0..2 => HOUR + random.draw(23 * HOUR),
        // At once: the correlator takes a file in one transaction.
        _ => (minutes_end - time) + 2 * MINUTE + inode_of(&file) % (10 * MINUTE),
    };
    let arrives = after(usage.time, delay);
    if random.below(100) == 0 {
        let again = after(arrives, random.draw(HOUR));
        air.send(again, Input::Use(usage.clone()));
    }
    air.send(arrives, Input::Use(usage));
}

/// CI jobs on hosted runners: no sensor there, role sessions from a cloud's addresses.
pub(super) fn hosted_runners(random: &mut Random, now: Timestamp, endpoints: u32, air: &mut Air) {
    for _ in 0..endpoints.div_ceil(50) {
        let number = random.draw(1 << 40);
        let session = made_up("aws-session-key", number, 0, 0);
        let octet = |n: u64| u8::try_from(n % 256).unwrap_or(0);
        let address = Ipv4Addr::new(20, octet(number), octet(number >> 8), octet(number >> 16));
        for call in 0..3 {
            let time = after(now, 1_000 * (number % 3_000 + call));
            let usage = Consumption {
                caller: Caller::Address {
                    address: IpAddr::V4(address),
                },
                service: "s3.amazonaws.com".to_owned(),
                region: Some("us-east-1".to_owned()),
                action: "PutObject".to_owned(),
                principal: Some("arn:aws:sts::123456789012:assumed-role/deploy/ci".to_owned()),
                network: Some(Network {
                    asn: Some(8_075),
                    organisation: Some("Microsoft".to_owned()),
                    country: Some("US".to_owned()),
                    ..Network::default()
                }),
                ..Consumption::new(
                    RecordId(format!("simulated:runner-{number}-{call}")),
                    session.clone(),
                    time,
                )
            };
            deliver(random, usage, air);
        }
    }
}
