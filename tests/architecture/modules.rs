//! The modules of the three crates, and the file that defines a name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Expr, ExprLit, File, Item, Lit, Meta, MetaNameValue};

use crate::source::{Source, is_for_tests};

/// Sources by their path, with `/` between folders.
pub type Tree = BTreeMap<String, String>;

/// The crates by the names that code uses, and their folders.
pub const CRATES: [(&str, &str); 3] = [
    ("accord", "src"),
    ("registry_service", "registry-service/src"),
    ("token_service", "token-service/src"),
];

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// An item of this file.
    File(String),
    /// The path in another crate.
    Extern(Vec<String>),
    /// A module, by its number.
    Module(usize),
}

enum Name {
    Item,
    Module(usize),
    Import(Vec<String>),
}

struct Module {
    file: String,
    parent: Option<usize>,
    names: HashMap<String, Vec<Name>>,
    globs: Vec<Vec<String>>,
    /// What macros that define items mention: any of it may be an item's name.
    in_macros: BTreeSet<String>,
    /// Made by `tonic::include_proto!`.
    generated: bool,
}

/// All modules, and the code of their files.
#[derive(Default)]
pub struct Modules {
    modules: Vec<Module>,
    roots: HashMap<String, usize>,
    /// The code of the files that are not for tests alone, and the module that each file is.
    pub sources: BTreeMap<String, (usize, Source)>,
    /// The files for tests alone.
    pub tests: BTreeSet<String>,
}

impl Modules {
    pub fn load(tree: &Tree) -> Self {
        let mut all = Self::default();
        for (name, folder) in CRATES {
            for root in ["lib.rs", "main.rs"] {
                let file = format!("{folder}/{root}");
                if tree.contains_key(&file) {
                    let module = all.file(tree, &file, None, folder, false);
                    all.roots.entry(name.to_owned()).or_insert(module);
                }
            }
        }
        all.name_imports();
        all
    }

