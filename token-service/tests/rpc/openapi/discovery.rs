//! The public documents, and requests that no endpoint takes.

use super::{AUTHORIZE, Face, INTROSPECT, PAR, REVOKE, Request, TOKEN, strings};

const JWKS: &str = "/{tenant}/jwks.json";
const METADATA: [&str; 3] = [
    "/.well-known/oauth-authorization-server/{tenant}",
    "/{tenant}/.well-known/oauth-authorization-server",
    "/{tenant}/.well-known/openid-configuration",
];

/// Metadata, keys, and the description itself.
pub async fn documents(face: &mut Face<'_>) {
    let mut documents = Vec::new();
    for path in METADATA {
        documents.push(face.ask(path, "acme", |request| request).await.json());
    }
    assert!(
        documents.windows(2).all(|pair| pair[0] == pair[1]),
        "{documents:?}"
    );
    // The endpoints of the metadata are the described ones.
    let metadata = &documents[0];
    assert_eq!(metadata["issuer"], face.world.issuer.as_str());
    for (member, path) in [
        ("authorization_endpoint", AUTHORIZE),
        ("pushed_authorization_request_endpoint", PAR),
        ("token_endpoint", TOKEN),
        ("introspection_endpoint", INTROSPECT),
        ("revocation_endpoint", REVOKE),
        ("jwks_uri", JWKS),
    ] {
        let expected = path.replace("/{tenant}", &face.world.issuer);
        assert_eq!(metadata[member], expected, "{member}");
    }
    let grants = &face.description.document["components"]["schemas"]["TokenRequest"];
    let grants = strings(&grants["properties"]["grant_type"]["enum"]);
    assert_eq!(strings(&metadata["grant_types_supported"]), grants);

    face.ask(JWKS, "acme", |request| request).await;
    for path in METADATA.into_iter().chain([JWKS]) {
        for tenant in ["nowhere", "No-Tenant"] {
            let answer = face.ask(path, tenant, |request| request).await;
            assert_eq!(answer.error(), (404, "not_found".into()), "{path}");
        }
    }

    let answer = Request::new("GET", "/openapi.json")
        .send(face.world.http_address())
        .await;
    assert_eq!(
        (answer.status, answer.media_type()),
        (200, Some("application/json"))
    );
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.json(), face.description.document);
}

/// A method that is not described is refused, and the described one named.
pub async fn other_methods(face: &mut Face<'_>) {
    for (path, item) in face.description.document["paths"].as_object().unwrap() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let is_document = item.get("get").is_some() && path != AUTHORIZE;
            let is_preflight = is_document && method == "OPTIONS";
            if item.get(method.to_lowercase()).is_some() || is_preflight {
                continue;
            }
            let request = Request::new(method, path.replace("{tenant}", "acme"));
            let answer = request.send(face.world.http_address()).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            let allowed: Vec<_> = answer
                .header("allow")
                .unwrap()
                .split(',')
                .map(str::trim)
                .collect();
            let expected = if item.get("get").is_some() {
                vec!["GET", "HEAD"]
            } else {
                vec!["POST"]
            };
            assert_eq!(allowed, expected, "{method} {path}");
            assert_eq!(
                answer.header("access-control-allow-origin"),
                is_document.then_some("*"),
                "{method} {path}"
            );
        }
    }
}

/// Without a registry nothing is certain.
pub async fn without_registry(face: &mut Face<'_>) {
    face.world.registry().set_unavailable(true);
    let paths: Vec<_> = face.description.document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let client_id = face.world.client_id.clone();
    let redirect_uri = super::encoded(&[("redirect_uri", crate::world::REDIRECT_URI)]);
    let challenge = crate::world::challenge(crate::world::VERIFIER);
    for path in paths {
        let answer = face
            .ask(&path, "acme", |mut request| {
                if path == AUTHORIZE {
                    request.target = format!("{}?client_id={client_id}&{redirect_uri}", request.target);
                }
                let form = [
                    ("grant_type", "client_credentials"),
                    ("token", "acr_1"),
                    ("response_type", "code"),
                    ("redirect_uri", crate::world::REDIRECT_URI),
                    ("code_challenge", &*challenge),
                    ("code_challenge_method", "S256"),
                ];
                match request.method {
                    "POST" => request.basic(&face.world.client).form(&form),
                    _ => request,
                }
            })
            .await;
        assert_eq!(answer.status, 503, "{path}");
    }
    face.world.registry().set_unavailable(false);
}
