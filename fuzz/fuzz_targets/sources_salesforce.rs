#![no_main]

use keytrail_sources::{SourceKind, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::record(SourceKind::Salesforce, data));
