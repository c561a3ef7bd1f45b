//! What the sources must keep, and what is reported where they don't.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    circles::{Graph, knots, way},
    layers::{LAYERS, below, holds, layer},
    modules::{Modules, Target, Tree},
    source::Source,
};

/// Crates that a model does not import, and those that `error.rs` does not.
const BEYOND_MODEL: &str =
    "axum axum_extra prost prost_types sea_orm sea_orm_migration sqlx tonic tonic_types";
const BEYOND_ERROR: &str = "tonic tonic_types";

/// Entries that one folder may have.
const ENTRIES: usize = 16;

/// One rule broken: which, in which file or folder, by what.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: &'static str,
    pub from: String,
    pub to: String,
    pub line: usize,
    pub why: String,
}

impl Violation {
    fn new(rule: &'static str, from: &str, line: usize, to: &str, why: &str) -> Self {
        let [from, to, why] = [from, to, why].map(str::to_owned);
        Self {
            rule,
            from,
            to,
            line,
            why,
        }
    }

    /// What distinguishes violations. Not the line, because every edit moves it.
    pub fn key(&self) -> (&str, &str, &str) {
        (self.rule, &self.from, &self.to)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            from,
            to,
            line,
            why,
        } = self;
        write!(f, "[{rule}] {from}:{line} -> {to}: {why}")
    }
}

/// An import, or a path in the code.
struct Arrow {
    from: String,
    to: Target,
    line: usize,
    path: String,
}

impl Arrow {
    fn violation(&self, rule: &'static str, to: &str, why: &str) -> Violation {
        Violation::new(rule, &self.from, self.line, to, why)
    }
}

/// Everything that breaks a rule, once for each rule and pair of ends.
pub fn violations(tree: &Tree, modules: &Modules) -> Vec<Violation> {
    let mut found = Vec::new();
    // Circles of those arrows that nothing else is wrong with: of the others, one end is mended anyway.
    let mut rest = Vec::new();
    for arrow in arrows(modules) {
        match out_of_bounds(modules, &arrow).or_else(|| against_layers(&arrow)) {
            Some(violation) => found.push(violation),
            None => rest.push(arrow),
        }
    }
    found.extend(circles(modules, &rest));
    found.extend(
        modules
            .sources
            .iter()
            .flat_map(|(file, (module, source))| statements(modules, file, *module, source)),
    );
    found.extend(crowded_folders(tree));
    found.extend(without_place(tree, modules));
    found.sort_by(|a, b| (a.key(), a.line).cmp(&(b.key(), b.line)));
    found.dedup_by(|a, b| a.key() == b.key());
    found
}

/// The arrows from code that is not for tests alone, to files and other crates. A module that
/// re-exports what its own children define imports nothing by that.
fn arrows(modules: &Modules) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for (from, (module, source)) in &modules.sources {
        let mut add = |within: &[String], path: &[String], line: usize, glob: bool, public: bool| {
            let to = match modules.resolve(modules.inner(*module, within), path) {
                Target::Module(to) if glob => Target::File(modules.file_of(to).to_owned()),
                Target::Module(_) => return,
                to => to,
            };
            let own = matches!(&to, Target::File(to) if to == from || public && modules.is_below(to, from));
            if !own {
                arrows.push(Arrow {
                    from: from.clone(),
                    to,
                    line,
                    path: path.join("::"),
                });
            }
        };
        for import in &source.imports {
            add(
                &import.within,
                &import.path,
                import.line,
                import.name.is_none(),
                import.public,
            );
        }
        for mention in source.mentions.iter().filter(|mention| mention.path[0] != ".") {
            add(&mention.within, &mention.path, mention.line, false, false);
        }
    }
    arrows
}

/// What `model/` and `error.rs` may not import, and what nothing but tests may.
fn out_of_bounds(modules: &Modules, arrow: &Arrow) -> Option<Violation> {
    let (_, from) = layer(&arrow.from);
    match &arrow.to {
        Target::File(to) if modules.tests.contains(to) => {
            Some(arrow.violation("tests", to, &format!("`{}` is for tests alone", arrow.path)))
        }
        Target::File(to) if from == "model" && matches!(layer(to).1, "store" | "rpc") => {
            let why = format!(
                "`model` knows no `{}`, where `{}` is defined",
                layer(to).1,
                arrow.path
            );
            Some(arrow.violation("model", to, &why))
        }
        Target::Extern(path) => {
            let (rule, beyond) = match from {
                "model" => ("model", BEYOND_MODEL),
                "error" => ("error", BEYOND_ERROR),
                _ => return None,
            };
            let why = format!(
                "`{from}` may not import `{}`, here `{}`",
                path.join("::"),
                arrow.path
            );
            holds(beyond, &path[0]).then(|| arrow.violation(rule, &path[0], &why))
        }
        _ => None,
    }
}

/// An arrow that points back within a crate.
fn against_layers(arrow: &Arrow) -> Option<Violation> {
    let Target::File(to_file) = &arrow.to else {
        return None;
    };
    let ((folder, from), (to_folder, to)) = (layer(&arrow.from), layer(to_file));
    let layers = LAYERS.iter().find(|layers| layers.folder == folder)?;
    let why = format!(
        "`{from}` may not import `{to}`, where `{}` is defined",
        arrow.path
    );
    (folder == to_folder && !layers.may_import(from, to)).then(|| arrow.violation("layers", to_file, &why))
}

