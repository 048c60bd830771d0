#![no_main]

use libfuzzer_sys::fuzz_target;
use sensor_agent::fuzz;

fuzz_target!(|data: &[u8]| fuzz::jwt(data));
