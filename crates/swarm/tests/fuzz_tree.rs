//! Fuzz targets: no bytes of a peer crash the tree, and what is not the blob's own is refused.

use bytes::Bytes;
use commons_port::blobs::PIECE_LEN;
use commons_record::Hash;
use commons_swarm::tree::{Shape, Top, TreeBuilder};

/// A blob of three pieces.
fn blob() -> Vec<u8> {
    (0..=250).cycle().take(2 * PIECE_LEN as usize + 1000).collect()
}

#[test]
fn any_bytes_as_top_page_and_piece() {
    let whole = blob();
    let own = Hash::of_content(&whole);
    bolero::check!().with_type::<(u64, u64, Vec<u8>)>().for_each(|(size, index, bytes)| {
        for size in [*size, size >> 17, size >> 34, whole.len() as u64] {
            let Some(shape) = Shape::new(size) else { continue };
            for sent in [Bytes::copy_from_slice(bytes), Bytes::new()] {
                let Ok(top) = Top::check(own, shape, sent) else { continue };
                for index in [*index, index % shape.pieces(), 0] {
                    let page = top.page(index, Bytes::copy_from_slice(bytes));
                    assert!(page.is_err() || bytes.is_empty(), "a page out of nothing");
                    let Ok(page) = page else { continue };
                    assert!(page.check_piece(index, bytes).is_err(), "a piece out of nothing");
                }
            }
        }
    });
}

#[test]
fn a_changed_page_or_piece() {
    let whole = blob();
    let (mut builder, mut page) = (TreeBuilder::new(), Vec::new());
    builder.update(&whole, |cv| page.extend_from_slice(&cv));
    let tree = builder.finish(|cv| page.extend_from_slice(&cv)).expect("not too long");
    let top = Top::check(tree.blob, tree.shape, tree.top).expect("its own");
    let good = top.page(0, page.clone().into()).expect("its own");
    let last = &whole[2 * PIECE_LEN as usize..];
    bolero::check!().with_type::<(usize, u8)>().for_each(|(at, byte)| {
        let changed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at % bytes.len();
            bytes[at] = *byte;
            bytes
        };
        let sent = changed(&page);
        assert_eq!(top.page(0, sent.clone().into()).is_ok(), sent == page);
        let sent = changed(last);
        assert_eq!(good.check_piece(2, &sent).is_ok(), sent == last);
    });
}
