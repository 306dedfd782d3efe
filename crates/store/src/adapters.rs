//! Adapters that the owner took in: copies of their files, which nobody else changes or moves.
//!
//! ```text
//! DIR/adapters/NUMBER/FILE...      the files of one adapter
//! DIR/adapters/NUMBER/about.json   what it is and what it belongs to, written last
//! ```
//!
//! # Invariants
//!
//! * A folder without `about.json` is half a copy: it is removed when the folder is opened.
//! * What is in `about.json` is a note, not a proof: whoever reads the adapter hashes it again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use commons_record::Hash;
use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, create_private_dir, write_atomically};

/// A note is a few hundred bytes.
const ABOUT_SIZE_MAX: u64 = 64 * 1024;

const ABOUT: &str = "about.json";

/// What is noted of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AboutAdapter {
    /// The hash of its files.
    pub adapter: Hash,
    /// The model that it changes.
    pub model: Hash,
    /// What people call it.
    pub name: String,
    /// Whether its numbers are rounded in memory.
    pub is_rounded: bool,
}

/// A copy of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAdapter {
    /// What is noted of it.
    pub about: AboutAdapter,
    /// Its folder.
    pub folder: PathBuf,
}

/// A copy that is not noted yet.
#[derive(Debug)]
#[must_use = "without a note it is gone with the next start"]
pub struct Draft {
    folder: PathBuf,
}

/// The adapters of a data folder.
#[derive(Debug, Clone)]
pub struct AdapterFolder {
    path: PathBuf,
    /// The folder stays this process's own.
    _dir: DataDir,
}

