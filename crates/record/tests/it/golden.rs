//! The encoding of every record, pinned. A file that changes here is a break for every peer.
//!
//! `COMMONS_BLESS=1 cargo test` writes the files anew; the commit that does so says why.

use std::fs;
use std::path::Path;

use commons_record::{Envelope, Hash};

use crate::{evidence, sample, ticket};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

#[expect(clippy::disallowed_methods, reason = "how a person tells a test to write its fixtures")]
fn is_blessed() -> bool {
    std::env::var("COMMONS_BLESS").is_ok_and(|it| it == "1")
}

/// `what id`, then the bytes, 32 to a line.
fn dump(what: &str, id: Hash, bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    let lines = bytes.chunks(32).map(|chunk| line(chunk).concat()).collect::<Vec<_>>().join("\n");
    format!("# {what} {id}\n{lines}\n")
}

fn check(file: &str, text: &str) {
    let path = Path::new(FOLDER).join(file);
    if is_blessed() {
        fs::write(&path, text).expect("a writable folder");
    }
    let want = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(want == text, "{file} is\n{text}and the fixture says\n{want}");
}

#[test]
fn every_encoding_and_every_id_is_what_it_was() {
    for sample in sample::all() {
        let envelope = Envelope::decode(&sample.bytes).expect(sample.name);
        assert_eq!(envelope.id(), sample.id, "{}", sample.name);
        check(&format!("{}.hex", sample.name), &dump(&envelope.kind, sample.id, &sample.bytes));
    }
    for (name, evidence) in [("evidence", evidence::mesh()), ("evidence-local", evidence::local())]
    {
        let bytes = evidence.encode();
        check(&format!("{name}.hex"), &dump("b3sum", Hash::of_content(&bytes), &bytes));
    }
    check("ticket.txt", &format!("{}\n", ticket::ticket()));
}

#[test]
fn no_fixture_is_left_without_a_record() {
    let files = fs::read_dir(FOLDER).expect("the fixtures are in the repository").count();
    assert_eq!(files, sample::all().len() + 3);
}
