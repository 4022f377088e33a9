//! Strict JSON: bounded depth, and a repeated key is remembered instead of swallowed.
//!
//! It knows nothing of jobs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The most arrays and objects within one another.
pub(super) const DEPTH_MAX: usize = 64;

/// A JSON value.
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Value>),
    Object(Object),
}

/// A JSON number: an integer where it is whole and fits 64 bits, `3.0` and `1e2` included, as in JSON Schema.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Unsigned(u64),
    Negative(i64),
    Float(f64),
}

/// A JSON object, and the keys that it held more than once.
pub(super) struct Object {
    pub(super) members: BTreeMap<String, Value>,
    pub(super) repeated: Vec<String>,
}

/// Why there is no value.
pub(super) enum JsonError {
    Syntax(String),
    TooDeep,
}

/// Reads exactly one value from `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let too_deep = Cell::new(false);
    let seed = Seed {
        depth: 0,
        too_deep: &too_deep,
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(JsonError::Syntax("the body is empty".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| {
        if too_deep.get() {
            JsonError::TooDeep
        } else {
            JsonError::Syntax(error.to_string())
        }
    })
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    too_deep: &'a Cell<bool>,
}

impl Seed<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            self.too_deep.set(true);
            return Err(E::custom("nested too deep"));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

/// `-0` is not negative.
fn whole_or_zero(value: i64) -> Number {
    u64::try_from(value).map_or(Number::Negative(value), Number::Unsigned)
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(Number::Unsigned(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(whole_or_zero(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // What is whole is shown without fraction and exponent.
        let text = value.to_string();
        let whole = text.parse().map(Number::Unsigned);
        let whole = whole.or_else(|_| text.parse().map(whole_or_zero));
        Ok(Value::Number(whole.unwrap_or(Number::Float(value))))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let item = self.deeper()?;
        let mut items = Vec::new();
        while let Some(value) = sequence.next_element_seed(item)? {
            items.push(value);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let member = self.deeper()?;
        let mut object = Object {
            members: BTreeMap::new(),
            repeated: Vec::new(),
        };
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(member)?;
            match object.members.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(entry) => object.repeated.push(entry.key().clone()),
            }
        }
        Ok(Value::Object(object))
    }
}
