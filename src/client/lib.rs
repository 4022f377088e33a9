//! The client commands: they speak to a service over HTTP, and know a job's words and where the socket is.

pub mod attach;
mod connection;
pub mod control;
pub mod events;
mod execute;
pub mod failure;
mod find;
mod follow;
mod harmless;
pub mod health;
mod input;
mod interrupt;
mod lines;
pub mod logs;
pub mod queues;
pub mod run;
pub mod show;
pub mod terminal;
pub mod text;
pub mod top;
mod view;
pub mod wait;
