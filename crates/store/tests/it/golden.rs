//! A journal that an earlier version wrote opens, today and ever after.
//!
//! The fixture is the file `journal.redb` of format 1 as `(page number, page)` for each page that
//! is not all zeros, behind the length of the file: redb's smallest file is half a mebibyte of
//! almost nothing. It is never made anew: a new format gets a fixture of its own.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use commons_port::journal::{Change, Table};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/journal-v1.pages");

const PAGE: usize = 4096;

/// What the fixture holds: an entry in each table, and one more that was removed again.
fn changes() -> Vec<Change> {
    let puts =
        Table::ALL.map(|table| Change::put(table, table.name(), [table.name(), " 1"].concat()));
    let removed = [Change::put(Table::State, "gone", "x"), Change::remove(Table::State, "gone")];
    puts.into_iter().chain(removed).collect()
}

#[test]
fn a_journal_of_format_1_opens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    if !Path::new(FIXTURE).exists() && is_blessed() {
        write_fixture(folder.path());
    }
    let packed = fs::read(FIXTURE).expect("the fixture is in the repository");
    fs::write(folder.path().join("journal.redb"), unpack(&packed)).expect("a writable folder");
    let journal = super::open(folder.path());
    for table in Table::ALL {
        let name = table.name().as_bytes();
        let want = vec![(name.to_vec(), [name, b" 1"].concat())];
        assert_eq!(super::all(&journal, table), want, "{table:?}");
    }
    super::commit(&journal, vec![Change::put(Table::State, "new", "entry")]);
    assert_eq!(super::all(&journal, Table::State).len(), 2);
}

#[expect(clippy::disallowed_methods, reason = "how a person tells a test to write its fixture")]
fn is_blessed() -> bool {
    std::env::var("COMMONS_BLESS").is_ok_and(|it| it == "1")
}

fn write_fixture(folder: &Path) {
    let journal = super::open(&folder.join("made"));
    for change in changes() {
        super::commit(&journal, vec![change]);
    }
    drop(journal);
    let bytes = fs::read(folder.join("made/journal.redb")).expect("just written");
    let mut packed = (bytes.len() as u64).to_be_bytes().to_vec();
    for (number, page) in (0_u64..).zip(bytes.chunks(PAGE)) {
        if page.iter().any(|it| *it != 0) {
            packed.write_all(&number.to_be_bytes()).expect("memory");
            packed.write_all(page).expect("memory");
        }
    }
    fs::create_dir_all(Path::new(FIXTURE).parent().expect("a folder")).expect("a writable folder");
    fs::write(FIXTURE, packed).expect("a writable folder");
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let number = u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        usize::try_from(number).expect("a small file")
    };
    let (len, pages) = packed.split_at(8);
    let mut bytes = vec![0; number(len)];
    for page in pages.chunks(8 + PAGE) {
        let (at, page) = page.split_at(8);
        let start = number(at) * PAGE;
        bytes[start..start + page.len()].copy_from_slice(page);
    }
    bytes
}
