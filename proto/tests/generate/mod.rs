//! The one way in which generated code is made: pure Rust, so that no machine needs `protoc`.

use std::io;
use std::path::Path;

/// The contract's files, relative to `proto/`.
const FILES: [&str; 3] = [
    "keytrail/v1/enrolment.proto",
    "keytrail/v1/fact.proto",
    "keytrail/v1/ingest.proto",
];

/// Generates into `out`, which must exist.
pub(crate) fn into(out: &Path) -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let descriptors = protox::compile(FILES.map(|file| root.join(file)), [&root])
        .map_err(|error| io::Error::other(format!("{error:?}")))?;
    tonic_prost_build::configure()
        .out_dir(out)
        .build_transport(true)
        .bytes(".keytrail.v1.Batch.block_zstd")
        // A join token must not reach a log through Debug.
        .skip_debug([".keytrail.v1.EnrolRequest"])
        .compile_fds(descriptors)
}
