//! The MCP client of `@modelcontextprotocol/sdk`, against a server that `accord::verify` protects: it knows the server's
//! URL, and finds the authority by RFC 9728.

use accord::{
    registry::v1 as reg,
    testing::calls::ok,
    verify::{AccessTokenClaims, Checker, Protect, Tenant},
};
use axum::{
    Extension, Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    node::Programs,
    program::{KeyType, Scene},
};
use crate::harness::partner::SCOPES;

tests!(the_mcp_client_finds_the_authority_by_the_server,);

/// An MCP server with one tool, which says as whom it runs.
async fn mcp(Extension(caller): Extension<AccessTokenClaims>, Json(request): Json<Value>) -> Response {
    let result = match request["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": request["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "cloud-api", "version": "1.0.0"},
        }),
        "tools/list" => json!({"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]}),
        "tools/call" => json!({"content": [{"type": "text", "text": caller.sub}]}),
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

/// Makes an MCP server the Cloud API of the environment's tenant.
async fn serve(scene: &mut Scene) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = &mut scene.world.target;
    target.cloud_api_url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let tenant = Tenant {
        tenant_id: target.tenant_id.clone(),
        issuer: target.tenant_authority_url.clone(),
        audience: target.cloud_api_url.clone(),
    };
    let token_service = format!("http://{}", target.token_grpc);
    let checker = Checker::connect(&token_service, &target.workload_token).unwrap();
    checker.ready().await;
    let request = reg::UpdateTenantRequest {
        tenant: Some(reg::Tenant {
            tenant_id: target.tenant_id.clone(),
            cloud_api_url: target.cloud_api_url.clone(),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["cloud_api_url".into()],
        }),
    };
    ok(scene.world.tenants().update_tenant(request).await);
    let mut protect = Protect::tenant(checker, tenant);
    for scope in SCOPES {
        protect = protect.require_scope(scope);
    }
    let router = Router::new().route("/mcp", post(mcp)).layer(protect);
    tokio::spawn(axum::serve(listener, router).into_future());
}

async fn the_mcp_client_finds_the_authority_by_the_server() {
    let programs = Programs::new();
    let mut scene = Scene::set(KeyType::Ed25519).await;
    serve(&mut scene).await;
    let program = scene.start(programs.command("mcp.js"));
    scene.follow(program, &["code", "call", "refresh"]).await;
    scene.stop().await;
}
