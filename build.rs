//! Compiles `proto/` with protox, which needs no `protoc`, and writes the descriptor set for reflection.

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf};

use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

const PROTOS: [&str; 15] = [
    "accord/audit/v1/audit.proto",
    "accord/audit/v1/record.proto",
    "accord/error/v1/error_reason.proto",
    "accord/registry/v1/client.proto",
    "accord/registry/v1/directory.proto",
    "accord/registry/v1/integration_request.proto",
    "accord/registry/v1/operator.proto",
    "accord/registry/v1/provisioning.proto",
    "accord/registry/v1/scope.proto",
    "accord/registry/v1/tenant.proto",
    "accord/registry/v1/user.proto",
    "accord/token/v1/consent.proto",
    "accord/token/v1/setup.proto",
    "accord/token/v1/signing_key.proto",
    "accord/token/v1/token.proto",
];

/// Fields that hold a secret, a one-time link or an account name. The `Debug` of a message with such a field shows only
/// the message's name.
const SECRET_FIELDS: [&str; 22] = [
    "access_token",
    "account_name",
    "admin_session",
    "authorization_code",
    "claim_token",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "designated_account_name",
    "dpop_proof",
    "enrolment_link",
    "enrolment_token",
    "key",
    "operator_token",
    "password",
    "redirect_url",
    "refresh_token",
    "release_code",
    "token",
    "url",
    "workload_token",
];

/// Request fields of the contract that are not implemented yet. The codec rejects a message that sets one.
const NOT_AVAILABLE: [&str; 0] = [];

/// Messages that HTTP sends as JSON: the names of their fields are those of RFC 7517, RFC 7662 and RFC 8414.
const JSON: [&str; 6] = [
    ".accord.token.v1.Confirmation",
    ".accord.token.v1.GetAuthorityMetadataResponse",
    ".accord.token.v1.GetJsonWebKeySetResponse",
    ".accord.token.v1.IntrospectTokenResponse",
    ".accord.token.v1.JsonWebKey",
    ".accord.token.v1.MtlsEndpointAliases",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("accord.bin"), descriptors.encode_to_vec())?;

    let mut skipped = Vec::new();
    let mut debug_impls = String::new();
    for file in descriptors
        .file
        .iter()
        .filter(|f| f.package().starts_with("accord."))
    {
        let module = file.package().split('.').skip(1).collect::<Vec<_>>().join("::");
        for message in file.message_type.iter().filter(|m| carries_secret(m)) {
            let path = format!(".{}.{}", file.package(), message.name());
            debug_impls.push_str(&debug_impl(
                &format!("crate::{module}::{}", message.name()),
                message.name(),
            ));
            for oneof in &message.oneof_decl {
                // A proto3 `optional` field's one-member oneof has no Rust type.
                if !oneof.name().starts_with('_') {
                    let enum_name = upper_camel(oneof.name());
                    let parent = snake(message.name());
                    debug_impls.push_str(&debug_impl(
                        &format!("crate::{module}::{parent}::{enum_name}"),
                        &enum_name,
                    ));
                    skipped.push(format!("{path}.{}", oneof.name()));
                }
            }
            skipped.push(path);
        }
    }
    fs::write(out.join("redacted_debug.rs"), debug_impls)?;
    fs::write(out.join("checked.rs"), checked_impls(&descriptors.file)?)?;

    let mut builder = tonic_prost_build::configure()
        .codec_path("crate::Codec")
        // The same event has the same bytes.
        .btree_map(".accord.audit.v1.AuditRecord")
        .skip_debug(skipped);
    for message in JSON {
        builder = builder.message_attribute(message, "#[derive(serde::Serialize)]");
    }
    // An inactive token has no member but `active` (RFC 7662 §2.2), a key only those of its type (RFC 7518 §6), and metadata no
    // empty member (RFC 8414 §3.2).
    for message in [
        "Confirmation",
        "GetAuthorityMetadataResponse",
        "IntrospectTokenResponse",
        "JsonWebKey",
        "MtlsEndpointAliases",
    ] {
        builder = builder.field_attribute(
            format!(".accord.token.v1.{message}"),
            "#[serde(skip_serializing_if = \"crate::is_unset\")]",
        );
    }
    // A name that is no identifier (RFC 8705 §3.1).
    let certificate = ".accord.token.v1.Confirmation.x5t_s256";
    builder = builder.field_attribute(certificate, "#[serde(rename = \"x5t#S256\")]");
    builder.compile_fds(descriptors)?;
    Ok(())
}

