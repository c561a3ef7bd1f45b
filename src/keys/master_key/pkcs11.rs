//! A master key that never leaves its PKCS#11 token: AES-256-GCM inside of it (PKCS#11 v3.1 §6.13).
//!
//! Every operation opens a session, logs in and finds the key. After one that fails, the module is finalized, and the next
//! operation initializes it again: a library may look for its tokens only then, and would miss one that was removed and is
//! back. Operations are rare: a service unwraps a data key once.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use tokio::{sync::Semaphore, time::timeout};
use zeroize::Zeroizing;

use super::{MasterKey, Pkcs11Uri};
use crate::{
    keys::{KeyError, secret_file::read_secret_text},
    lock::Lock,
    random::Random,
};

const NONCE_BYTES: usize = 12;
const TAG_BITS: u64 = 128;
const KEY_BYTES: u64 = 32;
/// The longest PIN, in bytes, with a line break.
const MAX_PIN_BYTES: usize = 256;
/// How long an operation may take, with the wait for an earlier one.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// One operation at a time. One that hangs holds up later ones, and no more than its own thread.
static GATE: Semaphore = Semaphore::const_new(1);
/// The modules that were loaded, one for each path. They stay loaded: libraries do not expect to be removed from a process.
static MODULES: LazyLock<Lock<HashMap<PathBuf, Pkcs11>>> = LazyLock::new(Lock::default);
/// Hashes of the PINs that a token refused. A token locks itself after a few wrong ones, so none is tried twice.
static REFUSED_PINS: LazyLock<Lock<HashSet<Vec<u8>>>> = LazyLock::new(Lock::default);

/// A key in a PKCS#11 token. `Debug` shows only its id.
#[derive(derive_more::Debug)]
#[debug("Pkcs11MasterKey({id})")]
pub struct Pkcs11MasterKey {
    uri: Pkcs11Uri,
    id: String,
}

impl Pkcs11MasterKey {
    /// Finds the key. It must be the token's only AES key of this label, have 256 bits, and be sensitive (`CKA_SENSITIVE`).
    ///
    /// # Errors
    /// The errors of [`read_secret_text`] for the file of the PIN; [`KeyError::Token`] for everything else.
    pub async fn open(uri: Pkcs11Uri) -> Result<Self, KeyError> {
        let id = blocking(uri.clone(), |session, key| {
            // The nonce is one that no wrapped key has: those are random.
            let block = encrypt(
                session,
                key,
                &mut [0; NONCE_BYTES],
                b"accord master key id",
                &[0; 16],
            )?;
            let digest = digest(&SHA256, &block);
            Ok(digest.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect())
        });
        Ok(Self { id: id.await?, uri })
    }
}

#[async_trait]
impl MasterKey for Pkcs11MasterKey {
    fn id(&self) -> String {
        self.id.clone()
    }

    async fn wrap(&self, random: &dyn Random, plaintext: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_BYTES];
        random.fill(&mut nonce);
        let (plaintext, context) = (Zeroizing::new(plaintext.to_vec()), context.to_vec());
        blocking(self.uri.clone(), move |session, key| {
            let sealed = encrypt(session, key, &mut nonce, &context, &plaintext)?;
            Ok([&nonce[..], &sealed].concat())
        })
        .await
    }

    async fn unwrap(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let (nonce, body) = sealed.split_first_chunk().ok_or(KeyError::Sealed)?;
        let (mut nonce, body, context): ([u8; NONCE_BYTES], _, _) = (*nonce, body.to_vec(), context.to_vec());
        blocking(self.uri.clone(), move |session, key| {
            let parameters = GcmParams::new(&mut nonce, &context, TAG_BITS.into()).map_err(failed)?;
            let opened = session.decrypt(&Mechanism::AesGcm(parameters), key, &body);
            opened.map(Zeroizing::new).map_err(|error| match error {
                Error::Pkcs11(RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange, _) => {
                    KeyError::Sealed
                }
                error => failed(error),
            })
        })
        .await
    }
}

fn encrypt(
    session: &Session,
    key: ObjectHandle,
    nonce: &mut [u8; NONCE_BYTES],
    context: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let parameters = GcmParams::new(nonce, context, TAG_BITS.into()).map_err(failed)?;
    let encrypted = session.encrypt(&Mechanism::AesGcm(parameters), key, plaintext);
    encrypted.map_err(failed)
}

