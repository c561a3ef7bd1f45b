//! Checks `openapi.json` by itself: it is OpenAPI 3.1, complete, and without unused parts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::description::{Description, assert_valid};

/// What objects may have, by kind (OpenAPI 3.1.1 §4.8), as far as this document uses them.
const OPENAPI: &str = "openapi info externalDocs servers tags paths components";
const INFO: &str = "title version summary description license";
const PATH_ITEM: &str = "parameters get post";
const OPERATION: &str = "operationId tags summary description externalDocs security parameters requestBody \
                         responses callbacks";
const PARAMETER: &str = "name in required description schema example";
const REQUEST_BODY: &str = "required content";
const MEDIA_TYPE: &str = "schema example examples";
const RESPONSE: &str = "description headers content";
const HEADER: &str = "required description schema";

#[track_caller]
fn assert_members(object: &Value, known: &str, at: &str) {
    for name in object.as_object().unwrap().keys() {
        assert!(known.split(' ').any(|k| k == name), "{name} is no member of {at}");
    }
}

/// Every operation, with the path item that it is in and where that is.
fn operations(description: &Description) -> Vec<(String, &Value, &Value)> {
    let paths = description.document["paths"].as_object().unwrap();
    let callback = &paths["/{tenant}/oauth2/authorize"]["get"]["callbacks"]["answer"];
    let callbacks = callback.as_object().unwrap().iter();
    let mut found = Vec::new();
    for (path, item) in paths.iter().chain(callbacks) {
        assert_members(item, PATH_ITEM, path);
        for (method, operation) in item.as_object().unwrap() {
            if method != "parameters" {
                found.push((format!("{method} {path}"), item, operation));
            }
        }
    }
    found
}

/// Calls back with every object below, and its pointer.
fn walk(node: &Value, pointer: &str, seen: &mut impl FnMut(&Value, &str)) {
    match node {
        Value::Object(members) => {
            seen(node, pointer);
            for (name, member) in members {
                walk(
                    member,
                    &format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")),
                    seen,
                );
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{pointer}/{index}"), seen);
            }
        }
        _ => {}
    }
}

#[test]
fn the_document_conforms_to_openapi() {
    let description = Description::load();
    let document = &description.document;
    assert_members(document, OPENAPI, "the document");
    assert_members(&document["info"], INFO, "info");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert!(document["servers"][0]["variables"]["base"]["default"].is_string());
    let tags: Vec<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let mut ids = BTreeSet::new();
    for (at, item, operation) in operations(&description) {
        assert_members(operation, OPERATION, &at);
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap()),
            "{at}: its id is unique"
        );
        assert!(
            operation["summary"].is_string() && operation["description"].is_string(),
            "{at}"
        );
        assert!(tags.contains(&&operation["tags"][0]), "{at}: its tag is known");
        for requirement in operation["security"].as_array().unwrap() {
            for scheme in requirement.as_object().unwrap().keys() {
                assert!(schemes.contains_key(scheme), "{at}: {scheme}");
            }
        }
        let lists = [&item["parameters"], &operation["parameters"]];
        let parameters: Vec<_> = lists
            .iter()
            .filter_map(|list| list.as_array())
            .flatten()
            .map(|parameter| description.resolve(parameter))
            .collect();
        let mut names = BTreeSet::new();
        for parameter in &parameters {
            assert_members(parameter, PARAMETER, &at);
            assert!(
                names.insert(parameter["name"].as_str().unwrap()),
                "{at}: {parameter}"
            );
        }
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let in_path: Vec<_> = in_path
            .map(|p| (p["name"].as_str().unwrap(), &p["required"]))
            .collect();
        let expected = if at.contains("{tenant}") {
            vec![("tenant", &Value::Bool(true))]
        } else {
            vec![]
        };
        assert_eq!(in_path, expected, "{at}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = description.resolve(response);
            assert_members(response, RESPONSE, &format!("{at} {status}"));
            assert!(response["description"].is_string(), "{at} {status}");
            for header in response["headers"]
                .as_object()
                .into_iter()
                .flat_map(|headers| headers.values())
            {
                assert_members(description.resolve(header), HEADER, &format!("{at} {status}"));
            }
        }
        if let Some(body) = operation.get("requestBody") {
            assert_members(description.resolve(body), REQUEST_BODY, &at);
        }
    }
}

#[test]
fn references_lead_somewhere_and_nothing_is_left_over() {
    let description = Description::load();
    let mut referred = BTreeSet::new();
    walk(&description.document, "", &mut |node, _| {
        description.resolve(node);
        let targets = node.get("$ref").into_iter();
        let mapped = node
            .get("mapping")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        for target in targets.chain(mapped.map(|(_, target)| target)) {
            referred.insert(target.as_str().unwrap().trim_start_matches('#').to_owned());
        }
    });
    let components = description.document["components"].as_object().unwrap();
    for (kind, members) in components.iter().filter(|(kind, _)| *kind != "securitySchemes") {
        for name in members.as_object().unwrap().keys() {
            assert!(
                referred.contains(&format!("/components/{kind}/{name}")),
                "{kind}/{name} is not used"
            );
        }
    }
}

#[test]
fn schemas_are_schemas_and_examples_are_examples() {
    let description = Description::load();
    let (mut schemas, mut examples) = (0, 0);
    let mut look = |schema: &Value, values: Vec<&Value>, at: &str| {
        schemas += 1;
        jsonschema::draft202012::meta::validate(schema).unwrap_or_else(|error| panic!("{at}: {error}"));
        let validator = description.closed_validator(schema);
        for value in values {
            examples += 1;
            assert_valid(&validator, value, at);
        }
    };
    for (name, schema) in description.document["components"]["schemas"].as_object().unwrap() {
        let values = schema["examples"].as_array().into_iter().flatten().collect();
        look(schema, values, name);
    }
    walk(&description.document, "", &mut |node, at| {
        let is_holder = !at.starts_with("/components/schemas/") && node.get("schema").is_some();
        if !is_holder {
            return;
        }
        if !at.contains("/headers/") && node.get("in").is_none() {
            assert_members(node, MEDIA_TYPE, at);
        }
        let named = node["examples"].as_object().into_iter().flatten();
        let values = node
            .get("example")
            .into_iter()
            .chain(named.map(|(_, named)| &named["value"]));
        look(&node["schema"], values.collect(), at);
    });
    assert!(
        schemas > 60 && examples > 10,
        "{schemas} schemas, {examples} examples"
    );
}

#[test]
fn a_parameter_of_a_form_is_one_text() {
    let description = Description::load();
    let mut forms = 0;
    for (at, _, operation) in operations(&description) {
        let body = description.resolve(&operation["requestBody"]);
        let Some(form) = body["content"].get("application/x-www-form-urlencoded") else {
            continue;
        };
        forms += 1;
        let validator = description.validator(&form["schema"]);
        let with = |extra: Value| {
            let challenge = "c".repeat(43);
            let form = json!({
                "grant_type": "client_credentials",
                "token": "t",
                "response_type": "code",
                "redirect_uri": "https://app.partner.example/callback",
                "code_challenge": challenge,
                "code_challenge_method": "S256",
                "extra": extra,
            });
            validator.is_valid(&form)
        };
        assert!(with("unknown parameters are ignored".into()), "{at}");
        for repeated in [json!(["a", "b"]), json!({"a": "b"}), json!(1), Value::Null] {
            assert!(!with(repeated.clone()), "{at}: {repeated}");
        }
    }
    assert_eq!(forms, 4);
}
