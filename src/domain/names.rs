//! A list of names in one allocation: a job may have two hundred thousand names of two letters
//! each.
//!
//! Used for the structures of outputs. In JSON it is an array of texts.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};

/// A list of names, see the module.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Names {
    text: Box<str>,
    /// The end of each name in the text.
    ends: Box<[u32]>,
}

impl Names {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The total length in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start as usize..*end as usize])
    }

    /// Concatenates all names, with `separator` between them.
    pub fn join(&self, separator: &str) -> String {
        let mut joined = String::with_capacity(self.text.len() + self.len() * separator.len());
        for (place, name) in self.iter().enumerate() {
            if place > 0 {
                joined.push_str(separator);
            }
            joined.push_str(name);
        }
        joined
    }
}

impl<Name: AsRef<str>> FromIterator<Name> for Names {
    fn from_iter<All: IntoIterator<Item = Name>>(names: All) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for name in names {
            text.push_str(name.as_ref());
            // Bodies are far smaller than 4 GiB; beyond that, further names would be dropped.
            let Ok(end) = u32::try_from(text.len()) else { break };
            ends.push(end);
        }
        Self { text: text.into(), ends: ends.into() }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;
        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                let mut failure = None;
                let next = || match seq.next_element::<String>() {
                    Ok(name) => name,
                    Err(error) => {
                        failure = Some(error);
                        None
                    }
                };
                let names = std::iter::from_fn(next).collect();
                failure.map_or(Ok(names), Err)
            }
        }
        deserializer.deserialize_seq(NamesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_is_those_names() {
        for names in [&[][..], &[""], &["a"], &["", "ä", "", "tooth11", ""]] {
            let list: Names = names.iter().collect();
            assert_eq!(list.iter().collect::<Vec<_>>(), names);
            assert_eq!((list.len(), list.is_empty()), (names.len(), names.is_empty()));
            assert_eq!(list.join("+"), names.join("+"));
            let json = serde_json::to_string(&list).expect("JSON");
            assert_eq!(json, serde_json::to_string(names).expect("JSON"));
            assert_eq!(serde_json::from_str::<Names>(&json).expect("a list"), list);
        }
        assert_ne!(["ab", ""].iter().collect::<Names>(), ["a", "b"].iter().collect());
        assert!(serde_json::from_str::<Names>("[1]").is_err());
    }
}
