//! Puts together what the kernel had to hand over in pieces.

pub mod exec;
pub mod hello;
