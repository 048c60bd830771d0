use keytrail_abi::{MAX_RECORD_SIZE, maps};
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

use super::*;

fn header(kind: RecordKind) -> Header {
    Header {
        kind: kind as u16,
        len: u16::try_from(kind.size()).unwrap(),
        cpu: 1,
        ts_boot_ns: 7,
        tgid: 42,
        tid: 43,
        start_boottime_ns: 5,
        uid: 1000,
        generation: 0,
        cgroup_id: 9,
    }
}

fn event(bytes: &[u8]) -> KernelEvent {
    match decode(bytes).unwrap() {
        Decoded::Event(event) => event,
        Decoded::Chunk(_) => panic!("a chunk"),
    }
}

#[test]
fn fork_round_trip() {
    let mut r = process::Fork::new_zeroed();
    r.head = header(RecordKind::Fork);
    (r.child_tgid, r.child_start_ns, r.track_flags) = (77, 8, maps::TRACK_AGENT);
    let KernelEvent::Fork {
        head,
        child,
        track_flags,
    } = event(r.as_bytes())
    else {
        panic!()
    };
    assert_eq!(
        (head.process.tgid, head.process.start_ns, head.tid, head.uid),
        (42, 5, 43, 1000)
    );
    assert_eq!(
        (child.tgid, child.start_ns, track_flags),
        (77, 8, maps::TRACK_AGENT)
    );
}

#[test]
fn connection_round_trip() {
    let mut r = net::ConnClose::new_zeroed();
    r.head = header(RecordKind::ConnClose);
    (r.bytes_sent, r.bytes_received, r.bytes_acked) = (1, 2, 3);
    r.remote = net::Addr {
        addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1],
        family: net::AF_INET6,
        port: 443,
        pad: 0,
    };
    r.local = net::Addr {
        addr: [1; 16],
        family: net::AF_INET6,
        port: 9,
        pad: 0,
    };
    let KernelEvent::ConnClose { conn, bytes, .. } = event(r.as_bytes()) else {
        panic!()
    };
    assert_eq!(conn.remote, "10.0.0.1:443".parse().unwrap());
    assert_eq!(
        bytes,
        ConnBytes {
            sent: 1,
            received: 2,
            acked: 3
        }
    );
}

#[test]
fn refuses_what_no_kind_looks_like() {
    let mut r = file::FileAccess::new_zeroed();
    r.head = header(RecordKind::FileAccess);
    (r.access, r.hook) = (file::ACCESS_OPEN, file::HOOK_SYS_EXIT);
    assert!(decode(r.as_bytes()).is_ok());
    let length = Err(DecodeError::Length {
        got: 151,
        want: 152,
    });
    assert_eq!(decode(&r.as_bytes()[..151]), length);
    let refused = |change: fn(&mut file::FileAccess), error| {
        let mut changed = r;
        change(&mut changed);
        assert_eq!(decode(changed.as_bytes()), Err(error));
    };
    refused(|r| r.access = 99, DecodeError::Field("access"));
    refused(|r| r.hook = 0, DecodeError::Field("hook"));
    refused(|r| r.name_len = 65, DecodeError::Field("name_len"));
    refused(|r| r.head.kind = 999, DecodeError::UnknownKind(999));
    refused(
        |r| r.head.len = 3,
        DecodeError::Length {
            got: 152,
            want: 152,
        },
    );
    assert_eq!(decode(&[]), Err(DecodeError::Length { got: 0, want: 48 }));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..MAX_RECORD_SIZE + 8)) {
        let _ = decode(&bytes);
    }

    /// A valid header before random bytes reaches the code behind the length check.
    #[test]
    fn arbitrary_bodies_never_panic(index in 0..RecordKind::ALL.len(), seed: u64) {
        let kind = RecordKind::ALL[index];
        let mut state = seed | 1;
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        }).take(kind.size()).collect();
        bytes[..48].copy_from_slice(header(kind).as_bytes());
        if let Ok(Decoded::Chunk(chunk)) = decode(&bytes) {
            prop_assert!(chunk.data.0.len() <= process::CHUNK_LARGE);
        }
    }
}
