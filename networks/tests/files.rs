//! Files of every format, as their makers write them, and what is wrong with files that are refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it fails by panicking"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use keytrail_networks::{Database, ReadError, Role, Table, read};
use proptest::prelude::*;

fn load(file: &str, role: Role) -> Result<Database, ReadError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(file);
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    read(&bytes[..], role, "stem")
}

fn look(table: &Table, address: &str) -> String {
    let network = table.network(address.parse().unwrap());
    network.map_or_else(String::new, |network| network.to_string())
}

/// File, address, what is said of it.
const FILES: &[(&str, &str, &str)] = &[
    ("asn.csv", "192.0.2.7", "AS64500 Example, \"Hosting\""),
    (
        "asn.csv",
        "::ffff:192.0.2.7",
        "AS64500 Example, \"Hosting\"",
    ),
    ("asn.csv", "203.0.113.255", "AS64503 Öst Net"),
    ("asn.csv", "198.51.100.1", ""),
    ("asn.csv", "2001:db8:1::1", "AS64501 Example Six"),
    ("asn.csv", "2001:db8:8000::", ""),
    ("asn-num.csv", "192.0.2.7", "AS64500 Example Hosting"),
    ("asn-num.csv", "2001:db8::1", "AS64501 Example Six"),
    ("country.csv", "192.0.2.7", "NL"),
    ("country.csv", "192.0.2.200", "DE"),
    ("country.csv", "203.0.113.1", ""),
    ("iptoasn.tsv", "192.0.2.7", "AS64500 EXAMPLE-HOSTING, NL"),
    ("blocks.csv", "192.0.2.7", "AS64500 Example Hosting"),
    ("blocks.csv", "2001:db8::1", "AS64501 Example Six"),
    ("lite.csv", "192.0.2.7", "AS64500 Example Hosting, NL"),
    ("lite.csv", "203.0.113.7", "CI"),
    ("geofeed.csv", "192.0.2.7", "NL"),
    ("geofeed.csv", "192.0.2.200", "US"),
    ("systems.mmdb", "192.0.2.7", "AS64500 Example Hosting"),
    ("systems.mmdb", "2001:db8::1", "AS64501 Example Six"),
    ("systems.mmdb", "192.0.3.7", ""),
    ("countries.mmdb", "192.0.2.7", "NL"),
    ("countries.mmdb", "192.0.2.200", "DE"),
    ("lite.mmdb", "198.51.100.7", "AS64502 Example Lite, FR"),
    ("ip-ranges.json", "192.0.2.7", "AWS EC2 eu-west-1"),
    ("ip-ranges.json", "192.0.2.70", "AWS S3 eu-west-1"),
    ("ip-ranges.json", "2001:db8::1", "AWS AMAZON us-east-1"),
    ("cloud.json", "192.0.2.7", "Google Cloud europe-west4"),
    ("goog.json", "192.0.2.7", "Google"),
    ("ServiceTags_Public.json", "192.0.2.7", "Azure AzureCloud"),
    (
        "ServiceTags_Public.json",
        "192.0.2.70",
        "Azure AzureKeyVault.WestEurope",
    ),
    ("meta.json", "198.51.100.7", "GitHub actions"),
    ("meta.json", "192.0.2.2", "GitHub api"),
    ("cloudflare.json", "192.0.2.2", "Cloudflare"),
    ("fastly.json", "2001:db8::1", "Fastly"),
    ("oracle.json", "192.0.2.2", "Oracle eu-frankfurt-1 OCI OSN"),
    ("atlassian.json", "255.255.255.0", ""),
    (
        "atlassian.json",
        "192.0.2.2",
        "Atlassian jira confluence eu-west-1",
    ),
    ("other.json", "192.0.2.2", "stem agents prefixes_ipv4"),
    ("blocks.txt", "192.0.2.7", "stem"),
    ("blocks.txt", "192.0.2.200", "the one"),
    ("blocks.txt", "198.51.100.5", "a few"),
    ("blocks.txt", "198.51.100.29", "stem"),
    ("blocks.txt", "198.51.100.30", ""),
];

