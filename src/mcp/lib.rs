//! The Model Context Protocol: what agents can do with a service, as tools and tasks.
//!
//! One implementation for both doors: `procession mcp` and `POST /mcp` differ in the [`Door`] by which a tool
//! asks the HTTP API, which judges every call by itself. Nothing is kept here: a task is a job, by its id.

mod arguments;
mod calls;
mod door;
mod files;
mod refusal;
mod search;
mod serve;
mod tasks;
mod text;
mod tools;

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, GetTaskParams, GetTaskResult,
    Implementation, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
    UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

pub use door::{Answer, Ask, Asking, Body, Door, Verb, length_of};
use refusal::Refusal;
pub use serve::{Served, answer, converse};

/// What differs between two doors except for how they ask.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only tools that change nothing.
    pub read_only: bool,
    /// How long a tool waits that is not told, in seconds; at most [`WAIT_MAX`].
    pub wait_seconds: u64,
    /// How much output a tool shows that is not told, in bytes; at most [`OUTPUT_MAX`].
    pub output_bytes: u64,
}

/// The longest that a tool waits: clients give up on a call after 60 seconds.
pub const WAIT_MAX: u64 = 50;

/// The most output in one answer.
pub const OUTPUT_MAX: u64 = 131_072;

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            wait_seconds: 25,
            output_bytes: 16_384,
        }
    }
}

/// How long a client may keep the list of tools, in milliseconds.
const LIST_TTL_MS: u64 = 3_600_000;

/// What a model is told of all tools together.
const INSTRUCTIONS: &str = "Runs commands as jobs on the machine of the service. A job outlives the call, the \
    client and the service: when a call ends before its job, go on with wait_for_job or read_output. stop_job ends \
    every process of a job and says when none is left. With files or workspace a job has a directory of its own, for \
    list_files, read_file and write_file.";

/// The tools of one door.
#[derive(Clone, Debug)]
pub struct Tools {
    door: Arc<dyn Door>,
    options: Options,
    version: &'static str,
    /// Jobs that were started by this, in order.
    started: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Tools {
    /// The tools that ask by this door.
    pub fn new(door: Arc<dyn Door>, options: Options, version: &'static str) -> Self {
        Self {
            door,
            options,
            version,
            started: Arc::default(),
        }
    }

    /// The ids of the jobs that were started by these tools so far.
    #[must_use]
    pub fn started(&self) -> Vec<String> {
        let started = self.started.lock();
        started.map_or_else(|poisoned| poisoned.into_inner().clone(), |ids| ids.clone())
    }

    /// The same tools for one call, which may name its trace.
    fn within(&self, context: &RequestContext<RoleServer>) -> Self {
        let door = door::traced(self.door.clone(), &context.meta);
        Self {
            door,
            ..self.clone()
        }
    }

    fn note_started(&self, id: &str) {
        if let Ok(mut started) = self.started.lock() {
            started.push(id.to_owned());
        }
    }
}

/// The end of a job whose client has ended.
#[must_use]
pub fn stop_at_exit(id: &str) -> Ask {
    Ask::new(Verb::Delete, format!("/jobs/{id}"))
        .with("reason", "the client ended")
        .with("wait", 20)
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_tasks();
        let server = Implementation::new("procession", self.version);
        ServerConfig::new(capabilities.build())
            .with_server_info(server)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let templates = self.templates().await.map_err(Refusal::into_error)?;
        let tools = tools::list(&self.options, templates.as_ref());
        Ok(ListToolsResult::with_all_items(tools).with_ttl_ms(LIST_TTL_MS))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tools = self.within(&context);
        Box::pin(tools.call(request, &context)).await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        tasks::get(self, &request.task_id).await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        // A job asks its client nothing.
        tasks::get(self, &request.task_id).await.map(drop)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::cancel(&self.within(&context), &request.task_id).await
    }
}
