//! Which processes listen on which TCP ports, by `/proc`. Reading only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The state of a socket that listens, in the tables (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// A process listens on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The port.
    pub port: u16,
    /// At which address; the unspecified one stands for all.
    pub address: IpAddr,
    /// The process; of several that share the socket, the first that was given.
    pub pid: i32,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// In the order of ports.
    pub found: Vec<Port>,
    /// Everything could be looked at.
    pub complete: bool,
}

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    port: u16,
    address: IpAddr,
    inode: u64,
}

/// On which ports these processes listen.
pub fn of(pids: &[i32]) -> Ports {
    look(pids, |_| true)
}

/// The same of one port. Cheap as long as nobody listens there.
pub fn at(pids: &[i32], port: u16) -> Ports {
    look(pids, |listener| listener.port == port)
}

/// Does any process that is in the network of this one listen on a port?
pub fn is_taken(port: u16) -> bool {
    tables("/proc/self").is_ok_and(|all| all.iter().any(|listener| listener.port == port))
}

fn look(pids: &[i32], is_wanted: impl Fn(&Listener) -> bool) -> Ports {
    let mut ports = Ports {
        found: Vec::new(),
        complete: true,
    };
    // Processes may be in networks of their own.
    let mut networks: BTreeMap<Option<String>, Vec<i32>> = BTreeMap::new();
    for pid in pids {
        let network = fs::read_link(format!("/proc/{pid}/ns/net"));
        let network = network.map(|it| it.to_string_lossy().into_owned()).ok();
        networks.entry(network).or_default().push(*pid);
    }
    for pids in networks.values() {
        // The first of them may be gone by now.
        let tables = pids
            .iter()
            .find_map(|pid| tables(&format!("/proc/{pid}")).ok());
        let mut listeners = tables.unwrap_or_default();
        listeners.retain(&is_wanted);
        if listeners.is_empty() {
            continue;
        }
        for pid in pids {
            match sockets(*pid) {
                Ok(inodes) => listeners.retain(|listener| {
                    let is_its = inodes.contains(&listener.inode);
                    if is_its {
                        ports.found.push(Port {
                            port: listener.port,
                            address: listener.address,
                            pid: *pid,
                        });
                    }
                    !is_its
                }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    ports.complete = false;
                }
                // It is gone.
                Err(_) => {}
            }
        }
    }
    ports.found.sort_unstable();
    ports
}

/// The sockets that a process has open.
fn sockets(pid: i32) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        let inode = target.to_str().and_then(|target| {
            let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse::<u64>().ok()
        });
        inodes.extend(inode);
    }
    Ok(inodes)
}

/// What listens in the network of a process, whose directory in `/proc` this is.
fn tables(process: &str) -> io::Result<Vec<Listener>> {
    let mut listeners = parse(&fs::read_to_string(format!("{process}/net/tcp"))?);
    // A kernel may have been built without it.
    if let Ok(table) = fs::read_to_string(format!("{process}/net/tcp6")) {
        listeners.extend(parse(&table));
    }
    Ok(listeners)
}

/// Reads a table of proc_pid_net(5); lines that are none are passed over.
fn parse(table: &str) -> Vec<Listener> {
    let lines = table.lines().skip(1);
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Listener> {
    let mut words = line.split_ascii_whitespace();
    let (address, port) = words.nth(1)?.split_once(':')?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    Some(Listener {
        port: u16::from_str_radix(port, 16).ok()?,
        address: parse_address(address)?,
        inode: words.nth(5)?.parse().ok()?,
    })
}

/// Words of 32 bits, each in the byte order of this machine.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn me() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn a_socket_that_listens_is_its_process_s() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let at = listener.local_addr().unwrap();
            let expected = Port {
                port: at.port(),
                address: at.ip(),
                pid: me(),
            };
            let found = super::at(&[me()], at.port());
            assert!(found.complete && found.found == [expected], "{found:?}");
            assert!(of(&[me()]).found.contains(&expected));
            assert!(is_taken(at.port()));
            // Nobody else has it.
            assert_eq!(super::at(&[1], at.port()).found, []);
            drop(listener);
            assert_eq!(super::at(&[me()], at.port()).found, []);
        }
    }

    #[test]
    fn a_line_that_is_none_is_passed_over() {
        let table = "  sl  local_address rem_address   st\n\
            x\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n\
            1: 0100007F:1F91 00000000:0000 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1\n";
        let found = parse(table);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].port, found[0].inode), (8080, 4242));
        if cfg!(target_endian = "little") {
            assert_eq!(found[0].address, IpAddr::from([127, 0, 0, 1]));
        }
    }
}
