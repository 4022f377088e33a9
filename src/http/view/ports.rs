//! The ports that a job listens on, as a client sees them.

use std::net::IpAddr;

use serde::Serialize;

use manager::{Port, Ports};

/// What the processes of a job listen on.
#[derive(Debug, Serialize)]
pub(crate) struct PortList {
    ports: Vec<PortView>,
    complete: bool,
}

#[derive(Debug, Serialize)]
struct PortView {
    port: u16,
    address: IpAddr,
    protocol: &'static str,
    pid: i32,
}

impl From<Ports> for PortList {
    fn from(ports: Ports) -> Self {
        let views = ports.found.into_iter();
        let views = views.map(|Port { port, address, pid }| PortView {
            port,
            address,
            protocol: "tcp",
            pid,
        });
        Self {
            ports: views.collect(),
            complete: ports.complete,
        }
    }
}
