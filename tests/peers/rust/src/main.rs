//! A server made with the official Rust SDK, for `tests/interop`.
//!
//! `interop-rmcp` speaks on stdin and stdout, `interop-rmcp ADDRESS` Streamable HTTP.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ServerHandler, ServiceExt,
    handler::server::{
        router::{prompt::PromptRouter, tool::ToolRouter},
        wrapper::Parameters,
    },
    model::{
        CallToolResult, ContentBlock, ProgressNotificationParam, PromptMessage, Role,
        ServerCapabilities, ServerConfig,
    },
    prompt, prompt_handler, prompt_router,
    service::{RequestContext, RoleServer},
    tool, tool_handler, tool_router,
    transport::{
        stdio,
        streamable_http_server::{StreamableHttpService, session::local::LocalSessionManager},
    },
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Add {
    a: i32,
    b: i32,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Slow {
    seconds: f64,
    steps: u32,
}

#[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
struct Review {
    code: String,
}

#[derive(Clone)]
struct Server {
    tool_router: ToolRouter<Self>,
    prompt_router: PromptRouter<Self>,
}

#[tool_router]
impl Server {
    fn new() -> Self {
        Self {
            tool_router: Self::tool_router(),
            prompt_router: Self::prompt_router(),
        }
    }

    #[tool(description = "Add two integers.")]
    fn add(&self, Parameters(Add { a, b }): Parameters<Add>) -> String {
        (a + b).to_string()
    }

    #[tool(description = "Answer with an error result.")]
    fn fail(&self) -> CallToolResult {
        CallToolResult::error(vec![ContentBlock::text("as asked")])
    }

    #[tool(description = "Take a while, with progress after each step.")]
    async fn slow(
        &self,
        Parameters(Slow { seconds, steps }): Parameters<Slow>,
        context: RequestContext<RoleServer>,
    ) -> String {
        for step in 1..=steps {
            tokio::time::sleep(Duration::from_secs_f64(seconds / f64::from(steps))).await;
            if let Some(token) = context.meta.get_progress_token() {
                let progress = ProgressNotificationParam::new(token, f64::from(step));
                let _ = context.peer.notify_progress(progress).await;
            }
        }
        format!("slept {seconds}")
    }
}

#[prompt_router]
impl Server {
    #[prompt(name = "review", description = "Ask for a review.")]
    async fn review(&self, Parameters(Review { code }): Parameters<Review>) -> Vec<PromptMessage> {
        vec![PromptMessage::new_text(Role::User, format!("review: {code}"))]
    }
}

#[tool_handler(router = self.tool_router)]
#[prompt_handler(router = self.prompt_router)]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_prompts().build())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(address) = std::env::args().nth(1) else {
        Server::new().serve(stdio()).await?.waiting().await?;
        return Ok(());
    };
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(|| Ok(Server::new()), sessions, Default::default());
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
