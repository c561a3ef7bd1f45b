//! The HTTP face is as `openapi.json` describes it: every endpoint is asked for every kind of answer,
//! and each answer is held to the document.
//!
//! What the answers mean, and who may have them, is tested elsewhere.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::World;

mod authorization;
mod description;
mod discovery;
mod document;
mod exchange;
mod pushed_request;
mod tokens;

use description::Description;
use exchange::{Answer, Parameters, Request, encoded};

const TOKEN: &str = "/{tenant}/oauth2/token";
const PAR: &str = "/{tenant}/oauth2/par";
const INTROSPECT: &str = "/{tenant}/oauth2/introspect";
const REVOKE: &str = "/{tenant}/oauth2/revoke";
const AUTHORIZE: &str = "/{tenant}/oauth2/authorize";

/// Statuses that can't be brought about here: a gateway's, and that of thirty seconds.
const NOT_HERE: [&str; 2] = ["429", "504"];

/// Codes that the redirect URI is told of a failure after client and tenant were read: the database's, which this
/// test keeps.
const FAILURES: [&str; 2] = ["server_error", "temporarily_unavailable"];

/// The HTTP face of a world, each of whose answers is held to the description.
struct Face<'a> {
    world: &'a World,
    description: &'a mut Description,
}

impl Face<'_> {
    /// Sends a request to a described path; its answer is as described.
    async fn ask(&mut self, path: &str, tenant: &str, adjust: impl FnOnce(Request) -> Request) -> Answer {
        let method = match path {
            TOKEN | PAR | INTROSPECT | REVOKE => "POST",
            _ => "GET",
        };
        let request = adjust(Request::new(method, path.replace("{tenant}", tenant)));
        let answer = request.send(self.world.http_address()).await;
        self.description.assert_answer(method, path, &answer);
        answer
    }

    /// Posts a described form, authenticated by HTTP Basic, to the tenant `acme`; it is answered with 200.
    async fn post(&mut self, path: &str, form: &Parameters<'_>) -> Answer {
        let client = self.world.client.clone();
        self.post_by(path, form, |request| request.basic(&client)).await
    }

    /// Posts a described form, authenticated as `by` does it; it is answered with 200, or with 201 if something is created.
    async fn post_by(
        &mut self,
        path: &str,
        form: &Parameters<'_>,
        by: impl FnOnce(Request) -> Request,
    ) -> Answer {
        self.description.assert_form(path, form);
        let answer = self.ask(path, "acme", |request| by(request.form(form))).await;
        let status = if path == PAR { 201 } else { 200 };
        assert_eq!(answer.status, status, "{answer:?}");
        answer
    }
}

#[tokio::test]
async fn every_answer_is_as_described() {
    let world = World::start().await;
    let mut description = Description::load();
    let mut face = Face {
        world: &world,
        description: &mut description,
    };
    tokens::issued(&mut face).await;
    tokens::refused(&mut face).await;
    tokens::introspected(&mut face).await;
    tokens::introspected_by_workloads(&mut face).await;
    tokens::revoked(&mut face).await;
    tokens::requests_without_meaning(&mut face).await;
    tokens::not_our_day(&mut face).await;
    authorization::started(&mut face).await;
    authorization::refused(&mut face).await;
    authorization::not_redirected(&mut face).await;
    pushed_request::pushed(&mut face).await;
    pushed_request::refused(&mut face).await;
    discovery::documents(&mut face).await;
    discovery::other_methods(&mut face).await;
    discovery::without_registry(&mut face).await;
    assert_complete(&description);
}

/// Everything that is described was met: each status of each operation, each error code.
fn assert_complete(description: &Description) {
    for (_, item) in description.document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values().filter(|node| node.is_object()) {
            let id = operation["operationId"].as_str().unwrap();
            for status in operation["responses"].as_object().unwrap().keys() {
                let seen = description.seen.contains(&(id.to_owned(), status.clone()));
                // What anybody may read, our own mistakes keep from nobody here.
                let not_here = NOT_HERE.contains(&&**status) || (status == "500" && id.starts_with("get"));
                assert!(seen || not_here, "{id} never answered {status}");
            }
        }
    }
    let codes = |schema: &str| -> BTreeSet<&str> {
        let schema = &description.document["components"]["schemas"][schema];
        let codes = schema["enum"]
            .as_array()
            .or(schema["properties"]["error"]["enum"].as_array());
        codes.unwrap().iter().map(|code| code.as_str().unwrap()).collect()
    };
    let met = |operation: &str| -> BTreeSet<_> {
        let met = description.errors.iter().filter(|(id, _)| id == operation);
        met.map(|(_, code)| code.as_str()).collect()
    };
    assert!(
        met("issueToken").is_superset(&codes("TokenError")),
        "{:?}",
        met("issueToken")
    );
    let told: BTreeSet<_> = met("authorize").into_iter().chain(FAILURES).collect();
    assert_eq!(told, codes("AuthorizationErrorCode"));
    let all: BTreeSet<_> = description.errors.iter().map(|(_, code)| code.as_str()).collect();
    assert!(all.is_superset(&codes("Error")), "{all:?}");
}

/// The one member of an object that is a list of strings.
fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}
