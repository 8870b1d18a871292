//! RFC 6962 trees: roots, frontiers, inclusion and consistency proofs over complete subtrees.
//!
//! A *node* `(height, n)` is the hash of the complete subtree over leaves `[n·2^height, (n+1)·2^height)`.
//! Everything is computed from nodes, wherever they come from: a batch in memory or tiles in a database.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 hash of the tree.
pub type Hash = [u8; 32];

/// The hash of an entry's body: `SHA-256(0x00 ‖ body)` (RFC 6962 §2.1).
#[must_use]
pub fn leaf_hash(body: &[u8]) -> Hash {
    hash(&[&[0], body])
}

/// The hash of two subtrees: `SHA-256(0x01 ‖ left ‖ right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

/// The root of the empty tree.
#[must_use]
pub fn empty_root() -> Hash {
    hash(&[])
}

/// SHA-256 of plain bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    to_hash(digest(&SHA256, bytes).as_ref())
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    to_hash(context.finish().as_ref())
}

fn to_hash(bytes: &[u8]) -> Hash {
    bytes.try_into().expect("SHA-256 has 32 bytes")
}

/// Height and position of each complete subtree that makes up a tree of `size`, from the left.
pub fn frontier_nodes(size: u64) -> impl Iterator<Item = (u32, u64)> {
    (0..u64::BITS).rev().filter(move |h| size >> h & 1 == 1).map(move |h| (h, (size >> h) - 1))
}

/// The root over a frontier: complete subtrees folded from the right.
#[must_use]
pub fn root_of(frontier: &[Hash]) -> Hash {
    fold(frontier).unwrap_or_else(empty_root)
}

fn fold(nodes: &[Hash]) -> Option<Hash> {
    let (last, rest) = nodes.split_last()?;
    Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// A tree that can grow: its size and its frontier (the complete subtrees, from the left).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// A frontier as stored; `None` when the number of hashes does not fit the size.
    #[must_use]
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// How many leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The complete subtrees, from the left.
    #[must_use]
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        root_of(&self.nodes)
    }

    /// Adds a leaf; `completed(height, n, hash)` is told of every subtree that became complete, the leaf
    /// itself (height 0) first.
    ///
    /// # Panics
    /// Never: a frontier has a node for every bit of its size.
    pub fn push(&mut self, leaf: Hash, mut completed: impl FnMut(u32, u64, Hash)) {
        completed(0, self.size, leaf);
        let mut node = leaf;
        for height in 0..self.size.trailing_ones() {
            let left = self.nodes.pop().expect("a set bit of the size is a node");
            node = node_hash(&left, &node);
            completed(height + 1, self.size >> (height + 1), node);
        }
        self.nodes.push(node);
        self.size += 1;
    }
}

/// The complete subtrees a batch made or touched, enough to prove every leaf of the batch in memory.
#[derive(Debug)]
pub struct BatchNodes {
    size: u64,
    /// Per height: the position of the first known node, and the nodes from there on.
    levels: Vec<(u64, Vec<Hash>)>,
}

impl BatchNodes {
    /// Appends `leaves` to `frontier`, keeping what proofs need; `completed` as in [`Frontier::push`].
    pub fn append(
        frontier: &mut Frontier,
        leaves: impl IntoIterator<Item = Hash>,
        mut completed: impl FnMut(u32, u64, Hash),
    ) -> Self {
        let mut levels: Vec<(u64, Vec<Hash>)> =
            (0..u64::BITS).map(|h| (frontier.size.checked_shr(h).unwrap_or(0), Vec::new())).collect();
        for ((height, n), node) in frontier_nodes(frontier.size).zip(&frontier.nodes) {
            levels[height as usize] = (n, vec![*node]);
        }
        for leaf in leaves {
            frontier.push(leaf, |height, n, node| {
                levels[height as usize].1.push(node);
                completed(height, n, node);
            });
        }
        Self { size: frontier.size, levels }
    }

    fn node(&self, height: u32, n: u64) -> Hash {
        let (first, nodes) = &self.levels[height as usize];
        let at = usize::try_from(n - first).expect("a batch fits in memory");
        nodes[at]
    }

    /// The path from leaf `index` of this batch to the root after it.
    #[must_use]
    pub fn inclusion(&self, index: u64) -> Vec<Hash> {
        inclusion(index, self.size, &mut |height, n| self.node(height, n))
    }
}

/// The audit path of leaf `index` in the tree of `size` (RFC 6962 §2.1.1), nodes given by `node`.
///
/// # Panics
/// When `index` is not below `size`: callers check what came from outside.
pub fn inclusion(index: u64, size: u64, node: &mut dyn FnMut(u32, u64) -> Hash) -> Vec<Hash> {
    assert!(index < size, "a leaf of the tree");
    let mut path = Vec::with_capacity(24);
    let mut height = 0;
    while (size - 1) >> height != 0 {
        let sibling = (index >> height) ^ 1;
        if sibling < size >> height {
            path.push(node(height, sibling));
        } else if sibling == size >> height {
            // the right border, incomplete or absent at this height
            path.extend(partial(size, height, node));
        }
        height += 1;
    }
    path
}

