//! How what goes into the database is packed and sealed: compressed, then ChaCha20-Poly1305 with the key of the cluster.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

use crate::LedgerError;

const KEY: usize = 32;
const SALT: usize = 16;
const NONCE: usize = 12;

/// What a body begins with.
const PLAIN: u8 = 0;
const SEALED: u8 = 1;

/// What seals and opens bodies. Each process seals with a key of its own, made of the cluster's and of a salt in front of each
/// body, so that nonces by chance are enough.
#[derive(Clone)]
pub struct Key(Option<Arc<Secret>>);

struct Secret {
    of_cluster: hmac::Key,
    salt: [u8; SALT],
    known: Mutex<HashMap<[u8; SALT], Arc<LessSafeKey>>>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Makes a key in a new file that its owner alone can read.
///
/// # Errors
/// If there is such a file, or it cannot be written.
pub fn make_key(path: &Path) -> std::io::Result<()> {
    let mut random = [0; KEY];
    let filled = getrandom::fill(&mut random);
    filled.map_err(|error| std::io::Error::other(error.to_string()))?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

impl Key {
    /// Nothing is sealed.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Reads the file that [`make_key`] makes.
    ///
    /// # Errors
    /// One line that says the fix.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |why: &str| format!("--cluster-key-file {}: {why}", path.display());
        let found = fs::metadata(path).map_err(|error| wrong(&error.to_string()))?;
        // A group may read it, as that of a mounted Secret does.
        if found.mode() & 0o027 != 0 {
            return Err(wrong(
                "can be read or written by others; run chmod 600 on it",
            ));
        }
        let text = fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
        let bytes = decode(text.trim());
        let bytes = bytes.ok_or_else(|| {
            wrong("holds no key: make one with `procession cluster-key FILE`, and give each API node the same")
        })?;
        Self::new(&bytes).map_err(|why| wrong(&why))
    }

    fn new(bytes: &[u8; KEY]) -> Result<Self, String> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
        Ok(Self(Some(Arc::new(Secret {
            of_cluster: hmac::Key::new(hmac::HMAC_SHA256, bytes),
            salt,
            known: Mutex::default(),
        }))))
    }

    /// Is anything sealed?
    #[cfg(test)]
    fn seals(&self) -> bool {
        self.0.is_some()
    }

    /// Packs and seals. Only what is opened as the same is opened at all.
    pub(crate) fn seal(&self, what: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let words = |error: std::io::Error| error.to_string();
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).map_err(words)?;
        let mut packed = packed.finish().map_err(words)?;
        let Some(secret) = &self.0 else {
            packed.insert(0, PLAIN);
            return Ok(packed);
        };
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| error.to_string())?;
        let key = secret.key(secret.salt);
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(what.as_bytes()),
            &mut packed,
        )
        .map_err(|_| "cannot be sealed".to_owned())?;
        let mut body = Vec::with_capacity(1 + SALT + NONCE + packed.len());
        body.push(SEALED);
        body.extend(secret.salt);
        body.extend(nonce);
        body.extend(packed);
        Ok(body)
    }

    /// Opens and unpacks.
    pub(crate) fn open(&self, what: &str, body: &[u8]) -> Result<Vec<u8>, LedgerError> {
        let wrong = |why: &str| LedgerError::Unusable(format!("{what} in the database {why}"));
        let packed = match (body.split_first(), &self.0) {
            (Some((&PLAIN, packed)), None) => packed.to_vec(),
            (Some((&PLAIN, _)), Some(_)) => {
                return Err(wrong(
                    "is not sealed: this cluster was begun without --cluster-key-file",
                ));
            }
            (Some((&SEALED, _)), None) => {
                return Err(wrong("is sealed: give --cluster-key-file"));
            }
            (Some((&SEALED, rest)), Some(secret)) => {
                let opened = secret.open(what, rest);
                opened.ok_or_else(|| {
                    wrong("was sealed with another key: give each API node the same --cluster-key-file")
                })?
            }
            _ => return Err(wrong("is not of a version that is known")),
        };
        let mut bytes = Vec::new();
        DeflateDecoder::new(&*packed)
            .read_to_end(&mut bytes)
            .map_err(|_| wrong("is damaged"))?;
        Ok(bytes)
    }
}

impl Secret {
    fn key(&self, salt: [u8; SALT]) -> Arc<LessSafeKey> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let made = known.entry(salt).or_insert_with(|| {
            let bytes = hmac::sign(&self.of_cluster, &salt);
            let key = UnboundKey::new(&CHACHA20_POLY1305, bytes.as_ref());
            Arc::new(LessSafeKey::new(key.expect("HMAC-SHA-256 gives 32 bytes")))
        });
        made.clone()
    }

    fn open(&self, what: &str, rest: &[u8]) -> Option<Vec<u8>> {
        let (salt, rest) = rest.split_at_checked(SALT)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let key = self.key(salt.try_into().ok()?);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = key.open_in_place(nonce, Aad::from(what.as_bytes()), &mut sealed);
        let length = opened.ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

fn decode(text: &str) -> Option<[u8; KEY]> {
    let mut bytes = [0; KEY];
    if text.len() != 2 * KEY || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_with_the_same_key_as_the_same_and_nothing_else() {
        let (one, same, other) = (
            Key::new(&[7; KEY]),
            Key::new(&[7; KEY]),
            Key::new(&[8; KEY]),
        );
        let (one, same, other) = (one.unwrap(), same.unwrap(), other.unwrap());
        let text = "hunter2 ".repeat(100);
        let body = one.seal("change 5", text.as_bytes()).unwrap();
        assert!(body.len() < 200, "{}", body.len());
        assert_ne!(body, one.seal("change 5", text.as_bytes()).unwrap());
        assert_eq!(same.open("change 5", &body).unwrap(), text.as_bytes());
        let why =
            |key: &Key, what: &str, body: &[u8]| key.open(what, body).unwrap_err().to_string();
        assert!(why(&other, "change 5", &body).contains("another key"));
        assert!(why(&same, "change 6", &body).contains("another key"));
        assert!(why(&Key::none(), "change 5", &body).contains("give --cluster-key-file"));
        let plain = Key::none().seal("change 5", b"x").unwrap();
        assert_eq!(Key::none().open("change 5", &plain).unwrap(), b"x");
        assert!(why(&one, "change 5", &plain).contains("is not sealed"));
        assert!(why(&one, "change 5", &body[..20]).contains("another key"));
        assert!(why(&one, "change 5", &[]).contains("not of a version"));
    }

    #[test]
    fn a_key_is_made_once_and_read_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        make_key(&path).unwrap();
        assert!(make_key(&path).is_err());
        assert!(Key::read(&path).unwrap().seals());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Key::read(&path).unwrap_err().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        assert!(Key::read(&path).is_ok(), "as a mounted Secret has it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "abc").unwrap();
        assert!(Key::read(&path).unwrap_err().contains("holds no key"));
    }
}
