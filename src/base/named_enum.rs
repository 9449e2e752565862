//! Enums that a user names on the command line or in a config file.

/// Defines an enum whose variants have one spelling each, used by the command line, config files, CSV and hashes
/// alike: `name()`, `ALL`, `Display`, `FromStr` (with the nearest known name in the error) and serde.
macro_rules! named_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident: $what:literal { $( $(#[$vmeta:meta])* $variant:ident = $text:literal, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name { $( $(#[$vmeta])* $variant, )+ }

        impl $name {
            /// Every variant, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one spelling used on the command line, in files and in tables.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::base::error::Error;

            fn from_str(text: &str) -> $crate::base::error::Result<Self> {
                Self::ALL.iter().copied().find(|v| v.name() == text).ok_or_else(|| {
                    $crate::base::error::Error::unknown($what, text, Self::ALL.iter().map(|v| v.name()))
                })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use named_enum;

#[cfg(test)]
mod tests {
    named_enum! {
        enum Fruit: "fruit" {
            RedApple = "red-apple",
            Pear = "pear",
            Quince = "quince",
        }
    }

    #[test]
    fn every_variant_is_read_as_it_is_written() {
        assert_eq!(Fruit::ALL, [Fruit::RedApple, Fruit::Pear, Fruit::Quince]);
        for (fruit, name) in Fruit::ALL.iter().zip(["red-apple", "pear", "quince"]) {
            assert_eq!((fruit.name(), fruit.to_string().as_str(), name.parse().ok()), (name, name, Some(*fruit)));
            let json = serde_json::to_string(fruit).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<Fruit>(&json).unwrap(), *fruit);
            // A reader hands out strings of its own.
            assert_eq!(serde_json::from_reader::<_, Fruit>(json.as_bytes()).unwrap(), *fruit);
        }
        assert_eq!(format!("{:>6}|{:<6}|", Fruit::Pear, Fruit::Pear), "  pear|pear  |");
    }

    #[test]
    fn other_words_are_refused_with_the_nearest_name() {
        for word in ["peer", "Pear", "pear ", ""] {
            let error = word.parse::<Fruit>().unwrap_err().to_string();
            assert!(error.contains("fruit") && error.contains(&format!("'{word}'")), "{error}");
        }
        assert!("peer".parse::<Fruit>().unwrap_err().to_string().contains("'pear'"));
        assert!(serde_json::from_str::<Fruit>("\"peer\"").unwrap_err().to_string().contains("fruit 'peer'"));
    }
}
