//! What a source file says: its lines of code, its imports, its paths and its SQL. Code for tests
//! alone is skipped: items and files below a `cfg` that holds only for `test` or `feature = "testing"`.
//!
//! Reads tokens instead of the syntax tree, so that a path inside a macro counts like any other.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};
use syn::{Expr, ExprLit, ItemUse, Lit, LitStr, Meta, MetaList, Token, UseTree, punctuated::Punctuated};

/// A name that the code mentions, with the inline modules around it.
#[derive(Clone, Debug)]
pub struct Mention {
    pub within: Vec<String>,
    pub path: Vec<String>,
    pub line: usize,
    /// The first string in the parentheses that follow, of a call.
    pub argument: Option<String>,
}

/// One name of a `use`: what it imports, and as what. A glob has no name.
#[derive(Clone, Debug)]
pub struct Import {
    pub within: Vec<String>,
    pub path: Vec<String>,
    pub name: Option<String>,
    pub public: bool,
    pub line: usize,
}

/// The code of one file, or of some of its items.
#[derive(Default)]
pub struct Source {
    /// The lines with code: neither blank, comment nor test.
    pub lines: BTreeSet<usize>,
    pub imports: Vec<Import>,
    pub mentions: Vec<Mention>,
    /// The strings, each with its line.
    pub strings: Vec<(String, usize)>,
    within: Vec<String>,
}

impl Source {
    pub fn read(tokens: TokenStream) -> Self {
        let mut source = Self::default();
        source.walk(tokens);
        source
    }

    fn walk(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => self.attribute(&tokens, at),
                TokenTree::Ident(ident) => self.word(ident, &tokens, at),
                TokenTree::Group(group) => {
                    if group.delimiter() != Delimiter::None {
                        self.count(group.span_open());
                        self.count(group.span_close());
                    }
                    self.walk(group.stream());
                    at + 1
                }
                TokenTree::Literal(literal) => {
                    self.count(literal.span());
                    if let Some(text) = string(&tokens[at]) {
                        // Attributes name functions in strings, such as `#[serde(with = "crate::text")]`.
                        if text.starts_with("crate::") || text.starts_with("super::") {
                            let path = text.split("::").map(str::to_owned).collect();
                            self.mention(path, literal.span(), None);
                        }
                        self.strings.push((text, line(literal.span())));
                    }
                    at + 1
                }
                TokenTree::Punct(_) => self.next(&tokens, at),
            };
        }
    }

    /// Skips a doc comment, and an item for tests alone. The tokens of any other attribute count.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let Some((name, meta, end)) = attribute(tokens, at) else {
            return self.next(tokens, at);
        };
        match name.as_str() {
            "doc" => end,
            "cfg" if is_for_tests(&syn::parse2(meta).expect("a cfg")) => end_of_item(tokens, end),
            _ => self.next(tokens, at),
        }
    }

    /// Counts one token, and goes on behind it.
    fn next(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        self.count(tokens[at].span());
        at + 1
    }

    /// Reads what starts with a word: a `use`, an inline module, or a path.
    fn word(&mut self, ident: &Ident, tokens: &[TokenTree], at: usize) -> usize {
        let after = tokens.get(at + 1);
        if ident == "use" && !after.is_some_and(|next| is_punct(next, '<')) {
            let end = after_semicolon(tokens, at);
            let item: TokenStream = tokens[at..end].iter().cloned().collect();
            self.lines
                .extend(ident.span().start().line..=tokens[end - 1].span().end().line);
            let item: ItemUse = syn::parse2(item).expect("a use");
            let global: Vec<_> = item.leading_colon.map(|_| String::new()).into_iter().collect();
            self.import(&item.tree, &global, is_public(&tokens[..at]));
            return end;
        }
        if ident == "mod"
            && let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) = (after, tokens.get(at + 2))
        {
            for span in [ident.span(), body.span_open(), body.span_close()] {
                self.count(span);
            }
            self.within.push(plain(name));
            self.walk(body.stream());
            self.within.pop();
            return at + 3;
        }
        let mut path = vec![plain(ident)];
        let mut end = at + 1;
        self.count(ident.span());
        while let [first, second, TokenTree::Ident(next), ..] = &tokens[end..]
            && is_punct(first, ':')
            && is_punct(second, ':')
        {
            path.push(plain(next));
            self.count(next.span());
            end += 3;
        }
        let before = |back: usize, what: char| at >= back && is_punct(&tokens[at - back], what);
        if before(1, ':') && before(2, ':') {
            if before(3, '>') {
                return end; // The rest of a path such as `Vec::<T>::new`.
            }
            path.insert(0, String::new());
        }
        let call = match tokens.get(end) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => Some(group),
            _ => None,
        };
        if before(1, '.') {
            path.insert(0, ".".to_owned());
        }
        let is_definition = at > 0 && matches!(&tokens[at - 1], TokenTree::Ident(word) if word == "fn");
        let named = path.len() > 1 || call.is_some() || path[0].starts_with(char::is_uppercase);
        if named && !is_definition && !before(1, '\'') {
            let argument = call.and_then(|group| first_string(group.stream()));
            self.mention(path, ident.span(), argument);
        }
        end
    }

    fn mention(&mut self, path: Vec<String>, span: Span, argument: Option<String>) {
        let (within, line) = (self.within.clone(), line(span));
        self.mentions.push(Mention {
            within,
            path,
            line,
            argument,
        });
    }

    fn import(&mut self, tree: &UseTree, prefix: &[String], public: bool) {
        let (ident, name) = match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[plain(&path.ident)]].concat();
                return self.import(&path.tree, &prefix, public);
            }
            UseTree::Group(group) => {
                return group
                    .items
                    .iter()
                    .for_each(|tree| self.import(tree, prefix, public));
            }
            UseTree::Glob(_) => (None, None),
            UseTree::Name(name) => (Some(&name.ident), Some(plain(&name.ident))),
            UseTree::Rename(name) => (Some(&name.ident), Some(plain(&name.rename))),
        };
        let mut path = prefix.to_vec();
        path.extend(ident.map(plain).filter(|name| name != "self"));
        let name = name.map(|name| {
            if name == "self" {
                prefix[prefix.len() - 1].clone()
            } else {
                name
            }
        });
        let span = match tree {
            UseTree::Glob(glob) => glob.star_token.spans[0],
            _ => ident.map_or_else(Span::call_site, Ident::span),
        };
        let (within, line) = (self.within.clone(), line(span));
        self.imports.push(Import {
            within,
            path,
            name,
            public,
            line,
        });
    }

    fn count(&mut self, span: Span) {
        self.lines.extend(span.start().line..=span.end().line);
    }
}

