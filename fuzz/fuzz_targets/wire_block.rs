#![no_main]

use keytrail_proto::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::events(data));