fn carries_secret(message: &DescriptorProto) -> bool {
    message
        .field
        .iter()
        .any(|f| matches!(f.r#type(), Type::String | Type::Bytes) && SECRET_FIELDS.contains(&f.name()))
}

/// Implements `Checked` for every request and response.
///
/// # Errors
/// If no request has a field of [`NOT_AVAILABLE`].
fn checked_impls(files: &[FileDescriptorProto]) -> Result<String, Box<dyn Error>> {
    let mut unknown = BTreeSet::from(NOT_AVAILABLE);
    let mut impls = String::new();
    for file in files.iter().filter(|f| f.package().starts_with("accord.")) {
        let module = file.package().replace('.', "::").replace("accord", "crate");
        for method in file.service.iter().flat_map(|service| &service.method) {
            let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
            let (request, response) = (name(method.input_type()), name(method.output_type()));
            let prefix = format!("{request}.");
            unknown.retain(|field| !field.starts_with(&prefix));
            let fields = NOT_AVAILABLE
                .iter()
                .filter_map(|field| field.strip_prefix(&prefix));
            let message = file.message_type.iter().find(|message| message.name() == request);
            let message_fields = message.map_or(&[][..], |message| &message.field[..]);
            let normalize = match message_fields.iter().any(|field| field.name() == "request_id") {
                true => format!(
                    "    fn normalize(&mut self) {{ self.request_id.make_ascii_lowercase(); }}\n    \
                     fn canonicalize(&mut self) {{ {} }}\n",
                    message_fields.iter().map(canonical_field).collect::<String>()
                ),
                false => String::new(),
            };
            let checks = fields.map(|field| format!("(is_set(&self.{field}), \"{field}\"), "));
            impls.push_str(&format!(
                "impl Checked for {module}::{response} {{}}\n\
                 impl Checked for {module}::{request} {{\n    \
                 const REQUEST: bool = true;\n    \
                 fn unavailable_fields(&self) -> Vec<&'static str> {{\n        \
                 set_fields(&[{}])\n    }}\n{normalize}}}\n",
                checks.collect::<String>()
            ));
        }
    }
    if unknown.is_empty() {
        Ok(impls)
    } else {
        Err(format!("no request has {unknown:?}").into())
    }
}

/// Returns the statement that puts a field into one form: the order of a list of a creating call does not count. Of texts and numbers,
/// duplicates do not count either. Messages keep theirs: two may differ in another field than the name, and a call that names one twice
/// is rejected.
fn canonical_field(field: &FieldDescriptorProto) -> String {
    let name = field.name();
    match (field.label(), field.r#type()) {
        (Label::Repeated, Type::Message) => format!("self.{name}.sort_by(|a, b| a.name.cmp(&b.name)); "),
        (Label::Repeated, _) => format!("self.{name}.sort_unstable(); self.{name}.dedup(); "),
        (_, Type::Enum) if field.type_name().ends_with(".DeliveryMethod") => format!(
            "if self.{name} == crate::registry::v1::DeliveryMethod::Inline as i32 {{ self.{name} = 0; }} "
        ),
        _ => String::new(),
    }
}

fn debug_impl(rust_type: &str, name: &str) -> String {
    format!(
        "impl ::core::fmt::Debug for {rust_type} {{\n    \
         fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n        \
         f.debug_struct(\"{name}\").finish_non_exhaustive()\n    }}\n}}\n"
    )
}

fn upper_camel(name: &str) -> String {
    name.split('_')
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}
