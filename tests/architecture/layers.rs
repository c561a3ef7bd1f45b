//! The layers of each crate, and their order.

use crate::modules::CRATES;

/// A layer may import those before its `<`, and the leaves; a leaf, other leaves and the first layers.
pub struct Layers {
    pub folder: &'static str,
    order: &'static str,
    leaves: &'static str,
}

/// The order that docs/ARCHITECTURE.md draws.
pub const LAYERS: [Layers; 3] = [
    Layers {
        folder: "src",
        order: "lock < clock log_limit metrics random tlog tls < dpop < text < keys position < store verify < rpc",
        leaves: "lib",
    },
    Layers {
        folder: "registry-service/src",
        order: "model < hashing < store < authentication directory < grpc < server < command < lib main",
        leaves: "config error permissions",
    },
    Layers {
        folder: "token-service/src",
        order: "model < registry store < cache < consent oauth < grpc http < server < command < lib main",
        leaves: "config error permissions",
    },
];

impl Layers {
    /// All layers and leaves.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let words = [self.order, self.leaves].map(str::split_whitespace);
        words.into_iter().flatten().filter(|word| *word != "<")
    }

    pub fn may_import(&self, from: &str, to: &str) -> bool {
        let place = |layer| self.order.split('<').position(|layers| holds(layers, layer));
        let is_leaf = |layer| holds(self.leaves, layer);
        let is_before = if is_leaf(from) {
            place(to) == Some(0)
        } else {
            place(to) < place(from)
        };
        // The root of the crate names the codec of the generated code.
        from == to || is_leaf(to) || is_before || from == "lib"
    }
}

/// Whether a list of words holds one.
pub fn holds(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|other| other == word)
}

/// The folder of the crate that a file belongs to, and its layer there.
pub fn layer(file: &str) -> (&'static str, &str) {
    let mut folders = CRATES.iter().map(|(_, folder)| (*folder, below(file, folder)));
    let (folder, below) = folders
        .find(|(_, below)| below.is_some())
        .expect("a folder of a crate");
    (
        folder,
        below
            .and_then(|below| below.split(['/', '.']).next())
            .unwrap_or_default(),
    )
}

/// The path of a file from a folder on, if it is in there.
pub fn below<'a>(file: &'a str, folder: &str) -> Option<&'a str> {
    file.strip_prefix(folder)?.strip_prefix('/')
}
