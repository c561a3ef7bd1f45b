//! Small trees with one violation each, and trees without any: the rules see what they must see.

use std::collections::BTreeSet;

use crate::{
    modules::{CRATES, Modules, Tree},
    rules::violations,
    source::Source,
};

/// A tree of these files, with a `lib.rs` that declares what stands beside it.
fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree: Tree = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    for (_, folder) in CRATES {
        let below = files
            .iter()
            .filter_map(|(path, _)| path.strip_prefix(&format!("{folder}/")));
        let names: BTreeSet<_> = below.filter_map(|path| path.split(['/', '.']).next()).collect();
        let lib = names.iter().map(|name| format!("pub mod {name};")).collect();
        tree.entry(format!("{folder}/lib.rs")).or_insert(lib);
    }
    tree
}

/// What the rules find in a tree of these files, in one line each.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let tree = tree(files);
    let found = violations(&tree, &Modules::load(&tree));
    found.iter().map(|violation| format!("{violation}")).collect()
}

/// Asserts that each of the files alone breaks a rule when it is put beside the others: `expected` is how
/// its violation begins.
#[track_caller]
fn each_fails(beside: &[(&str, &str)], file: &str, texts: &[&str], expected: &str) {
    assert_eq!(found(&[beside, &[(file, "")]].concat()), [""; 0]);
    for text in texts {
        let found = found(&[beside, &[(file, text)]].concat());
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{text}: {found:?}"
        );
    }
}

#[track_caller]
fn each_passes(beside: &[(&str, &str)], file: &str, texts: &[&str]) {
    for text in texts {
        assert_eq!(found(&[beside, &[(file, text)]].concat()), [""; 0], "{text}");
    }
}

const HTTP: &[(&str, &str)] = &[
    (
        "token-service/src/lib.rs",
        "pub mod cache; pub mod http; pub use http::Router as Face;",
    ),
    (
        "token-service/src/http/mod.rs",
        "mod router; pub use self::router::*; pub use router as renamed;",
    ),
    (
        "token-service/src/http/router.rs",
        "pub struct Router; pub fn serve() {} id! { /// An id.\n Id, \"id\" }",
    ),
    ("token-service/src/cache/mod.rs", "mod lease;"),
];

#[test]
fn an_arrow_back_fails_in_every_form() {
    let texts = [
        "use crate::http::Router;",
        "use crate::http::renamed::Router as Other;",
        "use crate::Face;",
        "use crate::{cache, http::{self, Id}};",
        "use crate::http as h; fn f() { h::serve() }",
        "fn f() { use crate::http as h; h::serve() }",
        "use crate::http::renamed::*;",
        "fn f() { crate::http::serve() }",
        "fn f(router: super::super::http::Router) {}",
        "fn f() -> Option<Box<dyn Fn(crate::Face) -> u8>> { None }",
        "fn f() { vec![1, crate::http::renamed::serve()]; }",
        "fn f() { token_service::http::serve() }",
        "mod inner { fn f() { super::super::super::http::serve() } }",
        "#[serde(with = \"crate::http::serve\")] struct Field;",
        "macro_rules! serve { () => { $crate::http::serve() } }",
        "#[cfg(not(test))] use crate::http::Router;",
    ];
    let expected = "[layers] token-service/src/cache/lease.rs:1 -> token-service/src/http/router.rs: \
                    `cache` may not import `http`, where `";
    each_fails(HTTP, "token-service/src/cache/lease.rs", &texts, expected);
}

#[test]
fn what_imports_nothing_passes() {
    let texts = [
        "// use crate::http::Router;",
        "/// Serves by [`crate::http::serve`].\nfn f() {}",
        "fn http(router: u8) { let http = router; f(http) }",
        "#[cfg(test)] use crate::http::Router; #[cfg(test)] fn f() { crate::http::serve() }",
        "#[cfg(test)] mod tests { use crate::http::*; }",
        "struct Lease { #[cfg(test)] router: crate::http::Router, end: u8 } fn after() {}",
        "#[cfg(any(test, feature = \"testing\"))] impl Lease { fn f(self) -> crate::Face {} }",
    ];
    each_passes(HTTP, "token-service/src/cache/lease.rs", &texts);
    let test = (
        "token-service/src/cache/lease_tests.rs",
        "use crate::http::Router;",
    );
    let declared = "#[cfg(test)] #[path = \"lease_tests.rs\"] mod tests;";
    each_passes(
        &[HTTP, &[test]].concat(),
        "token-service/src/cache/lease.rs",
        &[declared],
    );
}

