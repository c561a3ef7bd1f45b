//! Addresses that some software may take for a registered one: written by hand what attackers would like, and
//! in a system everything that is one small change away.

use std::collections::BTreeSet;

/// What the client has registered.
pub const REGISTERED: [&str; 4] = [
    "https://good.example/callback",
    "https://good.example/callback?tenant=acme",
    "https://app.good.example:8443/deep/er/callback",
    "http://127.0.0.1:8123/done",
];

/// Written by hand: where attackers would like to go.
const BY_HAND: [&str; 69] = [
    " ",
    "/",
    "//",
    "/callback",
    "callback",
    "?",
    "#",
    "*",
    "null",
    "about:blank",
    "about:srcdoc",
    "javascript:alert(1)",
    "javascript://good.example/callback%0aalert(1)",
    "JaVaScRiPt:alert(document.cookie)",
    "java\tscript:alert(1)",
    "\u{1}javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "vbscript:msgbox(1)",
    "file:///etc/passwd",
    "blob:https://good.example/callback",
    "filesystem:https://good.example/callback",
    "view-source:https://good.example/callback",
    "ftp://good.example/callback",
    "ws://good.example/callback",
    "mailto:admin@good.example",
    "urn:ietf:wg:oauth:2.0:oob",
    "urn:ietf:wg:oauth:2.0:oob:auto",
    "com.good.example:/callback",
    "intent://good.example/callback#Intent;scheme=https;end",
    "https://evil.example",
    "https://evil.example/callback",
    "https://evil.example/https://good.example/callback",
    "https://evil.example/?https://good.example/callback",
    "https://evil.example/#https://good.example/callback",
    "https://evil.example/?next=https%3A%2F%2Fgood.example%2Fcallback",
    "https://good.example@evil",
    "https://good.example@evil.example/callback",
    "https://good.example:443@evil.example/callback",
    "https://good.example:@evil.example/callback",
    "https://good.example%40evil.example/callback",
    "https://good.example%2f@evil.example/callback",
    "https://good.example%00@evil.example/callback",
    "https://good.example\\@evil.example/callback",
    "https://evil.example\\@good.example/callback",
    "https://evil.example#@good.example/callback",
    "https://evil.example?@good.example/callback",
    "https://evil.example;@good.example/callback",
    "https://good.example&@evil.example/callback",
    "https://good.example.evil.example/callback",
    "https://good.example-evil.example/callback",
    "https://evilgood.example/callback",
    "https://evil.good.example/callback",
    "https://*.good.example/callback",
    "https://good.example:evil/callback",
    "https://good.example:0443/callback",
    "https://good.example:99999/callback",
    "https://[good.example]/callback",
    "https://[::1]/callback",
    "https://[::ffff:127.0.0.1]:8123/done",
    "http://[::1]:8123/done",
    "http://localhost:8123/done",
    "http://127.0.0.1/done",
    "http://127.0.0.1:8124/done",
    "http://127.1:8123/done",
    "http://2130706433:8123/done",
    "http://0x7f.0.0.1:8123/done",
    "http://127.000.000.001:8123/done",
    "http://0.0.0.0:8123/done",
];

/// Characters that look like ASCII ones, or that some software reads as such.
const LOOK_ALIKES: [(char, char); 14] = [
    ('o', 'о'),
    ('o', 'ο'),
    ('o', '0'),
    ('e', 'е'),
    ('a', 'а'),
    ('g', 'ɡ'),
    ('d', 'ԁ'),
    ('l', '1'),
    ('/', '／'),
    ('/', '∕'),
    ('.', '。'),
    ('.', '．'),
    (':', '：'),
    ('1', '１'),
];

/// What is put at the end, or at the beginning.
const ADDED: [&str; 34] = [
    "/",
    "//",
    ".",
    "..",
    "/..",
    "/../evil",
    "/.",
    "%2f",
    "%2F..%2Fevil",
    "%00",
    "\0",
    "%0d%0aset-cookie:x=1",
    "\r\nset-cookie: x=1",
    "\n",
    "\t",
    " ",
    "%20",
    "+",
    "?",
    "?x=1",
    "&x=1",
    "#",
    "#x",
    "#@evil.example",
    "@evil.example",
    ".evil.example",
    ";x",
    ";.css",
    "\\",
    "\\..\\evil",
    "\"><script>alert(1)</script>",
    "é",
    "\u{200b}",
    "\u{202e}",
];