#[test]
fn every_format_says_what_it_should() {
    for (file, address, expected) in FILES {
        let database = load(&format!("files/{file}"), Role::World).unwrap();
        let table = Table::new(vec![Arc::new(database)]);
        assert_eq!(look(&table, address), *expected, "{file} {address}");
    }
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(
            FILES.iter().any(|(file, ..)| *file == name),
            "{name} is not looked at"
        );
    }
}

#[test]
fn the_day_of_the_data_is_the_files_own() {
    for (file, day) in [
        ("ip-ranges.json", "2026-06-01T18:23:11Z"),
        ("cloud.json", "2026-06-01T18:23:11.123Z"),
        ("oracle.json", "2026-06-01T18:23:11.123456Z"),
    ] {
        let dated = load(&format!("files/{file}"), Role::World).unwrap().dated();
        assert_eq!(dated, Some(day.parse().unwrap()), "{file}");
    }
    assert!(
        load("files/systems.mmdb", Role::World)
            .unwrap()
            .dated()
            .is_some()
    );
    assert!(
        load("files/asn.csv", Role::World)
            .unwrap()
            .dated()
            .is_none()
    );
}

/// File, what its refusal says.
const BAD: &[(&str, &str)] = &[
    (
        "reversed.csv",
        "line 2: the range \"192.0.2.9-192.0.2.1\" does not end behind its beginning",
    ),
    (
        "number.csv",
        "line 2: \"x64500\" is no number of an autonomous system",
    ),
    ("cut.csv", "line 2: it has 1 columns where 2 are needed"),
    ("quote.csv", "line 2: a quoted field does not end"),
    ("heading.csv", "line 1: no column is known"),
    ("geoname.csv", "line 1: no column is known"),
    ("name.txt", "line 2: \"vpn.example.net\" is no address"),
    ("latin.txt", "line 1: it is not UTF-8"),
    ("cut.json", "not valid JSON: EOF while parsing"),
    ("none.json", "it holds no range"),
    ("binary.mmdb", "neither text nor a MaxMind database"),
    ("cut.mmdb", "MaxMind database"),
    ("cut-front.mmdb", "it is not UTF-8"),
    ("empty.csv", "it holds no range"),
    ("comments.txt", "it holds no range"),
];

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (file, expected) in BAD {
        let error = load(&format!("bad/{file}"), Role::World)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{file}: {error}");
    }
}

#[test]
fn the_smallest_range_counts_field_by_field_and_pools_stand_apart() {
    let world = ["asn.csv", "country.csv", "ip-ranges.json", "meta.json"];
    let mut databases: Vec<Arc<Database>> = world
        .iter()
        .map(|file| Arc::new(load(&format!("files/{file}"), Role::World).unwrap()))
        .collect();
    databases.push(Arc::new(load("files/blocks.txt", Role::Pool).unwrap()));
    let table = Table::new(databases);
    for (address, expected) in [
        (
            "192.0.2.2",
            "AS64500 Example, \"Hosting\" (GitHub api), NL, own egress pool stem",
        ),
        (
            "192.0.2.70",
            "AS64500 Example, \"Hosting\" (AWS S3 eu-west-1), NL, own egress pool stem",
        ),
        (
            "192.0.2.200",
            "AS64500 Example, \"Hosting\" (AWS EC2 eu-west-1), DE, own egress pool the one",
        ),
        ("198.51.100.5", "GitHub actions, own egress pool a few"),
        ("10.0.0.1", ""),
    ] {
        assert_eq!(look(&table, address), expected, "{address}");
    }
}

proptest! {
    /// Any bytes are read or refused, in every format.
    #[test]
    fn nothing_panics(
        front in prop::sample::select(vec!["", "{", "[", "\0", "192.0.2.0/24 ", "192.0.2.0,192.0.2.9,", "start,end,asn\n"]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let all: Vec<u8> = front.bytes().chain(bytes).collect();
        let _ = read(&all[..], Role::Pool, "x");
    }

    /// A damaged database is read or refused.
    #[test]
    fn no_damaged_database_panics(at in 0_usize..4_000, with in any::<u8>(), cut in 0_usize..4_000) {
        let mut bytes = include_bytes!("files/systems.mmdb").to_vec();
        let length = bytes.len();
        bytes[at % length] = with;
        let keep = if cut < length { length } else { cut % length };
        let _ = read(&bytes[..keep], Role::World, "x");
    }
}