/// Runs an operation with the key on a thread that may block.
async fn blocking<T: Send + 'static>(
    uri: Pkcs11Uri,
    work: impl FnOnce(&Session, ObjectHandle) -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    let run = async {
        let permit = GATE.acquire().await.map_err(|_| token("stopped"))?;
        let run = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let done = log_in(&uri).and_then(|session| {
                let key = find(&session, &uri)?;
                work(&session, key)
            });
            if let Err(KeyError::Token(_)) = done {
                finalize(&uri.module());
            }
            done
        });
        run.await.map_err(|_| token("the module failed"))?
    };
    let done = timeout(CALL_TIMEOUT, run).await;
    done.unwrap_or_else(|_| Err(token("no answer within 10 s")))
}

/// Opens a session with the token of this label. It ends, and with it the log-in, when it is dropped.
fn log_in(uri: &Pkcs11Uri) -> Result<Session, KeyError> {
    let pin = read_secret_text(&uri.pin_file(), MAX_PIN_BYTES)?;
    let pin = pin.trim_end_matches(['\r', '\n']);
    let module = module(uri.module())?;
    let slots = module.get_slots_with_token().map_err(failed)?;
    let is_named = |slot: &_| {
        module
            .get_token_info(*slot)
            .is_ok_and(|info| info.label().trim_end() == uri.token())
    };
    let slot = slots.into_iter().find(is_named);
    let slot = slot.ok_or_else(|| token("no token has this label"))?;

    let attempt = digest(&SHA256, format!("{}\0{pin}", uri.token()).as_bytes());
    let mut refused = REFUSED_PINS.lock();
    if refused.contains(attempt.as_ref()) {
        return Err(token("it refused this PIN before, and it is not tried again"));
    }
    let session = module.open_ro_session(slot).map_err(failed)?;
    match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _)) => {
            refused.insert(attempt.as_ref().to_vec());
            Err(token("it refuses the PIN"))
        }
        Err(error) => Err(failed(error)),
    }
}

/// The module of this path, initialized. An operation before may have initialized it.
fn module(path: PathBuf) -> Result<Pkcs11, KeyError> {
    let mut modules = MODULES.lock();
    let module = match modules.get(&path) {
        Some(module) => module.clone(),
        None => {
            // The loader's message names the path.
            let module = Pkcs11::new(&path).map_err(|_| token("the module can't be loaded"))?;
            modules.insert(path, module.clone());
            module
        }
    };
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        Err(error) => Err(failed(error)),
    }
}

/// Makes the next operation initialize the module. No session is open: [`GATE`] lets one operation in at a time.
fn finalize(path: &Path) {
    let modules = MODULES.lock();
    if let Some(module) = modules.get(path) {
        // One that is not initialized needs no end.
        let _ = module.clone().finalize();
    }
}

fn find(session: &Session, uri: &Pkcs11Uri) -> Result<ObjectHandle, KeyError> {
    let wanted = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(uri.object().into()),
    ];
    let found = session.find_objects(&wanted).map_err(failed)?;
    let [key] = found[..] else {
        return Err(token(match found.is_empty() {
            true => "no AES key has this label",
            false => "several AES keys have this label",
        }));
    };
    let attributes = [AttributeType::Sensitive, AttributeType::ValueLen];
    let attributes = session.get_attributes(key, &attributes).map_err(failed)?;
    if !attributes.contains(&Attribute::Sensitive(true)) {
        return Err(token("the key is not sensitive (CKA_SENSITIVE)"));
    }
    if !attributes.contains(&Attribute::ValueLen(KEY_BYTES.into())) {
        return Err(token("the key has other than 256 bits"));
    }
    Ok(key)
}

fn token(text: &str) -> KeyError {
    KeyError::Token(text.to_owned())
}

/// Names the function that failed and its code, such as "C_Encrypt: CKR_DEVICE_REMOVED".
fn failed(error: Error) -> KeyError {
    KeyError::Token(match error {
        Error::Pkcs11(code, function) => format!("{function:?}: {code:?}"),
        _ => "the module gives an answer that can't be used".to_owned(),
    })
}
