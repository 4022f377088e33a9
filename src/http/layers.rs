//! What every request passes on its way to a handler, and every answer on its way back.

pub(super) mod audit;
pub(super) mod auth;
pub(super) mod compression;
pub(super) mod guards;
pub(super) mod log;
pub(super) mod proxies;
pub(super) mod request_id;
pub(super) mod rest;
