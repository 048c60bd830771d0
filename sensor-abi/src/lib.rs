//! Records and map values that the BPF programs and the agent share.
//!
//! The crate is `no_std` and has no `unsafe`: it holds only plain `#[repr(C)]` data, one module a
//! probe. The kernel side fills the structs in place in a ring buffer; the agent, with the feature
//! `user`, reads them through zerocopy, which refuses at compile time any struct with implicit
//! padding (so padding is always spelled out) and at run time any slice of the wrong length.
//!
//! Fields that have a closed set of values are carried as plain integers and turned into an enum by
//! `from_raw`: a value that this agent does not know is then an error to be counted, never
//! undefined behaviour.
#![no_std]
#![cfg_attr(
    feature = "user",
    allow(
        unnameable_types,
        reason = "zerocopy's derive makes helper types of its own"
    )
)]

pub mod config;
pub mod file;
pub mod header;
pub mod loss;
pub mod maps;
pub mod net;
pub mod process;

/// Version of records and maps. A ring of another version cannot be read: raise it with every change
/// of a record's or a map value's layout or meaning.
pub const VERSION: u32 = 1;

pub use config::{Config, Offs};
pub use header::{Header, MAX_RECORD_SIZE, RecordKind};

/// Derives what the agent needs to read a record, only with the feature `user`.
#[macro_export]
macro_rules! abi_struct {
    ($($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* } size $size:expr;)*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        #[cfg_attr(
            feature = "user",
            derive(
                zerocopy::FromBytes,
                zerocopy::IntoBytes,
                zerocopy::Immutable,
                zerocopy::KnownLayout
            )
        )]
        pub struct $name { $($body)* }
        const _: () = assert!(size_of::<$name>() == $size, "size of an ABI struct changed");
        const _: () = assert!(align_of::<$name>() <= 8, "ring buffers align to 8 bytes");
    )*};
}
