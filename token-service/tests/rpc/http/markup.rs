//! The markup of a page, as far as it matters to an attacker: which elements there are, and which
//! attributes they have.

/// The elements that pages are made of. None of them runs or loads anything but `link`.
const ELEMENTS: [&str; 51] = [
    "!doctype",
    "a",
    "bdi",
    "blockquote",
    "body",
    "button",
    "circle",
    "code",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "em",
    "fieldset",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "head",
    "header",
    "hr",
    "html",
    "input",
    "kbd",
    "label",
    "legend",
    "li",
    "link",
    "main",
    "meta",
    "nav",
    "ol",
    "p",
    "path",
    "section",
    "small",
    "span",
    "strong",
    "summary",
    "svg",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "time",
    "title",
    "tr",
    "ul",
];

/// A tag: the element's name, and its attributes' names and values.
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
}

/// Asserts that a page is made of harmless elements, that no attribute runs anything, and that its text
/// and its attributes' values are escaped.
#[track_caller]
pub fn assert_harmless(body: &str) {
    for tag in tags(body) {
        assert!(ELEMENTS.contains(&tag.name), "<{}> in {body}", tag.name);
        for (name, value) in tag.attributes {
            let runs = name.starts_with("on") || matches!(name, "style" | "srcdoc" | "formaction" | "ping");
            assert!(!runs, "<{} {name}> in {body}", tag.name);
            let harmless = match name {
                "src" => false,
                "href" if tag.name == "link" => value == "data:," || value.starts_with("/accord.css?"),
                "href" | "action" => {
                    value.starts_with("https://")
                        || (value.starts_with('/') && !value.starts_with("//"))
                        || value.starts_with("http://127.0.0.1")
                        || value.starts_with('#')
                }
                "http-equiv" => value == "refresh",
                _ => true,
            };
            assert!(harmless, "<{} {name}={value:?}> in {body}", tag.name);
        }
    }
}

/// The tags of a page, but for those that end an element. Panics if the page is not well-formed.
fn tags(body: &str) -> impl Iterator<Item = Tag<'_>> {
    body.split('<').skip(1).filter_map(|rest| {
        let (tag, text) = rest
            .split_once('>')
            .unwrap_or_else(|| panic!("<{rest} has no end"));
        assert!(!text.contains('>'), "{text} is not escaped");
        if tag.starts_with('/') {
            return None;
        }
        let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_matches([' ', '/', '\n']);
            let end = rest.find([' ', '=']).unwrap_or(rest.len());
            let (attribute, after) = rest.split_at(end);
            if attribute.is_empty() {
                break;
            }
            let (value, after) = match after.strip_prefix("=\"") {
                Some(quoted) => quoted
                    .split_once('"')
                    .unwrap_or_else(|| panic!("{quoted} has no end")),
                None => ("", after),
            };
            assert!(!value.contains(['\'', '<']), "{value} is not escaped");
            attributes.push((attribute, value));
            rest = after;
        }
        let name = if name.eq_ignore_ascii_case("!doctype") {
            "!doctype"
        } else {
            name
        };
        Some(Tag { name, attributes })
    })
}

#[test]
fn executable_markup_is_found() {
    let refused = |body: &str| std::panic::catch_unwind(|| assert_harmless(body)).is_err();
    for harmless in [
        "<p class=\"lead\">Text &#60;script&#62; onload=alert(1)</p>",
        "<input type=\"text\" value=\"&#34; onfocus=x\" required><br-less>"
            .split("<br")
            .next()
            .unwrap(),
        "<a href=\"https://partner.example/?a=b\">x</a>",
        "<!DOCTYPE html>",
    ] {
        assert!(!refused(harmless), "{harmless}");
    }
    for harmful in [
        "<script>",
        "<img src=\"x\">",
        "<p onclick=\"x\">",
        "<p style=\"x\">",
        "<a href=\"javascript:x\">",
        "<a href=\"//evil.example\">",
        "<form action=\"https",
        "<input value=\"\" onfocus=\"x\">",
        "<p>a > b</p>",
        "<link rel=\"stylesheet\" href=\"https://evil.example/x.css\">",
    ] {
        assert!(refused(harmful), "{harmful}");
    }
}
