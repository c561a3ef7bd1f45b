//! The hashes of a log, as tiles of C2SP tlog-tiles (<https://c2sp.org/tlog-tiles>): a tile of level 0 holds 256 leaf hashes,
//! a tile of level 1 the roots of 256 of those tiles, and so on. The newest tile of a level is replaced while it grows; a full
//! one never changes. So appending n leaves writes about n / 256 tiles, and a proof reads a few of them.
//!
//! Tiles are not trusted: a proof is checked against the head that it is for before it is returned.

use std::{cell::RefCell, collections::HashMap, ops::Range};

use sea_orm::{ActiveValue::Set, Condition, entity::prelude::*};
use sea_orm_migration::{DbErr, SchemaManager, prelude::OnConflict, schema::*};
use tlog_tiles::{Error, HashReader, Tile, prove_record, prove_tree, stored_hash_index, tree_hash};

use super::number;
use crate::{
    store::{StoreError, Transaction, rows::all_written},
    tlog::{self, Hash, TreeHead},
};

/// The height of a tile: it holds up to 2^8 hashes.
const HEIGHT: u8 = 8;
/// The hashes of a full tile.
const FULL: usize = 1 << HEIGHT;
/// The bytes of a hash.
const HASH: usize = 32;
/// The most tiles in one statement, about a megabyte.
const TILES_PER_INSERT: usize = 128;
/// The largest log: more leaves than any machine will ever hash.
const MAX_SIZE: u64 = 1 << 48;

/// The stored hashes of a log do not fit together.
pub(super) const DAMAGED: StoreError = StoreError::Corrupt("the audit log's hashes");

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_log_tiles")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub log_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub level: i32,
        #[sea_orm(primary_key, auto_increment = false)]
        pub tile: i64,
        /// Up to 256 hashes of 32 bytes.
        pub hashes: Vec<u8>,
    }

    crate::no_relations!();
}

pub(super) async fn create_table(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        big_integer("log_id"),
        integer("level"),
        big_integer("tile"),
        blob("hashes"),
    ];
    crate::store::create_table(manager, "audit_log_tiles", &["log_id", "level", "tile"], columns).await
}

/// How many leaves are read at a time.
const LEAVES_AT_ONCE: u64 = 4096;

/// The level of a tile, and its number in the level.
type TileCoordinates = (u8, u64);

/// Reads tiles of a log. Those that are missing are left out.
async fn read(
    conn: &impl ConnectionTrait,
    log_id: i64,
    places: impl IntoIterator<Item = TileCoordinates>,
) -> Result<HashMap<TileCoordinates, Vec<u8>>, StoreError> {
    let mut any = Condition::any();
    for (level, tile) in places {
        // The whole key in each of them, so that both databases look each tile up.
        let one = Condition::all()
            .add(row::Column::LogId.eq(log_id))
            .add(row::Column::Level.eq(i32::from(level)))
            .add(row::Column::Tile.eq(number(tile)?));
        any = any.add(one);
    }
    if any.is_empty() {
        return Ok(HashMap::new());
    }
    let found = row::Entity::find().filter(any).all(conn).await?;
    let rows = found.into_iter().map(|row| {
        let level = u8::try_from(row.level).map_err(|_| DAMAGED)?;
        let tile = u64::try_from(row.tile).map_err(|_| DAMAGED)?;
        Ok(((level, tile), row.hashes))
    });
    rows.collect()
}

/// The right edge of a log: the tiles that are not full, by level.
#[derive(Default)]
pub(super) struct Edge {
    levels: Vec<Growing>,
    full: Vec<(TileCoordinates, Vec<Hash>)>,
}

/// A tile that grows.
#[derive(Default)]
struct Growing {
    tile: u64,
    hashes: Vec<Hash>,
    is_changed: bool,
}

impl Edge {
    /// Reads the edge of the log with this size.
    pub(super) async fn read(
        conn: &impl ConnectionTrait,
        log_id: i64,
        size: u64,
    ) -> Result<Self, StoreError> {
        let mut widths = Vec::new();
        let mut nodes = Some(size).filter(|size| *size <= MAX_SIZE).ok_or(DAMAGED)?;
        while nodes > 0 {
            widths.push((nodes >> HEIGHT, nodes as usize % FULL));
            nodes >>= HEIGHT;
        }
        let placed = (0..).zip(&widths).filter(|(_, (_, width))| *width > 0);
        let read = read(conn, log_id, placed.map(|(level, (tile, _))| (level, *tile))).await?;
        let levels = (0..).zip(widths).map(|(level, (tile, width))| {
            let bytes = read.get(&(level, tile)).map_or(&[][..], Vec::as_slice);
            let hashes: Vec<_> = bytes
                .chunks(HASH)
                .map_while(|hash| hash.try_into().ok().map(Hash))
                .collect();
            match hashes.len() == width && bytes.len() == width * HASH {
                true => Ok(Growing {
                    tile,
                    hashes,
                    is_changed: false,
                }),
                false => Err(DAMAGED),
            }
        });
        Ok(Self {
            levels: levels.collect::<Result<_, _>>()?,
            full: Vec::new(),
        })
    }

