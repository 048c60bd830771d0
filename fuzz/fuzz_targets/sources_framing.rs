#![no_main]

use keytrail_sources::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::framing(data));
