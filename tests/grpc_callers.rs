//! What callers send over gRPC that no well-behaved caller sends, and what libraries can't receive.

pub mod libraries;

use accord::registry::v1::{
    CreateWorkloadRequest, WorkloadKind, operator_service_client::OperatorServiceClient,
};
use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::harness::partner::World;

/// The methods of the contract with their full paths.
pub fn methods() -> Vec<(String, MethodDescriptor)> {
    let pool = DescriptorPool::decode(accord::FILE_DESCRIPTOR_SET).unwrap();
    let services = pool
        .services()
        .filter(|service| service.full_name().starts_with("accord."));
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            (path, method)
        })
        .collect()
}

/// The tokens by which a method admits its caller: an operator with every role, or the workload of the right kind.
pub struct Tokens {
    operator: String,
    internal_service: String,
    token_service: String,
}

impl Tokens {
    pub async fn new(world: &World) -> Self {
        let request = CreateWorkloadRequest {
            name: "a second token-service".into(),
            kind: WorkloadKind::TokenService.into(),
            ..Default::default()
        };
        let mut operators = OperatorServiceClient::new(world.operator.clone());
        let created = operators.create_workload(request).await.unwrap();
        Self {
            operator: world.target.operator_token.clone(),
            internal_service: world.target.workload_token.clone(),
            token_service: created.into_inner().workload_token,
        }
    }

    pub fn of(&self, path: &str) -> &str {
        match path {
            _ if path.contains("DirectoryService") => &self.token_service,
            _ if path.contains("SetupService") => &self.internal_service,
            "/accord.token.v1.TokenService/IntrospectToken"
            | "/accord.token.v1.TokenService/ListRevocations" => &self.internal_service,
            _ => &self.operator,
        }
    }
}