    /// Returns the root of the log.
    pub(super) fn root(&self) -> Hash {
        // The subtree of the levels below, which is smaller than those of this level.
        let mut below = None;
        for level in &self.levels {
            let nodes: Vec<_> = level.hashes.iter().copied().chain(below).collect();
            if !nodes.is_empty() {
                below = Some(tlog::root(&nodes));
            }
        }
        below.unwrap_or(TreeHead::EMPTY.root)
    }

    /// Appends leaves.
    pub(super) fn append(&mut self, leaves: &[Hash]) {
        for leaf in leaves {
            self.push(0, *leaf);
        }
    }

    fn push(&mut self, level: usize, hash: Hash) {
        if self.levels.len() == level {
            self.levels.push(Growing::default());
        }
        let growing = &mut self.levels[level];
        growing.hashes.push(hash);
        growing.is_changed = true;
        if growing.hashes.len() == FULL {
            let next = Growing {
                tile: growing.tile + 1,
                ..Growing::default()
            };
            let full = std::mem::replace(growing, next);
            let root = tlog::root(&full.hashes);
            self.full.push(((level as u8, full.tile), full.hashes));
            self.push(level + 1, root);
        }
    }

    /// Writes the tiles that have changed.
    pub(super) async fn write(self, tx: &Transaction, log_id: i64) -> Result<(), StoreError> {
        let growing = (0..).zip(self.levels).filter(|(_, growing)| growing.is_changed);
        let growing = growing.map(|(level, growing)| ((level, growing.tile), growing.hashes));
        let mut rows = Vec::new();
        for ((level, tile), hashes) in self.full.into_iter().chain(growing) {
            rows.push(row::ActiveModel {
                log_id: Set(log_id),
                level: Set(i32::from(level)),
                tile: Set(number(tile)?),
                hashes: Set(hashes.iter().flat_map(|hash| hash.0).collect()),
            });
        }
        let key = [row::Column::LogId, row::Column::Level, row::Column::Tile];
        let replace = OnConflict::columns(key)
            .update_column(row::Column::Hashes)
            .to_owned();
        for rows in rows.chunks(TILES_PER_INSERT) {
            let insert = row::Entity::insert_many(rows.iter().cloned()).on_conflict(replace.clone());
            let written = insert.exec_without_returning(tx).await?;
            all_written("audit_log_tiles", written, rows.len())?;
        }
        Ok(())
    }
}

/// Where a computation gets its hashes from.
enum Hashes {
    /// Notes which ones it needs, and returns others.
    Noted(RefCell<Vec<u64>>),
    Read(HashMap<TileCoordinates, Vec<u8>>),
}

impl HashReader for Hashes {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        match self {
            Self::Noted(noted) => {
                noted.borrow_mut().extend(indexes);
                Ok(vec![Hash::default(); indexes.len()])
            }
            Self::Read(tiles) => {
                let hash = |index: &u64| {
                    let tile = Tile::from_index(HEIGHT, *index);
                    let hashes = tiles.get(&(tile.level(), tile.level_index()));
                    tile.hash_at_index(hashes.ok_or(Error::InvalidTile)?, *index)
                };
                indexes.iter().map(hash).collect()
            }
        }
    }
}

/// Computes something from stored hashes: once to learn which tiles it needs, and once with them.
async fn compute<T>(
    conn: &impl ConnectionTrait,
    log_id: i64,
    work: impl Fn(&Hashes) -> Result<T, Error>,
) -> Result<T, StoreError> {
    let indexes = {
        let hashes = Hashes::Noted(RefCell::default());
        work(&hashes).map_err(|_| DAMAGED)?;
        match hashes {
            Hashes::Noted(noted) => noted.into_inner(),
            Hashes::Read(_) => Vec::new(),
        }
    };
    let mut places: Vec<_> = indexes
        .into_iter()
        .map(|index| Tile::from_index(HEIGHT, index))
        .map(|tile| (tile.level(), tile.level_index()))
        .collect();
    places.sort_unstable();
    places.dedup();
    let hashes = Hashes::Read(read(conn, log_id, places).await?);
    work(&hashes).map_err(|_| DAMAGED)
}