/// The hash over the leaves of `size` beyond its last complete subtree of `height`.
fn partial(size: u64, height: u32, node: &mut dyn FnMut(u32, u64) -> Hash) -> Option<Hash> {
    let nodes: Vec<Hash> =
        frontier_nodes(size).filter(|(h, _)| *h < height).map(|(h, n)| node(h, n)).collect();
    fold(&nodes)
}

/// The proof that the tree of `old` is a prefix of the tree of `new` (RFC 6962 §2.1.2).
///
/// # Panics
/// Unless `0 < old <= new`: callers check what came from outside.
pub fn consistency(old: u64, new: u64, node: &mut dyn FnMut(u32, u64) -> Hash) -> Vec<Hash> {
    assert!(0 < old && old <= new, "an older size of the same tree");
    let mut path = Vec::new();
    subproof(old, 0, new, true, node, &mut path);
    path
}

/// `SUBPROOF(m, D[lo:hi], whole)`, appended to `path`.
fn subproof(
    m: u64,
    lo: u64,
    hi: u64,
    whole: bool,
    node: &mut dyn FnMut(u32, u64) -> Hash,
    path: &mut Vec<Hash>,
) {
    let n = hi - lo;
    if m == n {
        if !whole {
            path.push(range(lo, hi, node));
        }
        return;
    }
    let k = split(n);
    if m <= k {
        subproof(m, lo, lo + k, whole, node, path);
        path.push(range(lo + k, hi, node));
    } else {
        subproof(m - k, lo + k, hi, false, node, path);
        path.push(range(lo, lo + k, node));
    }
}

/// The largest power of two below `n`.
const fn split(n: u64) -> u64 {
    1 << (u64::BITS - 1 - (n - 1).leading_zeros())
}

/// `MTH(D[lo:hi])` where `lo` lies on the border of a subtree at least as large as the range.
fn range(lo: u64, hi: u64, node: &mut dyn FnMut(u32, u64) -> Hash) -> Hash {
    let mut at = lo;
    let mut nodes = Vec::new();
    for height in (0..u64::BITS).rev() {
        if (hi - lo) >> height & 1 == 1 {
            nodes.push(node(height, at >> height));
            at += 1 << height;
        }
    }
    root_of(&nodes)
}

