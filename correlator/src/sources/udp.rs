//! Syslog over UDP (RFC 5426): a message a datagram.
//!
//! Nobody is told of a datagram that is lost on the way. Those that this host's kernel dropped
//! because they came faster than they were taken are counted, from `/proc/net/udp`.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::fstat;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::frames::Framing;
use super::intake::{BATCH, Intake, Origin, Taken};
use super::stream;

/// Largest datagram.
const DATAGRAM: usize = 64 << 10;
/// Asked of the kernel for what waits; it gives as much as `net.core.rmem_max` allows.
const BUFFER: usize = 8 << 20;
/// The kernel is asked so often what it dropped.
const LOOK: Duration = Duration::from_secs(1);

/// Listens on `address` and takes datagrams in until `stop`.
///
/// # Errors
/// When it cannot listen there.
pub(super) async fn listen(
    address: SocketAddr,
    intake: Intake,
    stop: CancellationToken,
) -> std::io::Result<JoinHandle<()>> {
    let socket = UdpSocket::bind(address).await?;
    // Root may have more than the limit; without either the default stays.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err()
        && let Err(error) = setsockopt(&socket, sockopt::RcvBuf, &BUFFER)
    {
        tracing::debug!(%error, "the receive buffer keeps its size");
    }
    let bound = socket.local_addr()?;
    intake
        .status()
        .update(|status| status.folder = format!("udp:{bound}"));
    intake.status().works();
    Ok(tokio::spawn(serve(socket, intake, stop)))
}

async fn serve(socket: UdpSocket, intake: Intake, stop: CancellationToken) {
    let mut dropped = Dropped::of(&socket);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut buffer = vec![0_u8; DATAGRAM];
    let mut index = 0;
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            _ = look.tick() => {
                dropped.count(&intake);
                continue;
            }
            () = stop.cancelled() => break,
        };
        let (mut uses, mut taken) = (Vec::new(), Taken::default());
        let mut next = received;
        let last = index + BATCH as u64;
        // What waits already is committed together.
        loop {
            match next {
                Ok((length, peer)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    let place = format!("udp:{peer}");
                    let origin = Origin {
                        place: &place,
                        index,
                    };
                    index += 1;
                    let message = stream::body(&intake, Framing::Syslog, datagram);
                    intake.take_line(origin, message, &mut uses, &mut taken);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    intake.tally().connections_failed.one();
                    tracing::warn!(source = intake.name(), %error, "a datagram was not received");
                    break;
                }
            }
            if index >= last || uses.len() >= BATCH {
                break;
            }
            next = socket.try_recv_from(&mut buffer);
        }
        if !stream::commit(&intake, uses, &stop).await {
            break;
        }
    }
    dropped.count(&intake);
}

/// The kernel's count of what it dropped of one socket.
struct Dropped {
    inode: Option<u64>,
    counted: u64,
}

impl Dropped {
    fn of(socket: &UdpSocket) -> Self {
        let inode = fstat(socket).ok().map(|stat| stat.st_ino);
        Self { inode, counted: 0 }
    }

    fn count(&mut self, intake: &Intake) {
        let Some(inode) = self.inode else { return };
        let now = ["/proc/net/udp", "/proc/net/udp6"]
            .iter()
            .filter_map(|table| std::fs::read_to_string(table).ok())
            .find_map(|table| drops(&table, inode));
        if let Some(now) = now {
            intake
                .tally()
                .datagrams_lost
                .add(now.saturating_sub(self.counted));
            self.counted = now.max(self.counted);
        }
    }
}

/// The last column of the socket's line (`proc_pid_net(5)`; `inode` is the tenth, `drops` the last).
fn drops(table: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|columns| columns.get(9) == Some(&inode.as_str()))?
        .last()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 123: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 000000001 17\n\
            \x20 124: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 000000002 0\n";
        for (inode, expected) in [(4711, Some(17)), (4712, Some(0)), (4713, None)] {
            assert_eq!(drops(table, inode), expected, "{inode}");
        }
    }
}
