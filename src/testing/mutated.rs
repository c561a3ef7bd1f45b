//! Mutated messages to every method of a service, without a connection.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::body::Body;
use futures_util::{StreamExt, stream};
use http::Request;
use prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    Value,
};
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;

use crate::rpc::{
    auth::{Caller, CallerDirectory, Credential},
    middleware::Routes,
    run::{Service, in_process},
};

/// The methods that get messages at the same time, each in a task of its own, so that every core works.
const METHODS_AT_ONCE: usize = 4;
/// The messages to a method under way.
const AT_ONCE: usize = 32;
/// The methods that wait by design: for one of few threads that run argon2, longer after each guessed password, or for the whole
/// record to be read.
const SLOW: [&str; 4] = [
    "AuthenticateClient",
    "AuthenticateTenantAdmin",
    "SignInTenantAdmin",
    "VerifyAuditLog",
];
/// The caller's patience with those, in the form of `grpc-timeout`.
const PATIENCE: &str = "50m";

/// Values that exist, by the name of a field.
type Known = Arc<[(String, String)]>;

/// How often a method gave each answer: a code, with the reason of a failure.
type Answers = BTreeMap<(String, String), u64>;

/// The callers of the test by their tokens. The registry's own directory is a query for each call, which costs an
/// unoptimised build more than all the rest of most calls.
#[derive(Debug)]
struct Callers(HashMap<String, Caller>);

#[tonic::async_trait]
impl CallerDirectory for Callers {
    async fn find_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        Ok(match credential {
            Credential::Token(token) => self.0.get(token.expose()).cloned(),
            Credential::Certificate(_) => None,
        })
    }
}

