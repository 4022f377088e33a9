//! The service as its clients see it: the real program, real processes, HTTP.
//!
//! Every test starts a service of its own, so that tests can run side by side, as root and as an
//! ordinary user. The harness checks every answer against `openapi.yaml` and, at the end of every test,
//! that nothing of the service is left on the machine.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod additions;
mod attach;
mod bad_input;
mod batches;
mod bulk;
mod chains;
mod cli;
mod cluster;
mod containment;
mod control;
mod copies;
mod crash;
mod dependencies;
mod disk;
mod events;
mod excerpt;
mod faults;
mod files;
mod follow;
mod hangups;
mod harness;
mod history;
mod ledger;
mod life;
mod list;
mod live_usage;
mod many;
mod mcp;
mod metrics;
mod monitors;
mod notices;
mod operators;
mod output;
mod page;
mod policy;
mod proxies;
mod queue;
mod queues;
mod ready;
mod real_work;
mod refusals;
mod representations;
mod restored;
mod retention;
mod retries;
mod sandbox;
mod schedules;
mod short;
mod shutdown;
mod spawn;
mod startup;
mod stdin;
mod stop;
mod surroundings;
mod teaching;
mod terminal;
mod times;
mod traces;
mod upgrade;
mod warning;
mod webhooks;