/// The name of the attribute that starts here, its tokens, and where it ends.
fn attribute(tokens: &[TokenTree], at: usize) -> Option<(String, TokenStream, usize)> {
    let bang = usize::from(tokens.get(at + 1).is_some_and(|next| is_punct(next, '!')));
    match tokens.get(at + 1 + bang)? {
        TokenTree::Group(group) if is_punct(&tokens[at], '#') && group.delimiter() == Delimiter::Bracket => {
            let name = group.stream().into_iter().next()?.to_string();
            Some((name, group.stream(), at + bang + 2))
        }
        _ => None,
    }
}

/// Whether a `cfg` holds in builds of tests alone.
pub fn is_for_tests(cfg: &Meta) -> bool {
    !holds_outside_tests(cfg)
}

fn holds_outside_tests(cfg: &Meta) -> bool {
    let parts = |list: &MetaList| {
        let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        parts
            .expect("a list of conditions")
            .iter()
            .map(holds_outside_tests)
            .collect::<Vec<_>>()
    };
    match cfg {
        Meta::Path(path) => !path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("any") => parts(list).contains(&true),
        Meta::List(list) if list.path.is_ident("not") => true,
        Meta::List(list) => !parts(list).contains(&false),
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(value), ..
            }) => value.value() != "testing",
            _ => true,
        },
    }
}

/// Where the item, field or statement ends that starts here.
fn end_of_item(tokens: &[TokenTree], mut at: usize) -> usize {
    while let Some((_, _, end)) = tokens.get(at).and_then(|_| attribute(tokens, at)) {
        at = end;
    }
    let mut words = tokens[at..].iter().filter_map(|token| match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    });
    let word = words.find(|word| !matches!(word.as_str(), "pub" | "async" | "unsafe"));
    match (word.as_deref().unwrap_or_default(), words.next().as_deref()) {
        ("use" | "let" | "static" | "type", _) => after_semicolon(tokens, at),
        ("const", second) if second != Some("fn") => after_semicolon(tokens, at),
        (
            "const" | "fn" | "struct" | "enum" | "union" | "impl" | "mod" | "trait" | "extern"
            | "macro_rules",
            _,
        ) => after(tokens, at, |token| is_punct(token, ';') || is_braces(token)),
        _ => after(tokens, at, |token| is_punct(token, ',') || is_punct(token, ';')),
    }
}

fn after_semicolon(tokens: &[TokenTree], at: usize) -> usize {
    after(tokens, at, |token| is_punct(token, ';'))
}

fn after(tokens: &[TokenTree], at: usize, ends: impl Fn(&TokenTree) -> bool) -> usize {
    let end = tokens[at..].iter().position(ends);
    end.map_or(tokens.len(), |end| at + end + 1)
}

fn is_public(before: &[TokenTree]) -> bool {
    match before {
        [.., TokenTree::Ident(word), TokenTree::Group(_)] | [.., TokenTree::Ident(word)] => word == "pub",
        _ => false,
    }
}

fn is_punct(token: &TokenTree, what: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == what)
}

fn is_braces(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn plain(ident: &Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

fn line(span: Span) -> usize {
    span.start().line
}

fn string(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else {
        return None;
    };
    let is_string = literal.to_string().starts_with(['"', 'r']);
    is_string.then(|| {
        syn::parse2::<LitStr>(token.clone().into())
            .expect("a string")
            .value()
    })
}

fn first_string(tokens: TokenStream) -> Option<String> {
    tokens.into_iter().find_map(|token| match &token {
        TokenTree::Group(group) => first_string(group.stream()),
        _ => string(&token),
    })
}
