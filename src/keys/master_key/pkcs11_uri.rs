//! PKCS#11 URIs (RFC 7512): which key, in which token, by which module, with the PIN in which file.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

/// The attributes that are read. All are required.
const ATTRIBUTES: [&str; 4] = ["token", "object", "module-path", "pin-source"];

/// A URI such as `pkcs11:token=accord;object=registry?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin`.
/// `token` and `object` are labels. It never holds the PIN itself, because a command line is no secret.
#[derive(Clone, PartialEq, Eq, derive_more::Debug)]
#[debug("Pkcs11Uri {{ .. }}")]
pub struct Pkcs11Uri {
    values: [String; 4],
}

impl Pkcs11Uri {
    /// Parses a URI.
    ///
    /// # Errors
    /// The text of what is wrong, to follow the setting's name. It repeats no value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let path = path
            .strip_prefix("pkcs11:")
            .ok_or("must be a PKCS#11 URI (RFC 7512): pkcs11:token=...;object=...?module-path=...&pin-source=file:...")?;
        let mut values = <[String; 4]>::default();
        let pairs = path.split(';').chain(query.split('&'));
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or("has an attribute without a value")?;
            if name == "pin-value" {
                return Err("must not hold the PIN: name its file by pin-source".to_owned());
            }
            // An attribute that is ignored could be meant to tell two keys apart.
            let known = ATTRIBUTES.iter().position(|known| *known == name);
            let index = known
                .ok_or("has an unknown attribute: token, object, module-path and pin-source are known")?;
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| format!("has a {name} that is not UTF-8"))?;
            if !values[index].is_empty() {
                return Err(format!("has {name} twice"));
            }
            values[index] = value.into_owned();
        }
        let missing = ATTRIBUTES.iter().zip(&values).find(|(_, value)| value.is_empty());
        if let Some((name, _)) = missing {
            return Err(format!("has no {name}"));
        }
        let [_, _, module, pin_source] = &mut values;
        if let Some(file) = pin_source.strip_prefix("file:") {
            *pin_source = file.strip_prefix("//").unwrap_or(file).to_owned();
        }
        if !Path::new(&*module).is_absolute() || !Path::new(&*pin_source).is_absolute() {
            return Err("must name module-path and pin-source by absolute paths".to_owned());
        }
        Ok(Self { values })
    }

    /// Returns the token's label.
    pub fn token(&self) -> &str {
        &self.values[0]
    }

    /// Returns the key's label.
    pub fn object(&self) -> &str {
        &self.values[1]
    }

    /// Returns the path of the module, a shared library.
    pub fn module(&self) -> PathBuf {
        self.values[2].clone().into()
    }

    /// Returns the path of the file with the PIN.
    pub fn pin_file(&self) -> PathBuf {
        self.values[3].clone().into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_uri_names_key_token_module_and_the_file_of_the_pin() {
        for pin in [
            "/run/pin%20file",
            "file:/run/pin%20file",
            "file:///run/pin%20file",
        ] {
            let text =
                format!("pkcs11:object=token%3Bkeys;token=My%20HSM?pin-source={pin}&module-path=/lib/p11.so");
            let uri = Pkcs11Uri::parse(&text).unwrap();
            assert_eq!((uri.token(), uri.object()), ("My HSM", "token;keys"));
            assert_eq!(uri.module(), Path::new("/lib/p11.so"));
            assert_eq!(uri.pin_file(), Path::new("/run/pin file"));
            assert_eq!(format!("{uri:?}"), "Pkcs11Uri { .. }");
        }
    }

    #[test]
    fn an_incomplete_uri_and_one_with_a_pin_are_rejected_without_their_values() {
        let good = "pkcs11:token=t0ken;object=0bject?module-path=/m0dule&pin-source=/p1n";
        assert!(Pkcs11Uri::parse(good).is_ok());
        for (bad, why) in [
            ("file:/key", "must be a PKCS#11 URI"),
            ("", "must be a PKCS#11 URI"),
            ("pkcs11:", "has no token"),
            (
                "pkcs11:token=t0ken;object=0bject?module-path=/m0dule",
                "has no pin-source",
            ),
            (
                "pkcs11:token=t0ken?module-path=/m0dule&pin-source=/p1n",
                "has no object",
            ),
            (&format!("{good}&pin-value=1234"), "must not hold the PIN"),
            (&format!("{good}&max-threads=1"), "unknown attribute"),
            (&format!("{good}&module-path=/m0dule"), "has module-path twice"),
            (&format!("{good}&x"), "without a value"),
            (
                "pkcs11:token=%ff;object=0bject?module-path=/m0dule&pin-source=/p1n",
                "not UTF-8",
            ),
            (
                "pkcs11:token=t0ken;object=0bject?module-path=m0dule&pin-source=/p1n",
                "absolute",
            ),
            (
                "pkcs11:token=t0ken;object=0bject?module-path=/m0dule&pin-source=file:p1n",
                "absolute",
            ),
        ] {
            let error = Pkcs11Uri::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
            for value in ["t0ken", "0bject", "m0dule", "p1n", "1234"] {
                assert!(!error.contains(value), "{bad}: {error}");
            }
        }
    }
}