/// Sends `messages` mutated messages to every method of a service, by a caller with the token that `token` returns for
/// the method's path. `known` are values that exist, by the name of a field.
///
/// # Panics
/// If a method does not admit its caller, answers INTERNAL or UNKNOWN, or without a reason, or takes until the deadline.
pub async fn bombard<S: Service>(
    service: &S,
    messages: u64,
    token: impl Fn(&str) -> String,
    known: &[(&str, &str)],
) {
    let known = known
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let known: Known = known.collect();
    let pool = DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
    let names = S::GRPC_SERVICES.iter();
    let services = names.map(|name| pool.get_service_by_name(name).unwrap());
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    let (mut paths, mut callers) = (Vec::new(), HashMap::new());
    for method in methods {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let token = token(&path);
        let caller = service.authorizer().authorize_token(&path, &token).await;
        callers.insert(token.clone(), caller.unwrap());
        paths.push((path, token, method));
    }
    let authorizer = service.authorizer().with_directory(Arc::new(Callers(callers)));
    let routes = in_process(service, authorizer).await.unwrap();
    let tasks = paths
        .into_iter()
        .enumerate()
        .map(|(seed, (path, token, method))| {
            let authorization = format!("Bearer {token}");
            let mutator = Mutator {
                random: SmallRng::seed_from_u64(seed as u64),
                known: known.clone(),
            };
            let (routes, input) = (routes.clone(), method.input());
            async move {
                let answering = answers(routes, path.clone(), authorization, input, mutator, messages);
                let answers = tokio::spawn(answering).await.unwrap();
                assert_eq!(answers.values().sum::<u64>(), messages, "{path}");
                (path, answers)
            }
        });
    let mut answers = stream::iter(tasks).buffer_unordered(METHODS_AT_ONCE);
    let mut faults = Vec::new();
    while let Some((path, counts)) = answers.next().await {
        let is_slow = SLOW.iter().any(|name| path.ends_with(name));
        let is_fault = |(code, reason): &(String, String)| match code.as_str() {
            "Internal" | "Unknown" | "DataLoss" => true,
            "DeadlineExceeded" => !is_slow,
            code => reason.is_empty() && code != "Ok",
        };
        let is_admission =
            |(code, _): &(String, String)| !matches!(code.as_str(), "PermissionDenied" | "Unauthenticated");
        if counts.keys().any(is_fault) || !counts.keys().any(is_admission) {
            faults.push(format!("{path}: {counts:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Sends mutated messages to a method. Returns its answers.
async fn answers(
    routes: impl Routes,
    path: String,
    authorization: String,
    input: MessageDescriptor,
    mut mutator: Mutator,
    messages: u64,
) -> Answers {
    let is_slow = SLOW.iter().any(|name| path.ends_with(name));
    let calls = (0..messages).map(|_| {
        let mut request = Request::post(&path)
            .header("content-type", "application/grpc")
            .header("authorization", &authorization);
        if is_slow {
            request = request.header("grpc-timeout", PATIENCE);
        }
        let request = request.body(Body::from(mutator.body(&input))).unwrap();
        let routes = routes.clone();
        async {
            let Ok(response) = routes.oneshot(request).await;
            // A call that succeeds has its status in the trailers.
            let Some(status) = Status::from_header_map(response.headers()) else {
                return (format!("{:?}", Code::Ok), String::new());
            };
            let reason = status.get_details_error_info().map(|info| info.reason);
            (format!("{:?}", status.code()), reason.unwrap_or_default())
        }
    });
    let counting = |mut counts: Answers, answer| async move {
        *counts.entry(answer).or_insert(0) += 1;
        counts
    };
    let answers = stream::iter(calls).buffer_unordered(AT_ONCE);
    answers.fold(Answers::new(), counting).await
}

/// How many messages a method gets: 10,000 in `.ci/run`, fewer in a plain run.
pub fn messages() -> u64 {
    match std::env::var_os("ACCORD_REQUIRE_ALL") {
        Some(_) => 10_000,
        None => 300,
    }
}

/// Makes bodies of calls. The same seed makes the same bodies.
struct Mutator {
    random: SmallRng,
    known: Known,
}

impl Mutator {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_ratio(1, n)
    }

    fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.random.random_range(0..values.len())].clone()
    }

    /// A frame of gRPC with a message of this type, more or less.
    fn body(&mut self, message: &MessageDescriptor) -> Vec<u8> {
        let mut bytes = match self.one_in(20) {
            true => self.bytes(64),
            false => self.message(message, 0).encode_to_vec(),
        };
        if self.one_in(3) {
            self.mutate(&mut bytes);
        }
        let mut frame = vec![0];
        frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        frame.extend(bytes);
        if self.one_in(50) {
            self.mutate(&mut frame);
        }
        frame
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.random.random_range(0..most)];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    /// Flips, inserts, removes, doubles or cuts off bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        for _ in 0..self.random.random_range(1..4) {
            let at = self.random.random_range(0..bytes.len());
            match self.random.random_range(0..5) {
                0 => bytes[at] ^= 1 << self.random.random_range(0..8),
                1 => bytes.insert(at, self.random.random()),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                3 => bytes.extend_from_within(at..),
                _ => bytes.truncate(at.max(1)),
            }
        }
    }

    fn message(&mut self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            if self.one_in(5) || depth > 4 {
                continue;
            }
            let value = match field.cardinality() {
                Cardinality::Repeated => {
                    let length = self.one_of(&[0, 1, 1, 2, 3, 150]);
                    Value::List((0..length).map(|_| self.value(&field, depth)).collect())
                }
                _ => self.value(&field, depth),
            };
            message.set_field(&field, value);
        }
        message
    }

    fn value(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let number = self.one_of(&[0, 1, -1, 2, 50, 500, 501, i64::from(i32::MAX), i64::MAX, i64::MIN]);
        match field.kind() {
            Kind::Message(message) => Value::Message(self.message(&message, depth + 1)),
            Kind::Enum(kind) => Value::EnumNumber(self.variant(&kind)),
            Kind::String => Value::String(self.text(field.name())),
            Kind::Bytes => Value::Bytes(self.bytes(64).into()),
            Kind::Bool => Value::Bool(self.one_in(2)),
            Kind::Double => Value::F64(number as f64),
            Kind::Float => Value::F32(number as f32),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number as u64),
        }
    }

    fn variant(&mut self, kind: &EnumDescriptor) -> i32 {
        let mut numbers = vec![-1, 99, i32::MAX];
        numbers.extend(kind.values().map(|value| value.number()));
        self.one_of(&numbers)
    }

    /// Half of the time a value that might be right for the field.
    fn text(&mut self, field: &str) -> String {
        if self.one_in(2) {
            let known = self.known.iter().find(|(name, _)| *name == field);
            let plausible = known.map_or("a plausible text", |(_, value)| value);
            return plausible.to_owned();
        }
        if self.one_in(28) {
            return "x".repeat(self.one_of(&[256, 1_001, 5_000, 70_000]));
        }
        if self.one_in(27) {
            let (_, known) = self.one_of(&self.known.clone());
            return known;
        }
        self.one_of(&[
            "",
            " ",
            "\0",
            "\r\n",
            "\u{feff}",
            "\u{202e}abc",
            "\u{1f468}\u{200d}\u{1f4bb}",
            "\u{10ffff}",
            "e\u{301}",
            "*",
            "-1",
            "{}",
            "{\"keys\":[]}",
            "null",
            "..",
            "%00",
            "' OR 1=1 --",
            "https://[::1",
            "javascript:alert(1)",
            "00000000-0000-4000-8000-000000000000",
            "cli_00000000000000000000000000",
            "usr_7zzzzzzzzzzzzzzzzzzzzzzzzz",
            "grt_01jdn3qk0x0000000000000000",
            "a.b.c",
            "eyJhbGciOiJub25lIn0.e30.",
        ])
        .to_owned()
    }
}