    /// Adds a file as a module, and the modules that it declares; `folder` holds their files.
    fn file(&mut self, tree: &Tree, file: &str, parent: Option<usize>, folder: &str, test: bool) -> usize {
        let text = tree
            .get(file)
            .unwrap_or_else(|| panic!("{file} is declared but not there"));
        let module = self.module(file, parent);
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
        let parsed: File = syn::parse2(tokens.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.items(tree, module, parsed.items, folder, test);
        if test {
            self.tests.insert(file.to_owned());
        } else {
            self.sources
                .insert(file.to_owned(), (module, Source::read(tokens)));
        }
        module
    }

    fn module(&mut self, file: &str, parent: Option<usize>) -> usize {
        self.modules.push(Module {
            file: file.to_owned(),
            parent,
            names: HashMap::new(),
            globs: Vec::new(),
            in_macros: BTreeSet::new(),
            generated: false,
        });
        self.modules.len() - 1
    }

    fn items(&mut self, tree: &Tree, module: usize, items: Vec<Item>, folder: &str, test: bool) {
        for item in items {
            let name = match item {
                Item::Const(item) => item.ident,
                Item::Enum(item) => item.ident,
                Item::Fn(item) => item.sig.ident,
                Item::Static(item) => item.ident,
                Item::Struct(item) => item.ident,
                Item::Trait(item) => item.ident,
                Item::TraitAlias(item) => item.ident,
                Item::Type(item) => item.ident,
                Item::Union(item) => item.ident,
                Item::Macro(item) => match item.ident {
                    Some(name) => name,
                    None => {
                        self.modules[module].generated |= item
                            .mac
                            .path
                            .segments
                            .last()
                            .is_some_and(|last| last.ident == "include_proto");
                        self.modules[module].in_macros.extend(words(item.mac.tokens));
                        continue;
                    }
                },
                Item::Mod(item) => {
                    let name = item.ident.to_string();
                    let test = test
                        || item.attrs.iter().any(|attribute| {
                            attribute.path().is_ident("cfg") && is_for_tests(&attribute.meta)
                        });
                    let path = item
                        .attrs
                        .iter()
                        .find(|attribute| attribute.path().is_ident("path"));
                    let below = format!("{folder}/{name}");
                    let child = match (item.content, path) {
                        (Some((_, items)), _) => {
                            let file = self.modules[module].file.clone();
                            let child = self.module(&file, Some(module));
                            self.items(tree, child, items, &below, test);
                            child
                        }
                        (None, Some(path)) => {
                            let beside = &self.modules[module].file;
                            let file = joined(parent_folder(beside), &text_of(path));
                            self.file(tree, &file, Some(module), parent_folder(&file), test)
                        }
                        (None, None) => {
                            let file = format!("{below}.rs");
                            let file = if tree.contains_key(&file) {
                                file
                            } else {
                                format!("{below}/mod.rs")
                            };
                            self.file(tree, &file, Some(module), &below, test)
                        }
                    };
                    self.name(module, name, Name::Module(child));
                    continue;
                }
                _ => continue,
            };
            self.name(module, name.to_string(), Name::Item);
        }
    }

    fn name(&mut self, module: usize, name: String, what: Name) {
        self.modules[module].names.entry(name).or_default().push(what);
    }

    /// Names what each `use` imports. A `use` in a function counts as one of its module.
    fn name_imports(&mut self) {
        let mut imports = Vec::new();
        for (module, source) in self.sources.values() {
            for import in &source.imports {
                imports.push((self.inner(*module, &import.within), import.clone()));
            }
        }
        for (module, import) in imports {
            match import.name {
                Some(name) => self.name(module, name, Name::Import(import.path)),
                None => self.modules[module].globs.push(import.path),
            }
        }
    }

    /// The inline module with this path.
    pub fn inner(&self, module: usize, within: &[String]) -> usize {
        within.iter().fold(module, |module, name| {
            match self.find(module, name, true, &mut Vec::new()) {
                Some(Target::Module(inner)) => inner,
                _ => module,
            }
        })
    }

    /// What a path in the code of `module` stands for.
    pub fn resolve(&self, module: usize, path: &[String]) -> Target {
        self.follow(module, path, &mut Vec::new())
    }

    /// The file of a module.
    pub fn file_of(&self, module: usize) -> &str {
        &self.modules[module].file
    }

    /// The file of the module that declares the file's own.
    pub fn parent(&self, file: &str) -> Option<&str> {
        let (module, _) = self.sources.get(file)?;
        self.modules[*module].parent.map(|parent| self.file_of(parent))
    }

    /// Whether `file` belongs to a module below that of `top`.
    pub fn is_below(&self, file: &str, top: &str) -> bool {
        self.parent(file)
            .is_some_and(|parent| parent == top || self.is_below(parent, top))
    }

    fn follow(&self, module: usize, path: &[String], seen: &mut Vec<(usize, String, bool)>) -> Target {
        // A path that starts with `::` names a crate.
        let named = path.strip_prefix(&[String::new()]).unwrap_or(path);
        let (first, rest) = named.split_first().expect("a path has a name");
        let crate_root = self
            .roots
            .get(first)
            .filter(|_| !self.modules[module].names.contains_key(first));
        let mut target = match (first.as_str(), crate_root) {
            (_, Some(root)) => Target::Module(*root),
            ("crate", _) => Target::Module(self.root(module)),
            ("self" | "super", _) => self.member(module, first, false, seen),
            _ if named.len() < path.len() => Target::Extern(vec![first.clone()]),
            _ => self
                .find(module, first, !rest.is_empty(), seen)
                .unwrap_or_else(|| Target::Extern(vec![first.clone()])),
        };
        for (position, name) in rest.iter().enumerate() {
            target = match target {
                Target::Module(module) => self.member(module, name, position + 1 < rest.len(), seen),
                Target::Extern(mut path) => {
                    path.push(name.clone());
                    Target::Extern(path)
                }
                // The rest is an associated item or a variant.
                Target::File(_) => break,
            };
        }
        target
    }

    /// What `name` stands for in a path that came to `module`.
    fn member(&self, module: usize, name: &str, more: bool, seen: &mut Vec<(usize, String, bool)>) -> Target {
        let this = &self.modules[module];
        match name {
            "self" => Target::Module(module),
            "super" => Target::Module(this.parent.unwrap_or(module)),
            _ => self
                .find(module, name, more, seen)
                .unwrap_or_else(|| Target::File(this.file.clone())),
        }
    }

    /// Looks a name up in a module: its items, modules and imports; then its globs; then its macros.
    /// One name may be an item and a module: with `more` to come in the path the module is meant.
    fn find(
        &self,
        module: usize,
        name: &str,
        more: bool,
        seen: &mut Vec<(usize, String, bool)>,
    ) -> Option<Target> {
        let key = (module, name.to_owned(), more);
        if seen.contains(&key) {
            return None;
        }
        seen.push(key);
        let this = &self.modules[module];
        let mut found: Vec<Target> = Vec::new();
        for what in this.names.get(name).into_iter().flatten() {
            found.push(match what {
                Name::Item => Target::File(this.file.clone()),
                Name::Module(module) => Target::Module(*module),
                Name::Import(path) => self.follow(module, path, seen),
            });
        }
        let mut outside = None;
        if found.is_empty() {
            for glob in &this.globs {
                match self.follow(module, glob, seen) {
                    Target::Module(module) => found.extend(self.find(module, name, more, seen)),
                    Target::Extern(path) => outside = Some([path, vec![name.to_owned()]].concat()),
                    Target::File(_) => {}
                }
            }
        }
        seen.pop();
        if found.is_empty() && this.in_macros.contains(name) {
            found.push(Target::File(this.file.clone()));
        }
        if found.is_empty() && this.generated {
            found.push(Target::Extern(vec!["prost".to_owned(), name.to_owned()]));
        }
        if found.is_empty() && name.starts_with(char::is_uppercase) {
            found.extend(outside.map(Target::Extern));
        }
        let best = found
            .iter()
            .position(|target| matches!(target, Target::Module(_)) == more);
        (!found.is_empty()).then(|| found.swap_remove(best.unwrap_or(0)))
    }

    fn root(&self, module: usize) -> usize {
        self.modules[module]
            .parent
            .map_or(module, |parent| self.root(parent))
    }
}

fn joined<'a>(mut folder: &'a str, mut path: &'a str) -> String {
    while let Some(rest) = path.strip_prefix("../") {
        (folder, path) = (parent_folder(folder), rest);
    }
    format!("{folder}/{path}")
}

fn parent_folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The value of `#[path = "..."]`.
fn text_of(attribute: &Attribute) -> String {
    match &attribute.meta {
        Meta::NameValue(MetaNameValue {
            value: Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            }),
            ..
        }) => text.value(),
        _ => panic!("`path` without a value"),
    }
}

/// All words in a macro's tokens.
fn words(tokens: TokenStream) -> Vec<String> {
    let words = tokens.into_iter().map(|token| match token {
        TokenTree::Group(group) => words(group.stream()),
        TokenTree::Ident(ident) => vec![ident.to_string()],
        _ => Vec::new(),
    });
    words.flatten().collect()
}
