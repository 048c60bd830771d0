#![no_main]

use correlator::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::scim_filter(data));
