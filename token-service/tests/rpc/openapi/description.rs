//! `openapi.json` as a judge: whether a request or an answer is as it is described.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use url::Url;

use super::exchange::{Answer, Parameters};

/// The document, and what of it was met so far.
pub struct Description {
    pub document: Value,
    /// Operation and status of every answer.
    pub seen: BTreeSet<(String, String)>,
    /// Operation and error code of every error.
    pub errors: BTreeSet<(String, String)>,
}

impl Description {
    pub fn load() -> Self {
        Self {
            document: serde_json::from_str(include_str!("../../../openapi.json")).unwrap(),
            seen: BTreeSet::new(),
            errors: BTreeSet::new(),
        }
    }

    /// What a node says, or what it refers to.
    pub fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node.get("$ref").and_then(Value::as_str) {
            None => node,
            Some(target) => self.resolve(
                target
                    .strip_prefix('#')
                    .and_then(|pointer| self.document.pointer(pointer))
                    .unwrap_or_else(|| panic!("{target} leads nowhere")),
            ),
        }
    }

    pub fn operation(&self, path: &str, method: &str) -> &Value {
        let operation = &self.document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not described");
        operation
    }

    /// A validator of a schema that may refer to the document's components.
    pub fn validator(&self, schema: &Value) -> Validator {
        self.validator_of(json!({"allOf": [schema]}), self.document["components"].clone())
    }

    /// The same, which knows of no other members than the described ones.
    pub fn closed_validator(&self, schema: &Value) -> Validator {
        let mut components = self.document["components"].clone();
        // Forms may have other members: those are what this validator rejects.
        for schema in components["schemas"].as_object_mut().unwrap().values_mut() {
            let members = schema.as_object_mut().unwrap();
            members.retain(|name, value| name != "additionalProperties" || value.is_boolean());
        }
        self.validator_of(
            json!({"allOf": [schema], "unevaluatedProperties": false}),
            components,
        )
    }

    fn validator_of(&self, mut schema: Value, components: Value) -> Validator {
        schema["components"] = components;
        let mut options = jsonschema::draft202012::options();
        options = options.should_validate_formats(true);
        options.build(&schema).unwrap()
    }

    /// Asserts that these parameters are a described form of this operation.
    #[track_caller]
    pub fn assert_form(&self, path: &str, form: &Parameters) {
        let body = self.resolve(&self.operation(path, "post")["requestBody"]);
        let schema = &body["content"]["application/x-www-form-urlencoded"]["schema"];
        let object: Map<_, _> = form
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect();
        assert_eq!(object.len(), form.len(), "no parameter is repeated");
        assert_valid(&self.closed_validator(schema), &object.into(), path);
    }

    /// Asserts that these parameters are a described query, with all that is required.
    #[track_caller]
    pub fn assert_query(&self, operation: &Value, query: &Parameters) {
        let described = operation["parameters"].as_array().unwrap();
        for parameter in described {
            let name = parameter["name"].as_str().unwrap();
            match query.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => {
                    let schema = self.validator(&parameter["schema"]);
                    assert_valid(&schema, &Value::from(*value), name);
                }
                None => assert_ne!(parameter["required"], true, "{name} is missing"),
            }
        }
        for (name, _) in query {
            let known = described.iter().any(|parameter| parameter["name"] == *name);
            assert!(known, "{name} is not described");
        }
    }

    /// Asserts that an answer is a described one.
    #[track_caller]
    pub fn assert_answer(&mut self, method: &str, path: &str, answer: &Answer) {
        let operation = self.operation(path, method);
        let id = operation["operationId"].as_str().unwrap().to_owned();
        let context = format!("{id} {}", answer.status);
        let response = self.resolve(&operation["responses"][answer.status.to_string()]);
        assert!(response.is_object(), "{context} is not described: {answer:?}");
        self.assert_headers(response, answer, &context);
        self.assert_body(response, answer, &context);
        if answer.media_type() == Some("application/json")
            && let Some(code) = answer.json()["error"].as_str()
        {
            self.errors.insert((id.clone(), code.to_owned()));
        }
        self.seen.insert((id, answer.status.to_string()));
    }

    fn assert_headers(&self, response: &Value, answer: &Answer, context: &str) {
        let none = Map::new();
        let described = response["headers"].as_object().unwrap_or(&none);
        for (name, header) in described {
            let header = self.resolve(header);
            let Some(text) = answer.header(name) else {
                assert_ne!(header["required"], true, "{context}: {name} is missing");
                continue;
            };
            let value = match header["schema"]["type"].as_str() {
                Some("integer") => text.parse::<u64>().unwrap().into(),
                _ => text.into(),
            };
            assert_valid(
                &self.validator(&header["schema"]),
                &value,
                &format!("{context}: {name}"),
            );
        }
        for name in [
            "access-control-allow-origin",
            "location",
            "retry-after",
            "www-authenticate",
        ] {
            let expected = described.keys().any(|known| known.eq_ignore_ascii_case(name));
            assert!(
                expected || answer.header(name).is_none(),
                "{context}: {name} is not described"
            );
        }
    }

    fn assert_body(&self, response: &Value, answer: &Answer, context: &str) {
        let Some(described) = response["content"].as_object() else {
            assert_eq!(answer.body, "", "{context}: there is no body");
            return;
        };
        let media_type = answer.media_type().unwrap_or_default();
        let content = described.get(media_type);
        let content = content.unwrap_or_else(|| panic!("{context}: {media_type:?} is not described"));
        let body = if media_type == "application/json" {
            answer.json()
        } else {
            answer.body.as_str().into()
        };
        assert_valid(&self.closed_validator(&content["schema"]), &body, context);
        self.assert_claims(&content["schema"], &body, context);
    }

    /// Looks into the JWTs of a body, if it is or has some.
    fn assert_claims(&self, schema: &Value, body: &Value, context: &str) {
        if let Some(claims) = schema.get("x-jwt-claims") {
            let payload = body.as_str().unwrap().split('.').nth(1).unwrap();
            let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
            let payload = serde_json::from_slice(&payload).unwrap();
            assert_valid(&self.closed_validator(claims), &payload, context);
        }
        let Some(members) = self.resolve(schema)["properties"].as_object() else {
            return;
        };
        for (name, schema) in members {
            match &body[name] {
                Value::Null => {}
                Value::Array(items) => {
                    let schema = &self.resolve(schema)["items"];
                    for item in items.iter().filter(|item| item.is_object()) {
                        assert_valid(&self.closed_validator(schema), item, context);
                    }
                }
                value => self.assert_claims(schema, value, context),
            }
        }
    }

    /// Asserts that a URL is an answer to the client at its redirect URI, as the callback describes it.
    /// Returns its parameters.
    #[track_caller]
    pub fn assert_callback(&mut self, url: &str, redirect_uri: &str) -> Vec<(String, String)> {
        assert_eq!(url.split('?').next(), Some(redirect_uri));
        let url = Url::parse(url).unwrap();
        let query: Vec<_> = url.query_pairs().into_owned().collect();
        let authorize = self.operation("/{tenant}/oauth2/authorize", "get");
        let callback = &authorize["callbacks"]["answer"]["{$request.query.redirect_uri}"]["get"];
        let parameters: Vec<_> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.assert_query(callback, &parameters);
        let get = |name| query.iter().find(|(known, _)| known == name);
        match (get("code"), get("error")) {
            (Some(_), None) => {}
            (None, Some((_, code))) => {
                self.errors.insert(("authorize".to_owned(), code.clone()));
            }
            _ => panic!("either code or error: {url}"),
        }
        query
    }
}

#[track_caller]
pub fn assert_valid(validator: &Validator, value: &Value, context: &str) {
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{context}: {errors:?} in {value}");
}