#[test]
fn each_crate_has_its_order() {
    let arrows = [
        (
            "token-service/src/oauth.rs",
            "token-service/src/consent.rs",
            "crate::consent",
        ),
        (
            "token-service/src/consent.rs",
            "token-service/src/oauth.rs",
            "crate::oauth",
        ),
        (
            "token-service/src/registry.rs",
            "token-service/src/store.rs",
            "crate::store",
        ),
        (
            "token-service/src/config.rs",
            "token-service/src/cache.rs",
            "crate::cache",
        ),
        (
            "registry-service/src/hashing.rs",
            "registry-service/src/store.rs",
            "crate::store",
        ),
        (
            "registry-service/src/store.rs",
            "registry-service/src/directory.rs",
            "crate::directory",
        ),
        (
            "registry-service/src/error.rs",
            "registry-service/src/store.rs",
            "crate::store",
        ),
        ("src/text.rs", "src/store.rs", "accord::store"),
        ("src/store.rs", "src/rpc.rs", "crate::rpc"),
        ("src/verify.rs", "src/store.rs", "crate::store"),
    ];
    for (from, to, module) in arrows {
        each_fails(
            &[(to, "pub struct Item;")],
            from,
            &[&format!("use {module}::Item;")],
            &format!("[layers] {from}:1 -> {to}"),
        );
    }
    let below = [
        (
            "token-service/src/registry.rs",
            "pub struct Item; use crate::error::Error; use crate::model::Code;",
        ),
        ("token-service/src/model.rs", "pub struct Code;"),
        (
            "token-service/src/error.rs",
            "use accord::store::Pool; use crate::model::Code; pub enum Error {}",
        ),
        ("src/store.rs", "use crate::text::Id; pub struct Pool;"),
        ("src/text.rs", "use crate::clock::Clock; pub struct Id;"),
        ("src/clock.rs", "pub trait Clock {}"),
    ];
    each_passes(
        &below,
        "token-service/src/consent.rs",
        &["use crate::registry::Item;", "use accord::store::*;"],
    );
}

#[test]
fn a_circle_fails_behind_re_exports() {
    let beside = [
        (
            "registry-service/src/store/mod.rs",
            "mod user; mod client; pub use self::{user::*, client::Client}; pub struct Store;",
        ),
        (
            "registry-service/src/store/client.rs",
            "use super::{Store, User}; pub struct Client(Store, User);",
        ),
    ];
    let file = "registry-service/src/store/user.rs";
    for back in [
        "crate::store::Client",
        "super::Client",
        "crate::store::client::Client",
    ] {
        let text = format!("pub struct User({back});");
        let expected = [
            "[circle] registry-service/src/store/client.rs:1 -> registry-service/src/store/user.rs: `super::User` \
             is defined there, and leads back: \
             registry-service/src/store/user.rs -> registry-service/src/store/client.rs",
            &format!(
                "[circle] registry-service/src/store/user.rs:1 -> registry-service/src/store/client.rs: `{back}` \
                 is defined there, and leads back: \
                 registry-service/src/store/client.rs -> registry-service/src/store/user.rs"
            ),
        ];
        assert_eq!(found(&[&beside[..], &[(file, &text)]].concat()), expected);
    }
    each_passes(
        &beside,
        file,
        &[
            "pub struct User;",
            "pub struct User; #[cfg(test)] mod tests { use super::super::*; }",
        ],
    );
}

