//! The measured start-up variables and their normal forms. No I/O.

use serde::{Deserialize, Serialize};

/// What a start-up variable may not be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {expected}, got {got:?}")]
pub struct InvalidVariable {
    name: &'static str,
    expected: &'static str,
    got: String,
}

/// The start-up variables that a manifest fixes, in their normal form; None: the manifest does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Variables {
    /// Which shared objects may be mapped after the start: `0`, `1` or `2`.
    #[serde(
        default,
        deserialize_with = "super::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub scone_allow_dlopen: Option<String>,
    /// Whether processes may be made: `0` or `1`.
    #[serde(
        default,
        deserialize_with = "super::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub scone_fork: Option<String>,
    /// The size of the heap in bytes.
    #[serde(
        default,
        deserialize_with = "super::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub scone_heap: Option<String>,
    /// The size of a thread's stack in bytes.
    #[serde(
        default,
        deserialize_with = "super::present",
        skip_serializing_if = "Option::is_none"
    )]
    pub scone_stack: Option<String>,
}

/// The normal form of a variable's value, or None if it is no value of that variable.
type Normalise = fn(&str) -> Option<String>;

impl Variables {
    /// These variables, each that is present replaced by what `environment` has for it, in normal form.
    ///
    /// A variable that is not present stays absent: it is not measured, so it must not count.
    pub fn overridden(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidVariable> {
        self.map(|name, value, expected, normalise| {
            let Some(got) = environment(name) else {
                return Ok(value.to_owned());
            };
            normalise(&got).ok_or(InvalidVariable {
                name,
                expected,
                got,
            })
        })
    }

    /// Refuses values that are not in normal form.
    pub fn check(&self) -> Result<(), InvalidVariable> {
        self.map(|name, value, expected, normalise| match normalise(value) {
            Some(normal) if normal == value => Ok(normal),
            _ => Err(InvalidVariable {
                name,
                expected,
                got: value.to_owned(),
            }),
        })
        .map(drop)
    }

    fn map(
        &self,
        change: impl Fn(&'static str, &str, &'static str, Normalise) -> Result<String, InvalidVariable>,
    ) -> Result<Self, InvalidVariable> {
        let one = |name, value: &Option<String>, expected, normalise| {
            value
                .as_deref()
                .map(|value| change(name, value, expected, normalise))
                .transpose()
        };
        Ok(Self {
            scone_allow_dlopen: one(
                ALLOW_DLOPEN,
                &self.scone_allow_dlopen,
                "0, 1 or 2",
                |text| digit(text, '2'),
            )?,
            scone_fork: one(FORK, &self.scone_fork, "0 or 1", |text| digit(text, '1'))?,
            scone_heap: one(HEAP, &self.scone_heap, SIZE, size)?,
            scone_stack: one(STACK, &self.scone_stack, SIZE, size)?,
        })
    }
}

const ALLOW_DLOPEN: &str = "SCONE_ALLOW_DLOPEN";
const FORK: &str = "SCONE_FORK";
const HEAP: &str = "SCONE_HEAP";
const STACK: &str = "SCONE_STACK";
const SIZE: &str = "a number of bytes, or one with K, M or G behind it";

fn digit(text: &str, last: char) -> Option<String> {
    let mut characters = text.chars();
    let first = characters.next()?;
    (characters.next().is_none() && ('0'..=last).contains(&first)).then(|| text.to_owned())
}

/// The decimal number of bytes of `64M`, `1g`, `4096`: ASCII digits, then one of K, M, G (powers of 1024, any case) or nothing; above zero, below 2^64.
fn size(text: &str) -> Option<String> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (bytes > 0).then(|| bytes.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_become_bytes() {
        for (text, bytes) in [
            ("1G", "1073741824"),
            ("64M", "67108864"),
            ("256m", "268435456"),
            ("4k", "4096"),
            ("8192", "8192"),
            ("007", "7"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(size(text).as_deref(), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "M",
            "0",
            "0G",
            "-1",
            "+1",
            "1.5G",
            "1 G",
            "1T",
            "1GB",
            "18446744073709551616",
            "18014398509481984K",
            "１",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn only_present_variables_are_overridden() {
        let variables = Variables {
            scone_heap: Some("67108864".into()),
            ..Variables::default()
        };
        let environment = |name: &str| match name {
            "SCONE_HEAP" => Some("1G".to_owned()),
            _ => Some("1".to_owned()),
        };
        let expected = Variables {
            scone_heap: Some("1073741824".into()),
            ..Variables::default()
        };
        assert_eq!(variables.overridden(environment), Ok(expected));
    }

    #[test]
    fn an_override_that_is_no_value_is_refused_by_name() {
        let variables = Variables {
            scone_fork: Some("1".into()),
            ..Variables::default()
        };
        let error = variables
            .overridden(|_| Some("yes".to_owned()))
            .unwrap_err();
        assert_eq!(error.to_string(), "SCONE_FORK is 0 or 1, got \"yes\"");
    }

    #[test]
    fn values_out_of_normal_form_are_refused() {
        let variables = Variables {
            scone_stack: Some("1M".into()),
            ..Variables::default()
        };
        assert!(variables.check().is_err());
    }

    proptest! {
        #[test]
        fn the_normal_form_is_a_fixed_point(text in "[0-9]{1,20}[kKmMgG]?") {
            if let Some(normal) = size(&text) {
                prop_assert_eq!(size(&normal), Some(normal.clone()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = (size(&text), digit(&text, '2'));
        }
    }
}
