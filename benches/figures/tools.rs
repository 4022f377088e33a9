//! F16: what a tool of agents costs beside the request that does the same.

use std::io;

use crate::client;
use crate::report::Row;
use crate::service::{Scratch, Service};
use crate::stats::{float64, median, ratios, spread};
use crate::{Plan, note};

/// A call of `run_command`, as a client without a session sends it.
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_command","arguments":{"command":["/bin/true"]},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;

/// How many at a time.
const CONNECTIONS: usize = 16;

/// F16.
pub(crate) fn rate(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let (mut calls, mut requests) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        note(&format!("F16 round {}", round + 1));
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch.state(), &[])?;
        let headers = "Accept: application/json, text/event-stream\r\nMcp-Protocol-Version: 2026-07-28\r\n\
            Mcp-Method: tools/call\r\nMcp-Name: run_command\r\n";
        let call = service.post_with("/mcp", headers, CALL);
        for (request, rates) in [
            (service.short_job("?wait=10"), &mut requests),
            (call, &mut calls),
        ] {
            let load = client::drive_for(service.address, CONNECTIONS, plan.load, &request)?;
            if load.refused > 0 {
                let refused = format!("{} were refused", load.refused);
                return Err(io::Error::other(refused));
            }
            rates.push(float64(load.done) / plan.load.as_secs_f64());
            service.wait_for_live(0)?;
        }
    }
    let ratio = ratios(&calls, &requests);
    rows.push(Row::new(
        "F16",
        "`run_command` of `/bin/true` by `POST /mcp`, 16 connections",
        format!(
            "{} calls/s = {} × `POST /jobs?wait`, {} jobs/s",
            spread(&calls, 0),
            spread(&ratio, 2),
            spread(&requests, 0)
        ),
        "≥ 0.5 × `POST /jobs?wait`",
        Some(median(&ratio) >= 0.5),
    ));
    Ok(())
}