#[test]
fn a_module_and_its_children_may_import_each_other() {
    let beside = [
        (
            "token-service/src/cache/mod.rs",
            "mod a; mod b; pub struct Cache(a::A, b::B);",
        ),
        (
            "token-service/src/cache/a.rs",
            "use super::Cache; pub struct A(Cache);",
        ),
    ];
    each_passes(
        &beside,
        "token-service/src/cache/b.rs",
        &["use super::{Cache, a::A}; pub struct B(Cache, A);"],
    );
    // Files in between make it a circle.
    let outside = [
        ("src/rpc/mod.rs", "mod run; mod tls;"),
        (
            "src/rpc/run/mod.rs",
            "mod drain; use drain::Drain; pub struct Run(Drain);",
        ),
        ("src/rpc/run/drain.rs", "pub struct Drain(crate::rpc::tls::Tls);"),
        ("src/rpc/tls.rs", "use super::run::Run; pub struct Tls(Run);"),
    ];
    let circles = found(&outside);
    assert!(
        circles.len() == 2 && circles.iter().all(|circle| circle.starts_with("[circle]")),
        "{circles:?}"
    );
    let three = [
        ("src/rpc/mod.rs", "mod auth; mod tls; mod run;"),
        (
            "src/rpc/auth/mod.rs",
            "use super::tls::Tls; pub struct Auth(Tls);",
        ),
        ("src/rpc/tls.rs", "use super::run::Run; pub struct Tls(Run);"),
        ("src/rpc/run.rs", "use super::auth::Auth; pub struct Run(Auth);"),
    ];
    let circles = found(&three);
    assert!(
        circles.len() == 3 && circles.iter().all(|circle| circle.starts_with("[circle]")),
        "{circles:?}"
    );
}

#[test]
fn a_model_imports_no_protocol_and_no_store() {
    let beside = [
        (
            "src/lib.rs",
            "pub mod text; pub mod rpc; pub mod store; pub mod token { pub mod v1 { tonic::include_proto!(\"t\"); } }",
        ),
        (
            "src/text.rs",
            "pub use tonic::Code; pub use sea_orm::*; pub struct Id;",
        ),
        ("src/rpc.rs", "pub use crate::token::v1::Reason;"),
        ("src/store.rs", "pub struct Pool;"),
        (
            "registry-service/src/store/mod.rs",
            "mod tenant; pub use tenant::*;",
        ),
        ("registry-service/src/store/tenant.rs", "pub struct Row;"),
        ("registry-service/src/model/mod.rs", "mod tenant;"),
    ];
    let file = "registry-service/src/model/tenant.rs";
    let texts = [
        "use tonic::Status;",
        "use ::tonic as grpc;",
        "fn f() -> Result<(), tonic::Status> {}",
        "use accord::text::Code;",
        "use sea_orm::entity::prelude::*;",
        "#[derive(sea_orm::DeriveEntityModel)] struct Tenant;",
        "use accord::text::{Id, EntityTrait};",
        "fn f() { accord::token::v1::Consent::default() }",
        "use accord::rpc::Reason;",
        "use axum::Json;",
        "fn f() { matches!(1, prost_types::Timestamp { .. }) }",
        "use crate::store::Row;",
        "use super::super::store as s; fn f(row: s::Row) {}",
        "use accord::store::Pool;",
    ];
    each_fails(
        &beside,
        file,
        &texts,
        "[model] registry-service/src/model/tenant.rs:1 -> ",
    );
    each_passes(
        &beside,
        file,
        &[
            "use accord::text::Id;",
            "#[cfg(test)] mod tests { use crate::store::Row; }",
        ],
    );
    let beside = [&beside[..], &[(file, "")]].concat();
    each_fails(
        &beside,
        "registry-service/src/error.rs",
        &["use tonic::Code;", "use accord::text::Code;"],
        "[error] ",
    );
}

