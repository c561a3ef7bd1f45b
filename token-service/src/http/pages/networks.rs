//! The networks in a form: in CIDR notation, separated by spaces, commas or lines.

use accord::text::network::AllowedNetworks;

use crate::http::form::Form;

/// The name of the field.
pub(super) const FIELD: &str = "allowed_networks";

/// Reads the networks of a form, or returns what is wrong with the first one that is.
pub(super) fn read(form: &Form) -> Result<AllowedNetworks, String> {
    let separates = |c: char| c.is_whitespace() || c == ',' || c == ';';
    let texts = form.text(FIELD).split(separates).filter(|text| !text.is_empty());
    let texts: Vec<_> = texts.map(str::to_owned).collect();
    AllowedNetworks::parse(&texts).map_err(|violations| {
        let Some(first) = violations.iter().next() else {
            return "Check the networks.".to_owned();
        };
        let index = first.field.strip_prefix("allowed_networks[");
        let index = index.and_then(|rest| rest.strip_suffix(']')?.parse::<usize>().ok());
        match index.and_then(|index| texts.get(index)) {
            Some(text) => format!("“{text}” {}.", first.description),
            None => format!("The list {}.", first.description),
        }
    })
}

/// Writes networks as the field holds them.
pub(super) fn write(networks: &AllowedNetworks) -> String {
    networks.to_texts().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use url::form_urlencoded;

    use super::*;

    fn read_text(text: &str) -> Result<String, String> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair(FIELD, text)
            .finish();
        read(&Form::parse(form.as_bytes()).unwrap()).map(|networks| write(&networks))
    }

    #[test]
    fn networks_are_read_as_people_write_them() {
        for text in [
            "203.0.113.0/24 2001:db8::/32",
            " 203.0.113.0/24,2001:DB8::/32 ",
            "203.0.113.0/24\r\n2001:db8::/32;\r\n",
            "::ffff:203.0.113.0/120\t2001:db8::/32",
        ] {
            assert_eq!(
                read_text(text).unwrap(),
                "203.0.113.0/24 2001:db8::/32",
                "{text:?}"
            );
        }
        assert_eq!(read_text(" ,\r\n").unwrap(), "");
        assert_eq!(read_text("0.0.0.0/0 ::/0").unwrap(), "0.0.0.0/0 ::/0");
    }

    #[test]
    fn the_error_names_the_network_that_is_wrong() {
        for (text, expected) in [
            ("10.0.0.0/8 office", "“office” must be a network"),
            ("10.1.2.3/8", "“10.1.2.3/8” must have no bits"),
            ("10.0.0.0/8, 10.1.0.0/16", "“10.1.0.0/16” must not overlap"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let many: Vec<_> = (0..17).map(|n| format!("10.{n}.0.0/16")).collect();
        let error = read_text(&many.join(" ")).unwrap_err();
        assert_eq!(error, "The list must have at most 16 elements.");
    }
}