impl AdapterFolder {
    /// Opens the folder, and clears away what a crash left.
    pub fn open(dir: &DataDir) -> io::Result<Self> {
        let path = dir.path().join("adapters");
        create_private_dir(&path)?;
        let folder = Self { path, _dir: dir.clone() };
        for number in folder.numbers()? {
            let folder = folder.path.join(number.to_string());
            if !folder.join(ABOUT).exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies files into a folder of their own, under these names.
    pub fn copy(&self, files: &[(PathBuf, String)]) -> io::Result<Draft> {
        let next = self.numbers()?.into_iter().max().map_or(1, |last| last + 1);
        // Two at once may take the same number; one of them gets the next.
        let folder = (next..next + 64).map(|number| self.path.join(number.to_string()));
        let mut failure = io::Error::other("no number is free");
        for folder in folder {
            match fs::create_dir(&folder) {
                Ok(()) => {
                    let draft = Draft { folder };
                    for (from, name) in files {
                        let to = draft.folder.join(name);
                        fs::copy(from, &to)?;
                        File::open(&to)?.sync_all()?;
                    }
                    return Ok(draft);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Notes what a copy is; older copies of the same adapter for the same model go.
    pub fn keep(&self, mut draft: Draft, about: AboutAdapter) -> io::Result<KeptAdapter> {
        let json = serde_json::to_vec(&about).map_err(io::Error::other)?;
        write_atomically(&draft.folder.join(ABOUT), &json)?;
        let folder = std::mem::take(&mut draft.folder);
        for kept in self.list()? {
            let is_same = kept.about.adapter == about.adapter && kept.about.model == about.model;
            if is_same && kept.folder != folder {
                fs::remove_dir_all(kept.folder)?;
            }
        }
        Ok(KeptAdapter { about, folder })
    }

    /// All that is kept, the oldest first.
    pub fn list(&self) -> io::Result<Vec<KeptAdapter>> {
        let mut numbers = self.numbers()?;
        numbers.sort_unstable();
        let mut kept = Vec::with_capacity(numbers.len());
        for number in numbers {
            let folder = self.path.join(number.to_string());
            match read_about(&folder.join(ABOUT)) {
                Ok(about) => kept.push(KeptAdapter { about, folder }),
                // A copy that is being made, or one whose note was damaged.
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "an adapter has no note");
                }
            }
        }
        Ok(kept)
    }

    /// Removes an adapter of a model. Whether there was one.
    pub fn remove(&self, model: &Hash, adapter: &Hash) -> io::Result<bool> {
        let mut has_removed = false;
        for kept in self.list()? {
            if kept.about.model == *model && kept.about.adapter == *adapter {
                // The note first: half a folder is none.
                fs::remove_file(kept.folder.join(ABOUT))?;
                fs::remove_dir_all(kept.folder)?;
                has_removed = true;
            }
        }
        Ok(has_removed)
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // What has another name is not ours.
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(numbers)
    }
}

impl Draft {
    /// Where the copies are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty()
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            tracing::debug!(%error, "half a copy of an adapter stays until the next start");
        }
    }
}

fn read_about(path: &Path) -> io::Result<AboutAdapter> {
    let file = File::open(path)?;
    if file.metadata()?.len() > ABOUT_SIZE_MAX {
        return Err(io::Error::other("the note is too long"));
    }
    serde_json::from_reader(file).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> Hash {
        Hash::of_content(text.as_bytes())
    }

    fn about(adapter: &str, name: &str) -> AboutAdapter {
        let (adapter, model) = (hash(adapter), hash("model"));
        AboutAdapter { adapter, model, name: name.to_owned(), is_rounded: false }
    }

    struct Lab {
        outside: tempfile::TempDir,
        data: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            let new = || tempfile::tempdir().expect("a temporary folder");
            Self { outside: new(), data: new() }
        }

        fn open(&self) -> AdapterFolder {
            let dir = DataDir::open(self.data.path()).expect("opens");
            AdapterFolder::open(&dir).expect("opens")
        }

        fn copy(&self, folder: &AdapterFolder, content: &str) -> Draft {
            let path = self.outside.path().join("a.gguf");
            fs::write(&path, content).expect("writes");
            folder.copy(&[(path, "adapter.gguf".to_owned())]).expect("copies")
        }
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_half_a_copy_is_not() {
        let lab = Lab::new();
        let folder = lab.open();
        let one = folder.keep(lab.copy(&folder, "one"), about("one", "first")).expect("keeps");
        let half = lab.copy(&folder, "half");
        let left = half.folder().to_owned();
        std::mem::forget(half); // As a crash does.
        drop(folder);
        let folder = lab.open();
        assert_eq!(folder.list().expect("lists"), std::slice::from_ref(&one));
        assert!(!left.exists(), "half a copy");
        assert_eq!(fs::read(one.folder.join("adapter.gguf")).expect("reads"), b"one");
    }

    #[test]
    fn the_same_adapter_again_replaces_its_copy_and_a_failed_one_leaves_nothing() {
        let lab = Lab::new();
        let folder = lab.open();
        let first = folder.keep(lab.copy(&folder, "one"), about("one", "a")).expect("keeps");
        let again = folder.keep(lab.copy(&folder, "one"), about("one", "b")).expect("keeps");
        let other = folder.keep(lab.copy(&folder, "two"), about("two", "c")).expect("keeps");
        assert_eq!(folder.list().expect("lists"), [again, other]);
        assert!(!first.folder.exists());
        let draft = lab.copy(&folder, "bad");
        let path = draft.folder().to_owned();
        drop(draft);
        assert!(!path.exists());
        let missing = folder.copy(&[(PathBuf::from("nowhere"), "x".to_owned())]);
        assert_eq!(missing.expect_err("is not there").kind(), io::ErrorKind::NotFound);
        assert_eq!(folder.list().expect("lists").len(), 2);
    }

    #[test]
    fn what_is_removed_is_gone_and_a_damaged_note_hides_one_adapter_alone() {
        let lab = Lab::new();
        let folder = lab.open();
        let one = folder.keep(lab.copy(&folder, "one"), about("one", "a")).expect("keeps");
        let two = folder.keep(lab.copy(&folder, "two"), about("two", "b")).expect("keeps");
        fs::write(two.folder.join(ABOUT), "{").expect("writes");
        assert_eq!(folder.list().expect("lists"), std::slice::from_ref(&one));
        assert!(!folder.remove(&hash("model"), &hash("none")).expect("looks"));
        assert!(folder.remove(&hash("model"), &hash("one")).expect("removes"));
        assert!(!one.folder.exists());
        assert!(folder.list().expect("lists").is_empty());
    }
}
