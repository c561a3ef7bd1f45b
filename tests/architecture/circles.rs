//! Circles in a graph of files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::modules::Modules;

/// Which files each file imports.
pub type Graph<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// The parts of a graph in which every file leads to every other one. A module and its children may
/// import each other: where one file is the module above all others, their imports of it don't count.
pub fn knots<'a>(modules: &Modules, graph: &Graph<'a>) -> Vec<Graph<'a>> {
    let mut knots = Vec::new();
    let mut seen = BTreeSet::new();
    let ahead: Graph = graph.keys().map(|file| (*file, reach(graph, file))).collect();
    let leads = |from: &str, to: &str| ahead.get(from).is_some_and(|ahead| ahead.contains(to));
    for (file, reached) in &ahead {
        let files: BTreeSet<_> = reached
            .iter()
            .copied()
            .filter(|other| leads(other, file))
            .collect();
        if files.len() < 2 || !seen.insert(files.clone()) {
            continue;
        }
        let inside = |file: &&'a str| graph[file].intersection(&files).copied().collect::<BTreeSet<_>>();
        let mut part: Graph<'a> = files.iter().map(|file| (*file, inside(file))).collect();
        let is_top = |top: &&str| {
            files
                .iter()
                .all(|file| file == top || modules.is_below(file, top))
        };
        match files.iter().find(|file| is_top(file)) {
            Some(top) => {
                part.values_mut().for_each(|imports| {
                    imports.remove(top);
                });
                knots.extend(self::knots(modules, &part));
            }
            None => knots.push(part),
        }
    }
    knots
}

/// The files that one leads to.
fn reach<'a>(graph: &Graph<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut ahead: Vec<&str> = graph.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = ahead.pop() {
        if reached.insert(file) {
            ahead.extend(graph.get(file).into_iter().flatten());
        }
    }
    reached
}

/// The shortest way from one file to another.
pub fn way<'a>(graph: &Graph<'a>, from: &'a str, to: &str) -> Vec<&'a str> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let last = way[way.len() - 1];
        if last == to {
            return way;
        }
        for next in graph
            .get(last)
            .into_iter()
            .flatten()
            .filter(|next| seen.insert(**next))
        {
            ways.push_back([way.as_slice(), &[next]].concat());
        }
    }
    Vec::new()
}
