//! A page as a browser reads it: its start tags, and its forms.

use std::collections::BTreeMap;

/// An element's start tag, read as a browser would: quotes hold an attribute's value together.
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) attributes: BTreeMap<String, String>,
}

impl Tag {
    pub(super) fn get(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute).map(String::as_str)
    }
}

/// The start tags of a page, in their order.
pub(super) fn tags(html: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let mut quote = None;
        let end = rest
            .find(|c| match (quote, c) {
                (None, '"' | '\'') => {
                    quote = Some(c);
                    false
                }
                (Some(open), c) if c == open => {
                    quote = None;
                    false
                }
                (None, '>') => true,
                _ => false,
            })
            .expect("a tag ends");
        let (tag, after) = rest.split_at(end);
        rest = after;
        if tag.starts_with(['/', '!']) {
            continue;
        }
        found.push(tag_of(tag.trim_end_matches('/')));
    }
    found
}

fn tag_of(tag: &str) -> Tag {
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    let mut attributes = BTreeMap::new();
    while !rest.trim().is_empty() {
        rest = rest.trim_start();
        let end = rest.find(['=', ' ', '\n']).unwrap_or(rest.len());
        let key = rest[..end].to_ascii_lowercase();
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(quoted) = rest.strip_prefix("=\"") {
            let (inside, after) = quoted.split_once('"').expect("a value ends");
            value = unescaped(inside);
            rest = after;
        } else if rest.starts_with('=') {
            panic!("{key} has no quotes in <{tag}>");
        }
        assert!(
            attributes.insert(key.clone(), value).is_none(),
            "{key} twice in <{tag}>"
        );
    }
    Tag {
        name: name.to_ascii_lowercase(),
        attributes,
    }
}

/// Text as it was before it was escaped.
pub(super) fn unescaped(text: &str) -> String {
    [
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#38;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Each form's address, followed by the names of its fields in their order.
pub(super) fn forms(html: &str) -> Vec<String> {
    let mut forms: Vec<String> = Vec::new();
    for tag in tags(html) {
        if tag.name == "form" {
            assert_eq!(tag.get("method"), Some("post"));
            forms.push(tag.get("action").unwrap().to_owned());
        } else if let (Some(form), Some(name)) = (forms.last_mut(), tag.get("name")) {
            form.push(' ');
            form.push_str(name);
        }
    }
    forms
}

/// The start tag of the element with this id.
pub(super) fn input(html: &str, id: &str) -> Tag {
    tags(html)
        .into_iter()
        .find(|tag| tag.get("id") == Some(id))
        .unwrap()
}
