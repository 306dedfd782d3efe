//! Merkle trees against the recursive definition of RFC 6962, with our hashes.

use commons_record::Hash;
use commons_record::merkle::{
    InclusionProof, LEAF_TOKENS, MerkleFrontier, Transcript, empty_root, prompt_hash, root,
    token_leaf, token_leaves,
};

use crate::sample::{SALT, hash};

/// The definition: split at the largest power of two below the count.
fn reference(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of_fields("commons/merkle-empty/1", &[]),
        [leaf] => *leaf,
        _ => {
            let split = (0..32).map(|bit| 1 << bit).take_while(|it| *it < leaves.len()).last();
            let (left, right) = leaves.split_at(split.expect("two leaves or more"));
            let (left, right) = (reference(left), reference(right));
            Hash::of_fields("commons/merkle-node/1", &[left.as_bytes(), right.as_bytes()])
        }
    }
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|number| Hash::of_content(&number.to_le_bytes())).collect()
}

// Rule R9
#[test]
fn a_root_is_what_the_recursive_definition_says() {
    let mut frontier = MerkleFrontier::default();
    for count in 0..=200 {
        let leaves = leaves(count);
        assert_eq!(root(&leaves), reference(&leaves), "{count} leaves");
        assert_eq!(frontier.root(), reference(&leaves), "{count} leaves, one by one");
        frontier.push(Hash::of_content(&count.to_le_bytes()));
    }
    assert_eq!(empty_root(), reference(&[]));
}

#[test]
fn every_leaf_of_every_tree_has_a_proof_and_no_other_claim_does() {
    for count in 0..=70 {
        let leaves = leaves(count);
        let root = root(&leaves);
        assert_eq!(InclusionProof::of(&leaves, count), None, "no such leaf");
        for (index, leaf) in leaves.iter().enumerate() {
            let proof = InclusionProof::of(&leaves, index).expect("a leaf");
            assert!(proof.proves(*leaf, &root), "leaf {index} of {count}");
            assert!(!proof.proves(hash(1), &root), "another leaf");
            assert!(!proof.proves(*leaf, &hash(1)), "another root");
            let with = |change: &dyn Fn(&mut InclusionProof)| {
                let mut proof = proof.clone();
                change(&mut proof);
                assert!(!proof.proves(*leaf, &root), "{proof:?} for leaf {index} of {count}");
            };
            for other in (0..count as u64 + 2).filter(|it| *it != proof.index) {
                with(&|it| it.index = other);
            }
            for level in 0..proof.path.len() {
                with(&|it| it.path[level] = hash(1));
                with(&|it| it.path = [&it.path[..level], &it.path[level + 1..]].concat());
            }
            for level in 1..proof.path.len() {
                with(&|it| it.path.swap(level - 1, level));
            }
            with(&|it| it.path.push(hash(1)));
            with(&|it| it.path.resize(33, hash(1)));
            with(&|it| it.count = 0);
            with(&|it| it.count = u64::MAX);
        }
    }
}

/// Another count that has the same path for an index is not refused by the path alone: the count
/// is a part of the claim, and what makes it true is that the root is of this many leaves.
#[test]
fn a_count_with_another_shape_is_refused() {
    for count in 1..=40_usize {
        let leaves = leaves(count);
        let root = root(&leaves);
        for (index, leaf) in leaves.iter().enumerate() {
            let proof = InclusionProof::of(&leaves, index).expect("a leaf");
            for other in (1..=80).filter(|it| *it != count) {
                let claim = InclusionProof { count: other as u64, ..proof.clone() };
                let has_same_sides = sides(index, other) == sides(index, count);
                assert_eq!(claim.proves(*leaf, &root), has_same_sides, "{index} of {other}");
            }
        }
    }
}

/// On which side a leaf lies at each level, from the root down; none if there is no such leaf.
fn sides(mut index: usize, mut count: usize) -> Option<Vec<bool>> {
    let mut sides = Vec::new();
    while count > 1 {
        let split = (0..32).map(|bit| 1 << bit).take_while(|it| *it < count).last()?;
        sides.push(index < split);
        (index, count) =
            if index < split { (index, split) } else { (index - split, count - split) };
    }
    (index < count).then_some(sides)
}

// Rule R9: neither a node nor a file can be passed off as a leaf.
#[test]
fn leaves_nodes_and_contents_hash_in_different_domains() {
    let (left, right) = (hash(1), hash(2));
    let node = root(&[left, right]);
    let both = [*left.as_bytes(), *right.as_bytes()].concat();
    assert_ne!(node, Hash::of_content(&both));
    assert_ne!(node, Hash::of_fields("commons/token-leaf/1", &[left.as_bytes(), right.as_bytes()]));
    assert_ne!(root(&[node]), root(&[node, node]));
    assert_eq!(
        root(&[node, hash(3)]),
        root(&[left, right, hash(3)]),
        "why the count is claimed too"
    );
}

// Rule R10
#[test]
fn a_transcript_is_a_tree_over_leaves_of_32_tokens() {
    assert_eq!(LEAF_TOKENS, 32);
    let tokens: Vec<u32> = (0..200).map(|it| it * 31 % 7_919).collect();
    let mut transcript = Transcript::new(SALT);
    for count in 0..=tokens.len() {
        let leaves = token_leaves(&SALT, &tokens[..count]);
        assert_eq!(leaves.len(), count.div_ceil(32));
        assert_eq!(transcript.root(), reference(&leaves), "{count} tokens");
        assert_eq!(transcript.root(), transcript.root(), "looking changes nothing");
        assert_eq!(transcript.count() as usize, count);
        for (index, leaf) in leaves.iter().enumerate() {
            let proof = InclusionProof::of(&leaves, index).expect("a leaf");
            assert!(proof.proves(*leaf, &transcript.root()), "leaf {index} of {count} tokens");
        }
        if let Some(token) = tokens.get(count) {
            transcript.push(*token);
        }
    }
}

// Rule R10: the bytes that are hashed, written out.
#[test]
fn a_token_leaf_hashes_salt_index_and_little_endian_tokens() {
    let tokens = [1, 0x0203_0405];
    let want = Hash::of_fields(
        "commons/token-leaf/1",
        &[SALT.as_bytes(), &[7, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 5, 4, 3, 2]],
    );
    assert_eq!(token_leaf(&SALT, 7, &tokens), want);
    let want =
        Hash::of_fields("commons/prompt-tokens/1", &[SALT.as_bytes(), &[1, 0, 0, 0, 5, 4, 3, 2]]);
    assert_eq!(prompt_hash(&SALT, &tokens), want);
    assert_ne!(prompt_hash(&commons_record::Salt::from_bytes([0; 32]), &tokens), want);
}
