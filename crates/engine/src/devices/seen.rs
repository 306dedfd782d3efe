//! What the operating system shows of accelerators, as it was read.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::place;

/// Entries of a folder that are taken: no machine has more cards.
const ENTRIES_MAX: usize = 256;

/// Bytes of a file that are read: all of them are a few lines.
const TEXT_LEN_MAX: u64 = 4096;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What NVIDIA's driver says of itself, if it is loaded.
    pub nvidia_driver: Option<String>,
    /// The names of the cards that it drives.
    pub nvidia_names: Vec<String>,
    /// The cards' device files, `/dev/nvidia0` and on, and whether they can be opened.
    pub nvidia_files: Vec<(String, Access)>,
    /// Bytes that are free on each card, where this program can ask for them.
    pub nvidia_free: Vec<u64>,
    /// Whether AMD's compute driver has its device file.
    pub has_kfd: bool,
    /// Cards of any maker that have a graphics driver.
    pub cards: Vec<Card>,
}

/// A graphics card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// The number of its maker on the PCI bus.
    pub vendor: u32,
}

/// Whether a device file can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It was opened.
    Open,
    /// It was not, and why.
    Refused(String),
}

/// Looks at this machine.
pub fn read() -> Seen {
    Seen { nvidia_free: place::cuda_free(), ..read_below(Path::new("/")) }
}

/// Looks at what stands below a folder as the system's own folders do.
fn read_below(root: &Path) -> Seen {
    Seen {
        nvidia_driver: text(&root.join("proc/driver/nvidia/version")),
        nvidia_names: entries(&root.join("proc/driver/nvidia/gpus"), |_| true)
            .iter()
            .filter_map(|folder| model_name(&text(&folder.join("information"))?))
            .collect(),
        nvidia_files: entries(&root.join("dev"), |path| is_numbered(path, "nvidia"))
            .into_iter()
            .map(|path| (path.display().to_string(), access(&path)))
            .collect(),
        nvidia_free: Vec::new(),
        has_kfd: root.join("dev/kfd").exists(),
        // `card0-HDMI-A-1` is a plug of `card0`.
        cards: entries(&root.join("sys/class/drm"), |path| is_numbered(path, "card"))
            .iter()
            .filter_map(|path| vendor(&text(&path.join("device/vendor"))?))
            .map(|vendor| Card { vendor })
            .collect(),
    }
}

/// The entries of a folder that are asked for, by name; nothing where there is no folder.
fn entries(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let wanted = found.flatten().map(|it| it.path()).filter(|path| is_wanted(path));
    let mut paths: Vec<_> = wanted.take(ENTRIES_MAX).collect();
    paths.sort();
    paths
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(TEXT_LEN_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn access(path: &Path) -> Access {
    match File::options().read(true).write(true).open(path) {
        Ok(_closed_at_once) => Access::Open,
        Err(error) => Access::Refused(error.to_string()),
    }
}

/// Whether a path's last part is `stem` and a number.
fn is_numbered(path: &Path, stem: &str) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix(stem));
    number.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The `Model:` of what the driver writes about a card.
fn model_name(text: &str) -> Option<String> {
    let name = text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// A number such as `0x10de`.
fn vendor(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_system_shows_is_read_from_its_own_folders() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(read_below(root.path()), Seen::default(), "nothing is there");
        for (path, text) in [
            ("proc/driver/nvidia/version", "NVRM version: 570.1\n"),
            ("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t NVIDIA H200\nIRQ: 1\n"),
            ("proc/driver/nvidia/gpus/0000:02:00.0/information", "IRQ: 1\n"),
            ("dev/nvidia0", ""),
            ("dev/nvidiactl", ""),
            ("dev/kfd", ""),
            ("sys/class/drm/card0/device/vendor", "0x10de\n"),
            ("sys/class/drm/card0-DP-1/device/vendor", "0x10de\n"),
            ("sys/class/drm/card1/device/vendor", "none\n"),
            ("sys/class/drm/card2/device/vendor", "0x1002\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("is made");
            fs::write(path, text).expect("is written");
        }
        let seen = read_below(root.path());
        assert_eq!(seen.nvidia_driver.as_deref(), Some("NVRM version: 570.1\n"));
        assert_eq!(seen.nvidia_names, ["NVIDIA H200"]);
        let files: Vec<_> = seen.nvidia_files.iter().map(|(_, access)| access).collect();
        assert_eq!(files, [&Access::Open]);
        assert!(seen.has_kfd);
        assert_eq!(seen.cards, [Card { vendor: 0x10de }, Card { vendor: 0x1002 }]);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let seen = read();
        assert!(seen.cards.len() <= ENTRIES_MAX);
    }
}