/// Whether `path` proves that the leaf at `index` is in the tree of `size` with `root` (RFC 9162 §2.1.3.2).
#[must_use]
pub fn verify_inclusion(index: u64, size: u64, leaf: &Hash, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut fn_, mut sn, mut r) = (index, size - 1, *leaf);
    for p in path {
        if sn == 0 {
            return false;
        }
        if fn_ & 1 == 1 || fn_ == sn {
            r = node_hash(p, &r);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            r = node_hash(&r, p);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    sn == 0 && r == *root
}

/// Whether `path` proves that the tree (`old`, `old_root`) is a prefix of (`new`, `new_root`)
/// (RFC 9162 §2.1.4.2). The empty tree is a prefix of every tree, with an empty path.
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, path: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return path.is_empty() && *old_root == empty_root();
    }
    let whole = old.is_power_of_two().then_some(*old_root);
    let mut path = whole.iter().chain(path);
    let Some(&first) = path.next() else { return false };
    let (mut fn_, mut sn) = (old - 1, new - 1);
    while fn_ & 1 == 1 {
        fn_ >>= 1;
        sn >>= 1;
    }
    let (mut fr, mut sr) = (first, first);
    for c in path {
        if sn == 0 {
            return false;
        }
        if fn_ & 1 == 1 || fn_ == sn {
            fr = node_hash(c, &fr);
            sr = node_hash(c, &sr);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            sr = node_hash(&sr, c);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    sn == 0 && fr == *old_root && sr == *new_root
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use sha2::Sha256;

    use super::*;

    fn body(i: u64) -> Vec<u8> {
        format!("entry {i}").into_bytes()
    }

    /// All complete nodes of the tree over `size` leaves.
    fn nodes(size: u64) -> Vec<Vec<Hash>> {
        let mut levels = vec![(0..size).map(|i| leaf_hash(&body(i))).collect::<Vec<_>>()];
        while levels.last().is_some_and(|level| level.len() > 1) {
            let below = levels.last().expect("just looked");
            levels.push(below.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect());
        }
        levels
    }

    fn flat(path: &[Hash]) -> Vec<u8> {
        path.concat()
    }

    #[test]
    fn proofs_equal_a_foreign_implementation_byte_for_byte() {
        // invariant 5 (ct-merkle), all (i, n) ≤ 300; inclusion and root up to 600 and at random large n below
        let levels = nodes(600);
        let mut node = |h: u32, n: u64| levels[h as usize][usize::try_from(n).unwrap()];
        let mut foreign = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root(), foreign.root().as_bytes().as_slice());
        for n in 1..=600u64 {
            foreign.push(body(n - 1));
            frontier.push(leaf_hash(&body(n - 1)), |_, _, _| ());
            let root = frontier.root();
            assert_eq!(root, foreign.root().as_bytes().as_slice(), "root of {n}");
            for i in 0..n {
                let path = inclusion(i, n, &mut node);
                let theirs = foreign.prove_inclusion(usize::try_from(i).unwrap());
                assert_eq!(flat(&path), theirs.as_bytes(), "inclusion of {i} in {n}");
                assert!(verify_inclusion(i, n, &leaf_hash(&body(i)), &path, &root));
            }
        }
        for n in 1..=300u64 {
            let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
            (0..n).for_each(|i| tree.push(body(i)));
            let new_root: Hash = tree.root().as_bytes().as_slice().try_into().unwrap();
            let mut old = Frontier::default();
            for m in 1..n {
                old.push(leaf_hash(&body(m - 1)), |_, _, _| ());
                let path = consistency(m, n, &mut node);
                let theirs = tree.prove_consistency(usize::try_from(n - m).unwrap());
                assert_eq!(flat(&path), theirs.as_bytes(), "consistency of {m} to {n}");
                assert!(verify_consistency(m, &old.root(), n, &new_root, &path));
                assert!(!verify_consistency(m, &new_root, n, &new_root, &path));
            }
        }
    }

    #[test]
    fn proofs_of_large_trees_equal_a_foreign_implementations() {
        // invariant 5, random large n: a fixed walk over sizes and indexes
        const LARGEST: u64 = 20_000;
        let levels = nodes(LARGEST);
        let mut node = |h: u32, n: u64| levels[h as usize][usize::try_from(n).unwrap()];
        let mut foreign = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let (mut state, mut next) = (0x9e37_79b9_7f4a_7c15_u64, 1000);
        for size in 1..=LARGEST {
            foreign.push(body(size - 1));
            if size != next {
                continue;
            }
            let mut random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % below
            };
            for _ in 0..8 {
                let i = random(size);
                let theirs = foreign.prove_inclusion(usize::try_from(i).unwrap());
                assert_eq!(
                    flat(&inclusion(i, size, &mut node)),
                    theirs.as_bytes(),
                    "inclusion of {i} in {size}"
                );
                let old = 1 + random(size - 1);
                let theirs = foreign.prove_consistency(usize::try_from(size - old).unwrap());
                assert_eq!(flat(&consistency(old, size, &mut node)), theirs.as_bytes(), "{old} to {size}");
            }
            next += 1 + random(900);
        }
    }

    #[test]
    fn a_batch_proves_its_leaves_from_the_old_frontier_alone() {
        let levels = nodes(700);
        let mut node = |h: u32, n: u64| levels[h as usize][usize::try_from(n).unwrap()];
        for before in (0..300).chain([511, 512, 513]) {
            for count in [1u64, 2, 3, 7, 64, 150] {
                let mut frontier = Frontier::default();
                (0..before).for_each(|i| frontier.push(leaf_hash(&body(i)), |_, _, _| ()));
                let leaves = (before..before + count).map(|i| leaf_hash(&body(i)));
                let batch = BatchNodes::append(&mut frontier, leaves, |_, _, _| ());
                for i in before..before + count {
                    assert_eq!(batch.inclusion(i), inclusion(i, before + count, &mut node));
                }
            }
        }
    }

    #[test]
    fn large_sizes_prove_and_forgeries_do_not() {
        // invariant 15: the sizes around a tile and around a tile of tiles
        let levels = nodes(65_537);
        let mut node = |h: u32, n: u64| levels[h as usize][usize::try_from(n).unwrap()];
        let root = |size: u64, node: &mut dyn FnMut(u32, u64) -> Hash| {
            let nodes: Vec<Hash> = frontier_nodes(size).map(|(h, n)| node(h, n)).collect();
            root_of(&nodes)
        };
        let sizes = [1u64, 255, 256, 257, 65_535, 65_536, 65_537];
        for new in sizes {
            let new_root = root(new, &mut node);
            for index in [0, 1, 254, 255, 256, 40_961, 65_534, 65_535, 65_536] {
                if index >= new {
                    continue;
                }
                let mut path = inclusion(index, new, &mut node);
                let leaf = leaf_hash(&body(index));
                assert!(verify_inclusion(index, new, &leaf, &path, &new_root));
                assert!(!verify_inclusion(index, new, &leaf_hash(b"forged"), &path, &new_root));
                assert!(!verify_inclusion(
                    index,
                    new + 1,
                    &leaf,
                    &[path.clone(), vec![leaf]].concat(),
                    &new_root
                ));
                if let Some(first) = path.first_mut() {
                    first[7] ^= 1;
                    assert!(!verify_inclusion(index, new, &leaf, &path, &new_root));
                }
            }
            for old in sizes.into_iter().filter(|old| *old <= new) {
                let old_root = root(old, &mut node);
                let path = consistency(old, new, &mut node);
                assert!(verify_consistency(old, &old_root, new, &new_root, &path), "{old} to {new}");
            }
        }
        assert!(verify_consistency(0, &empty_root(), 5, &[7; 32], &[]));
    }
}
