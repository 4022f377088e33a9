//! How values are written for another process or a later version of the program: one version byte and a
//! MessagePack value with named fields. Unknown fields are skipped, missing ones take their default.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version byte. It changes only if a reader of the old one would misunderstand.
const VERSION: u8 = 1;

/// Encodes a value for a socket or a record.
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write_named(&mut bytes, value)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(bytes)
}

/// Decodes what [`encode`] made, in this version of the program or another.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => rmp_serde::from_slice(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Some((version, _)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("message version {version} is not known"),
        )),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_another_version_is_refused_by_name() {
        let error = decode::<()>(&[9, 0xc0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn fields_may_be_added_on_either_side() {
        #[derive(Serialize, serde::Deserialize, PartialEq, Debug)]
        struct Old {
            a: u32,
        }
        #[derive(Serialize, serde::Deserialize, PartialEq, Debug)]
        struct New {
            a: u32,
            #[serde(default)]
            b: Option<String>,
        }
        let from_new = encode(&New {
            a: 1,
            b: Some("x".into()),
        })
        .unwrap();
        assert_eq!(decode::<Old>(&from_new).unwrap(), Old { a: 1 });
        let from_old = encode(&Old { a: 2 }).unwrap();
        assert_eq!(decode::<New>(&from_old).unwrap(), New { a: 2, b: None });
    }
}