/// What can be made of a registered URI by changing one of its parts.
fn parts_changed(uri: &str) -> Vec<String> {
    let (scheme, rest) = uri.split_once("://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let colon = if port.is_empty() { "" } else { ":" };
    let mut variants = Vec::new();
    for added in ADDED {
        variants.push(format!("{uri}{added}"));
        variants.push(format!("{added}{uri}"));
        variants.push(format!("{scheme}://{authority}{added}/{path}"));
        variants.push(format!("{scheme}://{added}{authority}/{path}"));
        variants.push(format!("{scheme}://{authority}/{added}{path}"));
    }
    let other_scheme = if scheme == "https" { "http" } else { "https" };
    for scheme in [
        other_scheme,
        "HTTPS",
        "HTTP",
        "hTtP",
        "",
        "httpss",
        "javascript",
        "data",
        "ftp",
    ] {
        variants.push(format!("{scheme}://{rest}"));
    }
    for slashes in [
        "", ":", ":/", ":///", ":////", ":\\\\", ":/\\", ":\\/", "://\\", ":/ /", ":\t//",
    ] {
        variants.push(format!("{scheme}{slashes}{rest}"));
    }
    for other in [
        "1",
        "80",
        "443",
        "444",
        "8123",
        "8443",
        "0",
        "65536",
        "-1",
        "",
        " 443",
        "443 ",
        "443.evil.example",
    ] {
        variants.push(format!("{scheme}://{host}:{other}/{path}"));
    }
    for user in [
        "x",
        "x:y",
        "",
        ":",
        "evil.example",
        "evil.example%2f",
        "evil.example\\",
        "evil.example/",
        "%40",
    ] {
        variants.push(format!("{scheme}://{user}@{authority}/{path}"));
    }
    for way in [
        "./",
        "../",
        "x/../",
        "%2e/",
        "%2e%2e/",
        "..%2f",
        "..\\",
        "..;/",
        "//",
        "\\",
        "%5c",
        "%252e%252e%252f",
    ] {
        variants.push(format!("{scheme}://{authority}/{way}{path}"));
    }
    for second in [
        ",https://evil.example/",
        " https://evil.example/",
        "\thttps://evil.example/",
        "|https://evil.example/",
    ] {
        variants.push(format!("{uri}{second}"));
    }
    variants.extend([
        format!("{scheme}://{host}{colon}{port}"),
        format!("{scheme}://www.{authority}/{path}"),
        format!("{scheme}://{}/{path}", authority.to_uppercase()),
        format!("{scheme}://{authority}/{}", path.to_uppercase()),
        format!("{scheme}://xn--{authority}/{path}"),
        format!("{scheme}://[{host}]{colon}{port}/{path}"),
        format!("<{uri}>"),
        format!("\"{uri}\""),
        format!("{uri}{}", "/a".repeat(2000)),
        format!("{uri}?{}", "a".repeat(6000)),
    ]);
    variants
}

/// What can be made of it by changing one of its characters, or by leaving some out.
fn characters_changed(uri: &str) -> Vec<String> {
    let mut variants = Vec::new();
    for (ascii, look_alike) in LOOK_ALIKES {
        variants.push(uri.replace(ascii, &look_alike.to_string()));
        variants.push(uri.replacen(ascii, &look_alike.to_string(), 1));
    }
    // Each character in capitals, or percent-encoded once or twice.
    for (at, c) in uri.char_indices() {
        let (before, after) = (&uri[..at], &uri[at + c.len_utf8()..]);
        variants.push(format!("{before}{}{after}", c.to_ascii_uppercase()));
        variants.push(format!("{before}%{:02x}{after}", c as u32));
        variants.push(format!("{before}%25{:02x}{after}", c as u32));
        variants.push(format!("{before}{after}"));
        variants.push(format!("{before}{c}{c}{after}"));
    }
    // Every beginning and every end of it.
    for at in 1..uri.len() {
        variants.push(uri[..at].to_owned());
        variants.push(uri[at..].to_owned());
    }
    variants
}

/// All of them, without those that are registered.
pub fn hostile() -> BTreeSet<String> {
    let mut hostile: BTreeSet<_> = BY_HAND.iter().map(ToString::to_string).collect();
    hostile.extend(characters_changed(REGISTERED[0]));
    hostile.extend(REGISTERED.into_iter().flat_map(parts_changed));
    hostile.retain(|uri| !REGISTERED.contains(&&**uri));
    hostile
}
