//! The tools of agents at both doors, as their protocol has them. `make test-mcp` tries them with client libraries.

mod http;
mod stdio;

use serde_json::{Value, json};

/// What a request of version 2026-07-28 says about its client.
pub(crate) fn meta(tasks: bool) -> Value {
    let extensions = if tasks {
        json!({"io.modelcontextprotocol/tasks": {}})
    } else {
        json!({})
    };
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": extensions},
    })
}

/// A request with what version 2026-07-28 wants in it.
pub(crate) fn request(method: &str, params: Value, tasks: bool) -> Value {
    let mut params = params;
    params["_meta"] = meta(tasks);
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

/// A caller's place in a trace.
pub(crate) const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The request with more in its `_meta`.
pub(crate) fn within(mut request: Value, more: Value) -> Value {
    let meta = request["params"]["_meta"].as_object_mut().unwrap();
    meta.extend(more.as_object().unwrap().clone());
    request
}

/// The first line of a tool's text.
pub(crate) fn verdict(result: &Value) -> &str {
    let text = result["content"][0]["text"].as_str();
    text.unwrap().lines().next().unwrap()
}