#[test]
fn hand_written_sql_fails_outside_its_folder() {
    let texts = [
        "use sea_orm::Statement; fn f() { Statement::from_string(DB, sql()) }",
        "use sea_orm::Statement as Raw; fn f() { Raw::from_string(DB, sql()) }",
        "fn f() { sea_orm::Statement::from_sql_and_values(DB, sql(), []) }",
        "async fn f(db: Db) { db.execute_unprepared(&sql()).await }",
        "fn f() { sqlx::query_as(sql()) }",
        "use sea_orm::sea_query::Expr; fn f() { Expr::cust(sql()) }",
        "const ASK: &str = \"SELECT 1 FROM tenants\";",
        "fn f() { format!(\"UPDATE {table}\n SET state = 'ended'\"); }",
        "const ASK: &str = r#\"WITH asked AS (SELECT 1) DELETE FROM codes\"#;",
        "const PUT: &str = concat!(\"INSERT INTO codes\", \" VALUES (1)\");",
        "fn f() { sqlx::query(\"DELETE FROM codes\") }",
        "const EMPTY: &str = \"TRUNCATE codes\";",
        "const LOCK: &str = \"LOCK TABLE codes\";",
        "const MERGE: &str = \"MERGE INTO codes\";",
        "const REPLACE: &str = \"REPLACE INTO codes\";",
    ];
    let beside = [
        ("src/store/mod.rs", "mod lock; mod batch;"),
        ("src/store/batch/mod.rs", "mod codes;"),
        ("src/store/batch/codes.rs", ""),
    ];
    let file = "src/store/lock.rs";
    for text in texts {
        let found = found(&[&beside[..], &[(file, text)]].concat());
        assert!(
            !found.is_empty()
                && found
                    .iter()
                    .all(|sql| sql.starts_with("[sql] src/store/lock.rs:1 -> ")),
            "{text}: {found:?}"
        );
        let codes = [&beside[..2], &[(file, ""), ("src/store/batch/codes.rs", text)]].concat();
        assert_eq!(self::found(&codes), [""; 0]);
    }
    let others = [
        "fn f() { sqlx::query(\"PRAGMA wal_checkpoint(PASSIVE)\") }",
        "impl ConnectionTrait for Pool { async fn execute_unprepared(&self, sql: &str) { run(sql) } }",
        "fn f() { Statement::from_string(DB, \"SELECT CAST(extract(epoch FROM clock_timestamp()) AS bigint) AS now\") }",
        "fn f() { Error::custom(text).from_string(Other::from_string(text)) }",
        "const SAYS: &str = \"UPDATE takes no effect\"; const WHO: &str = \"WITH whom\";",
        "#[cfg(test)] mod tests { fn f() { sqlx::query(\"DELETE FROM codes\") } }",
    ];
    each_passes(&beside, file, &others);
}

#[test]
fn crowds_strangers_and_test_code_fail() {
    let declared: String = (1..16).map(|file| format!("mod f{file};")).collect();
    let names: Vec<_> = (1..16).map(|file| format!("src/text/f{file}.rs")).collect();
    let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    files.push(("src/text/mod.rs", &declared));
    assert_eq!(found(&files), [""; 0]);
    files.push(("src/text/styles/one.css", ""));
    assert_eq!(
        found(&files),
        ["[crowd] src/text:0 -> more than 16 entries: 17 files and folders; find what belongs together"]
    );
    let utils = ("src/utils.rs", "");
    assert_eq!(
        found(&[utils]),
        ["[place] src/utils.rs:1 -> no layer: LAYERS does not name it"]
    );
    let lost = [("src/text/mod.rs", ""), ("src/text/lost.rs", "")];
    assert_eq!(
        found(&lost),
        ["[place] src/text/lost.rs:1 -> no module: no `mod` declares this file"]
    );
    let testing = [
        ("src/lib.rs", "#[cfg(feature = \"testing\")] pub mod testing;"),
        (
            "src/testing.rs",
            "pub use crate::databases as all; pub fn databases() { Expr::cust(\"SELECT 1\") }",
        ),
    ];
    let texts = [
        "use accord::testing::databases;",
        "fn f() { accord::testing::databases() }",
    ];
    each_fails(
        &testing,
        "token-service/src/cache.rs",
        &texts,
        "[tests] token-service/src/cache.rs:1 -> src/testing.rs",
    );
}

#[test]
fn lines_of_code_are_what_is_not_blank_comment_or_test() {
    let text = "//! A file.\n\n/// A function.\n// Really.\nfn f() {\n    /* one\n    two */\n    g(\"a\n    b\") // Twice.\n}\n\n\
                #[cfg(test)]\n#[path = \"tests.rs\"]\nmod tests;\n#[cfg(test)]\nimpl F {\n}\nuse a::{\n    b,\n};\n";
    assert_eq!(
        Source::read(text.parse().unwrap())
            .lines
            .into_iter()
            .collect::<Vec<_>>(),
        [5, 8, 9, 10, 18, 19, 20]
    );
}
