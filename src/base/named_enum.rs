//! Enums that a user names on the command line or in a config file.

use std::ffi::OsStr;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command};

use super::error::Error;

/// Parses a named enum of the command line as a file's is parsed, with the same errors, and tells clap the names for the help.
/// clap's `ValueEnum` would refuse other names with an error of its own, which does not say what is unknown.
#[derive(Clone)]
pub struct NamedEnumParser<T> {
    values: Vec<PossibleValue>,
    of: PhantomData<T>,
}

impl<T> NamedEnumParser<T> {
    /// For an enum with these values.
    pub fn new(values: Vec<PossibleValue>) -> Self {
        NamedEnumParser { values, of: PhantomData }
    }
}

impl<T: FromStr<Err = Error> + Clone + Send + Sync + 'static> TypedValueParser for NamedEnumParser<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        T::from_str.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values.iter().cloned()))
    }
}

/// Defines an enum whose variants have one spelling each, used by the command line, config files, CSV and hashes
/// alike: `name()`, `ALL`, `Display`, `FromStr` (with the nearest known name in the error), serde and a parser for clap. The
/// variants' doc comments are the command line's help.
macro_rules! named_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident: $what:literal { $( $(#[doc = $doc:literal])* $variant:ident = $text:literal, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name { $( $(#[doc = $doc])* $variant, )+ }

        impl $name {
            /// Every variant, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one spelling used on the command line, in files and in tables.
            pub const fn name(self) -> &'static str {
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

        impl clap::builder::ValueParserFactory for $name {
            type Parser = $crate::base::named_enum::NamedEnumParser<Self>;

            fn value_parser() -> Self::Parser {
                $crate::base::named_enum::NamedEnumParser::new(vec![
                    $( clap::builder::PossibleValue::new($text).help(concat!($($doc),*).trim().trim_end_matches('.')) ),+
                ])
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
    use clap::Parser;

    named_enum! {
        enum Fruit: "fruit" {
            /// Round,
            /// and red.
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

    #[derive(Parser)]
    struct Cli {
        #[arg(long, default_value_t = Fruit::Pear)]
        fruit: Fruit,
    }

    #[test]
    fn the_command_line_lists_the_names_and_refuses_others_as_files_do() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["cli"], args].concat());
        assert_eq!(parse(&[]).unwrap().fruit, Fruit::Pear);
        assert_eq!(parse(&["--fruit", "quince"]).unwrap().fruit, Fruit::Quince);
        let error = parse(&["--fruit", "peer"]).err().unwrap().to_string();
        assert!(error.contains(&"peer".parse::<Fruit>().unwrap_err().to_string()), "{error}");
        let help = parse(&["--help"]).err().unwrap().to_string();
        for expected in ["red-apple: Round, and red", "pear", "quince"] {
            assert!(help.contains(expected), "{help}");
        }
    }
}