/// Returns the root that a log had when it had this size.
///
/// # Errors
/// [`StoreError::Corrupt`] if it never had this size.
pub async fn root(conn: &impl ConnectionTrait, log_id: i64, size: u64) -> Result<Hash, StoreError> {
    if size > MAX_SIZE {
        return Err(DAMAGED);
    }
    compute(conn, log_id, |hashes| tree_hash(size, hashes)).await
}

/// Returns the leaf hashes with these indexes.
///
/// # Errors
/// [`StoreError::Corrupt`] if the log does not have them.
pub async fn leaves(
    conn: &impl ConnectionTrait,
    log_id: i64,
    indexes: Range<u64>,
) -> Result<Vec<Hash>, StoreError> {
    if indexes.end > MAX_SIZE {
        return Err(DAMAGED);
    }
    let places: Vec<_> = indexes.map(|index| stored_hash_index(0, index)).collect();
    compute(conn, log_id, |hashes| hashes.read_hashes(&places)).await
}

/// A log as its leaves make it, to compare with its head.
pub struct Recomputed {
    edge: Edge,
    size: u64,
}

impl Recomputed {
    /// Begins after the first leaves of a log, whose hashes are those that are stored.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they are not.
    pub async fn after(conn: &impl ConnectionTrait, log_id: i64, size: u64) -> Result<Self, StoreError> {
        // The edge holds tiles as they are now, which may have grown since.
        let mut edge = Edge::default();
        let mut done = 0;
        while done < size {
            let next = size.min(done + LEAVES_AT_ONCE);
            edge.append(&leaves(conn, log_id, done..next).await?);
            edge.full.clear();
            done = next;
        }
        Ok(Self { edge, size })
    }

    /// Appends leaves.
    pub fn append(&mut self, leaves: &[Hash]) {
        self.edge.append(leaves);
        self.edge.full.clear();
        self.size += leaves.len() as u64;
    }

    /// Returns the head with these leaves.
    pub fn head(&self) -> TreeHead {
        TreeHead {
            size: self.size,
            root: self.edge.root(),
        }
    }
}

/// The place of a leaf in a log.
#[derive(Clone, Debug, PartialEq)]
pub struct InclusionProof {
    /// The leaf hash.
    pub leaf: Hash,
    /// The path from the leaf to the root, without both.
    pub hashes: Vec<Hash>,
}

/// Proves which leaf has an index in a log with this head. `None` if it has no such leaf.
///
/// # Errors
/// [`StoreError::Corrupt`] if the stored hashes do not lead to the head's root.
pub async fn inclusion_proof(
    conn: &impl ConnectionTrait,
    log_id: i64,
    index: u64,
    head: TreeHead,
) -> Result<Option<InclusionProof>, StoreError> {
    if index >= head.size || head.size > MAX_SIZE {
        return Ok(None);
    }
    let proof = compute(conn, log_id, |hashes| {
        let leaf = hashes.read_hashes(&[stored_hash_index(0, index)])?[0];
        let hashes = prove_record(head.size, index, hashes)?;
        Ok(InclusionProof { leaf, hashes })
    });
    let proof = proof.await?;
    match head.check_inclusion(index, proof.leaf, &proof.hashes) {
        Ok(()) => Ok(Some(proof)),
        Err(_) => Err(DAMAGED),
    }
}

/// Proves that the log with `head` begins with the log of the size `first`. `None` if `first` is 0 or larger than the head.
///
/// # Errors
/// [`StoreError::Corrupt`] if the stored hashes do not lead to the head's root.
pub async fn consistency_proof(
    conn: &impl ConnectionTrait,
    log_id: i64,
    first: u64,
    head: TreeHead,
) -> Result<Option<Vec<Hash>>, StoreError> {
    if first == 0 || first > head.size || head.size > MAX_SIZE {
        return Ok(None);
    }
    let (older, proof) = compute(conn, log_id, |hashes| {
        let older = TreeHead {
            size: first,
            root: tree_hash(first, hashes)?,
        };
        Ok((older, prove_tree(head.size, first, hashes)?))
    })
    .await?;
    match head.check_consistency(&older, &proof) {
        Ok(()) => Ok(Some(proof)),
        Err(_) => Err(DAMAGED),
    }
}
