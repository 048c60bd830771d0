#![no_main]

use keytrail_spool::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::block(data));
