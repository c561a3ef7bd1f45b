//! The permission table of a service.

use std::collections::HashMap;

use super::{Caller, Role, WorkloadKind};

/// Who may call a method.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Anyone: the message holds a credential, or the answer is public.
    Anyone,
    /// Operators with one of these roles, and workloads of one of these kinds.
    Callers(&'static [Role], &'static [WorkloadKind]),
    /// The same, and anyone else without a bearer token: then the message holds a credential. So a client certificate of
    /// another caller, such as a gateway, counts for nothing.
    CallersOrClients(&'static [Role], &'static [WorkloadKind]),
}

impl Access {
    pub(super) fn admits(self, caller: &Caller) -> bool {
        match self {
            Access::Anyone => true,
            Access::Callers(roles, kinds) | Access::CallersOrClients(roles, kinds) => match caller {
                Caller::Operator { roles: held, .. } => held.iter().any(|role| roles.contains(role)),
                Caller::Workload { kind, .. } => kinds.contains(kind),
            },
        }
    }
}

/// A service's permissions by method path (`/package.Service/Method`).
#[derive(Clone, Debug)]
pub struct Permissions {
    rows: HashMap<&'static str, Access>,
    /// The methods that end with their caller although their names do not say that they only read.
    end_with_caller: &'static [&'static str],
}

impl Permissions {
    /// Creates the table from its rows.
    pub fn new(rows: &[(&'static str, Access)]) -> Self {
        Self {
            rows: rows.iter().copied().collect(),
            end_with_caller: &[],
        }
    }

    /// The same, with methods that end when their caller disconnects or stops waiting, because they complete by themselves what
    /// must be completed.
    #[must_use]
    pub fn ending_with_caller(self, end_with_caller: &'static [&'static str]) -> Self {
        Self {
            end_with_caller,
            ..self
        }
    }

    /// Returns whether a call of the method at `path` continues after its caller disconnects or stops waiting: whether it writes.
    pub fn outlives_caller(&self, path: &str) -> bool {
        const READ: [&str; 10] = [
            "Get",
            "List",
            "Find",
            "Resolve",
            "Verify",
            "Trace",
            "Introspect",
            // Health and reflection.
            "Check",
            "Watch",
            "ServerReflectionInfo",
        ];
        let method = path.rsplit('/').next().unwrap_or_default();
        !READ.iter().any(|verb| method.starts_with(verb)) && !self.end_with_caller.contains(&path)
    }

    /// Returns who may call the method at `path`; `None` for a path that is not served.
    pub fn access(&self, path: &str) -> Option<Access> {
        self.row(path).map(|(_, access)| access)
    }

    /// Returns the path of the method at `path`; `None` for a path that is not served.
    pub(in crate::rpc) fn method(&self, path: &str) -> Option<&'static str> {
        self.row(path).map(|(method, _)| method)
    }

    fn row(&self, path: &str) -> Option<(&'static str, Access)> {
        // Health and reflection are public.
        const OPEN: [&str; 4] = [
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ];
        let row = self
            .rows
            .get_key_value(path)
            .map(|(method, access)| (*method, *access));
        row.or_else(|| Some((*OPEN.iter().find(|open| **open == path)?, Access::Anyone)))
    }
}
