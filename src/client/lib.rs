//! The client commands: they talk to a service over HTTP, and know the fields of a job and where the socket is.

pub mod attach;
mod connection;
pub mod control;
pub mod events;
mod execute;
pub mod failure;
mod follow;
pub mod health;
mod input;
pub mod logs;
mod lookup;
mod ndjson;
pub mod open;
pub mod queues;
pub mod run;
mod sanitize;
pub mod show;
mod signals;
mod table;
pub mod terminal;
mod text;
pub mod top;
mod values;
mod view;
pub mod wait;
