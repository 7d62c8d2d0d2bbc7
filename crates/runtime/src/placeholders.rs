//! Placeholders of secrets in files: `$$SCONE::name:format$$` (docs/session-language.md). No I/O.

use std::collections::HashMap;

use zeroize::Zeroizing;

const START: &[u8] = b"$$SCONE::";
const END: &[u8] = b"$$";
/// How much of a malformed placeholder a message shows.
const SHOWN: usize = 80;

/// Values of placeholders, by their text.
pub type Values = HashMap<Vec<u8>, Zeroizing<Vec<u8>>>;

/// A placeholder that can't be replaced.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// It names no secret that this file may have, or a format that the secret has not.
    #[error("the session gives no value for {0}")]
    Unknown(String),
    /// It has no end.
    #[error("{0} has no end: placeholders are $$SCONE::name$$ or $$SCONE::name:format$$")]
    Endless(String),
}

/// Replaces each placeholder of a text by its value, once, from left to right.
///
/// # Errors
/// The first placeholder that has no value.
pub fn fill(text: &[u8], values: &Values) -> Result<Zeroizing<Vec<u8>>, PlaceholderError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut rest = text;
    while let Some(start) = find(rest, START) {
        let (before, placeholder) = rest.split_at(start);
        let end = find(&placeholder[START.len()..], END)
            .map(|end| START.len() + end + END.len())
            .ok_or_else(|| PlaceholderError::Endless(shown(placeholder)))?;
        let (placeholder, after) = placeholder.split_at(end);
        let value = values
            .get(placeholder)
            .ok_or_else(|| PlaceholderError::Unknown(shown(placeholder)))?;
        parts.extend([before, value]);
        rest = after;
    }
    parts.push(rest);
    // In one piece: a vector that grows leaves copies behind.
    Ok(Zeroizing::new(parts.concat()))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn shown(placeholder: &[u8]) -> String {
    let line = placeholder
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| {
                (
                    name.as_bytes().to_vec(),
                    Zeroizing::new(value.as_bytes().to_vec()),
                )
            })
            .collect()
    }

    fn filled(text: &str) -> Result<String, PlaceholderError> {
        let values = values(&[
            ("$$SCONE::key$$", "value"),
            ("$$SCONE::key:hex$$", "76"),
            ("$$SCONE::nested$$", "$$SCONE::key$$"),
            ("$$SCONE::dollars$$", "$$"),
        ]);
        fill(text.as_bytes(), &values).map(|text| String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn each_placeholder_is_replaced_once_from_left_to_right() {
        for (text, expected) in [
            ("", ""),
            ("no secret, $$ and $SCONE::", "no secret, $$ and $SCONE::"),
            ("a=$$SCONE::key$$\nb=$$SCONE::key:hex$$;", "a=value\nb=76;"),
            ("$$SCONE::key$$$$SCONE::key$$", "valuevalue"),
            ("$$SCONE::nested$$", "$$SCONE::key$$"),
            ("$$SCONE::dollars$$SCONE::key$$", "$$SCONE::key$$"),
            ("$$$SCONE::key$$", "$value"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_placeholder_without_value_is_an_error_that_names_it() {
        let unknown = |text: &str| PlaceholderError::Unknown(text.into());
        assert_eq!(
            filled("x $$SCONE::other$$ y"),
            Err(unknown("$$SCONE::other$$"))
        );
        assert_eq!(
            filled("$$SCONE::key:pem$$"),
            Err(unknown("$$SCONE::key:pem$$"))
        );
        assert_eq!(
            filled("$$SCONE::key$\nmore"),
            Err(PlaceholderError::Endless("$$SCONE::key$".into()))
        );
    }

    proptest! {
        #[test]
        fn text_without_placeholders_stays_as_it_is(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assume!(find(&text, START).is_none());
            prop_assert_eq!(&**fill(&text, &Values::new()).unwrap(), &text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[$SCONE:key]{0,40}") {
            let _ = filled(&text);
        }
    }
}