/// The arrows between files that import each other, directly or through others; those between a
/// module and its children are none of the reasons.
fn circles(modules: &Modules, arrows: &[Arrow]) -> Vec<Violation> {
    let mut graph = Graph::new();
    for arrow in arrows {
        if let Target::File(to) = &arrow.to {
            graph.entry(&arrow.from).or_default().insert(to);
        }
    }
    let mut found = Vec::new();
    for knot in knots(modules, &graph) {
        for arrow in arrows {
            let (from, Target::File(to)) = (arrow.from.as_str(), &arrow.to) else {
                continue;
            };
            let family = modules.is_below(from, to) || modules.is_below(to, from);
            if !family
                && knot
                    .get(from)
                    .is_some_and(|imports| imports.contains(to.as_str()))
            {
                let way = way(&knot, to, from).join(" -> ");
                let why = format!("`{}` is defined there, and leads back: {way}", arrow.path);
                found.push(arrow.violation("circle", to, &why));
            }
        }
    }
    found
}

/// Hand-written SQL, which belongs to `store/batch/`; migrations, PRAGMAs, settings of a session and the clock probe apart.
fn statements(modules: &Modules, file: &str, module: usize, source: &Source) -> Vec<Violation> {
    let home = below(file, layer(file).0).unwrap_or_default();
    if home.starts_with("store/batch/") || home.starts_with("store/migrat") {
        return Vec::new();
    }
    let violation = |line, to: &str, why: &str| Violation::new("sql", file, line, to, why);
    let calls = source.mentions.iter().filter_map(|mention| {
        let path = match modules.resolve(modules.inner(module, &mention.within), &mention.path) {
            Target::Extern(path) => path,
            _ => mention.path.clone(),
        };
        let exempt = mention
            .argument
            .as_deref()
            .is_some_and(|sql| sql.starts_with("PRAGMA ") || is_clock_probe(sql));
        let name = mention.path.join("::");
        let why = "hand-written SQL belongs to store/batch/";
        (takes_sql(&path) && !exempt).then(|| violation(mention.line, name.trim_start_matches(".::"), why))
    });
    let strings = source.strings.iter().filter_map(|(text, line)| {
        let words: Vec<_> = text.split_whitespace().collect();
        let why = format!(
            "hand-written SQL belongs to store/batch/: {:.60}",
            words.join(" ")
        );
        (is_sql(text) && !is_clock_probe(text)).then(|| violation(*line, words[0], &why))
    });
    calls.chain(strings).collect()
}

/// Whether a function takes a statement, or a part of one, as text.
fn takes_sql(path: &[String]) -> bool {
    let of = |position: usize| path.iter().rev().nth(position).map_or("", String::as_str);
    match (of(1), of(0)) {
        (
            _,
            "execute_unprepared" | "raw_sql" | "from_sql_and_values" | "cust_with_values" | "cust_with_exprs",
        ) => true,
        ("Statement", "from_string") | ("Expr", "cust" | "cust_with_expr") => true,
        ("sqlx", name) => name.starts_with("query"),
        _ => false,
    }
}

fn is_sql(text: &str) -> bool {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let starts = [
        ("SELECT ", ""),
        ("INSERT INTO ", ""),
        ("DELETE FROM ", ""),
        ("UPDATE ", " SET "),
        ("WITH ", " AS "),
        ("MERGE INTO ", ""),
        ("REPLACE INTO ", ""),
        ("TRUNCATE ", ""),
        ("LOCK TABLE ", ""),
    ];
    starts
        .iter()
        .any(|(start, then)| text.starts_with(start) && text.contains(then))
}

/// Whether this asks the database for its time alone.
fn is_clock_probe(sql: &str) -> bool {
    sql.starts_with("SELECT ") && sql.contains("clock_timestamp()") && sql.matches("FROM").count() < 2
}

fn crowded_folders(tree: &Tree) -> Vec<Violation> {
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, top) in tree.keys().map(|file| (file.as_str(), layer(file).0)) {
        let mut path = file;
        while let Some((folder, entry)) = path.rsplit_once('/').filter(|_| path != top) {
            folders.entry(folder).or_default().insert(entry);
            path = folder;
        }
    }
    folders.retain(|_, entries| entries.len() > ENTRIES);
    let crowded = folders.into_iter().map(|(folder, entries)| {
        let why = format!("{} files and folders; find what belongs together", entries.len());
        Violation::new("crowd", folder, 0, "more than 16 entries", &why)
    });
    crowded.collect()
}

/// Files that escape the rules: those of no layer, and those that no module declares.
fn without_place(tree: &Tree, modules: &Modules) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree
        .keys()
        .filter(|file| file.ends_with(".rs") && !modules.tests.contains(*file))
    {
        let (folder, name) = layer(file);
        if !LAYERS
            .iter()
            .any(|layers| layers.folder == folder && layers.names().any(|layer| layer == name))
        {
            found.push(Violation::new(
                "place",
                file,
                1,
                "no layer",
                "LAYERS does not name it",
            ));
        } else if !modules.sources.contains_key(file) {
            found.push(Violation::new(
                "place",
                file,
                1,
                "no module",
                "no `mod` declares this file",
            ));
        }
    }
    found
}

/// Layers without a file: a typing error, or a part of the design that is not there.
pub fn empty_layers(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (folder, name) in LAYERS
        .iter()
        .flat_map(|layers| layers.names().map(|name| (layers.folder, name)))
    {
        if !tree.keys().any(|file| layer(file) == (folder, name)) {
            found.push(Violation::new(
                "place",
                &format!("{folder}/{name}"),
                0,
                "no file",
                "LAYERS names it",
            ));
        }
    }
    found
}
