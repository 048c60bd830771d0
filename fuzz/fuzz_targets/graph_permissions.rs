#![no_main]

use keytrail_graph::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::permissions(data));
