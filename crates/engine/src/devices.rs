//! The accelerators of this machine, and of each the exact reason why it is not used.
//!
//! ```text
//! /proc, /sys, /dev --read--> Seen --judge(Build)--> one Accelerator for each kind and name
//! ```
//!
//! [`judge`] is pure: what was seen and what was built decide. [`read`] only looks, and what it
//! reads is bounded: a machine that shows nothing has no accelerators, which is no error.
//!
//! Graphics of server boards and virtual machines draw a console and nothing else: they are left
//! out. Not here: computing on a device, and choosing one.

mod seen;

use serde::Serialize;

use crate::place;
use crate::room::BATCH_SIZE;
pub use seen::{Access, Card, Seen, read};

/// An accelerator, or several of the same kind and name with the same verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accelerator {
    /// Whose it is.
    pub kind: DeviceKind,
    /// What its driver calls it, or what can be said without a driver.
    pub name: String,
    /// How many.
    pub count: usize,
    /// Why it is not used; none where this build can compute on it.
    pub unused: Option<Unused>,
}

/// Who made an accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// NVIDIA: CUDA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
    /// Apple: Metal.
    Apple,
    /// Another.
    Other,
}

/// Why an accelerator is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// The kind of reason, for programs.
    pub code: UnusedCode,
    /// A sentence for people: the reason and the next step.
    pub reason: String,
}

/// The kinds of reason. Codes are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnusedCode {
    /// This program was built without CUDA.
    BuiltWithoutCuda,
    /// This program was built without Metal.
    BuiltWithoutMetal,
    /// The card is there and its maker's driver is not.
    DriverMissing,
    /// The driver runs and this process sees no device file of the card.
    DeviceFileMissing,
    /// The device file is there and may not be opened.
    DeviceFileNotAccessible,
    /// The driver is older than the CUDA that this program was built with.
    DriverTooOld,
    /// Others use so much of its memory that no model fits.
    MemoryTaken,
    /// No engine of this program computes on cards of this maker.
    UnsupportedVendor,
}

impl UnusedCode {
    /// The code as programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltWithoutCuda => "built_without_cuda",
            Self::BuiltWithoutMetal => "built_without_metal",
            Self::DriverMissing => "driver_missing",
            Self::DeviceFileMissing => "device_file_missing",
            Self::DeviceFileNotAccessible => "device_file_not_accessible",
            Self::DriverTooOld => "driver_too_old",
            Self::MemoryTaken => "memory_taken",
            Self::UnsupportedVendor => "unsupported_vendor",
        }
    }
}

/// What this program was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// With kernels for CUDA, of this version: 13000 is 13.0.
    pub cuda: Option<u32>,
    /// With kernels for Metal.
    pub has_metal: bool,
    /// For Apple's processors, each of which has a GPU.
    pub is_apple: bool,
}

impl Build {
    /// This program.
    pub fn this() -> Self {
        Self {
            cuda: place::cuda_version(),
            has_metal: cfg!(feature = "metal"),
            is_apple: cfg!(all(target_os = "macos", target_arch = "aarch64")),
        }
    }
}

/// The accelerators of this machine.
pub fn find() -> Vec<Accelerator> {
    judge(&read(), Build::this())
}

/// A device in one line: `2 x NVIDIA H200: not used (built_without_cuda): ..`.
impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.count > 1 {
            write!(f, "{} x ", self.count)?;
        }
        f.write_str(&self.name)?;
        match &self.unused {
            Some(Unused { code, reason }) => {
                write!(f, ": not used ({}): {reason}", code.as_str())
            }
            None => f.write_str(": used for models that fit"),
        }
    }
}

/// Says what is there and why it is not used, in the order of [`DeviceKind`].
pub fn judge(seen: &Seen, build: Build) -> Vec<Accelerator> {
    let mut devices = nvidia(seen, build);
    for (kind, maker) in [(DeviceKind::Amd, "AMD"), (DeviceKind::Intel, "Intel")] {
        let count = seen.cards.iter().filter(|it| kind_of(**it) == Some(kind)).count();
        // A container may see the compute driver and no card.
        let count = if kind == DeviceKind::Amd && seen.has_kfd { count.max(1) } else { count };
        if count > 0 {
            let unused = Some(unsupported(maker));
            devices.push(Accelerator { kind, name: format!("{maker} GPU"), count, unused });
        }
    }
    if build.is_apple {
        let unused = (!build.has_metal).then(|| Unused {
            code: UnusedCode::BuiltWithoutMetal,
            reason: "this program was built without Metal; build it with `--features metal`"
                .to_owned(),
        });
        let name = "Apple GPU".to_owned();
        devices.push(Accelerator { kind: DeviceKind::Apple, name, count: 1, unused });
    }
    for card in seen.cards.iter().filter(|it| kind_of(**it) == Some(DeviceKind::Other)) {
        let maker = format!("vendor {:#06x}", card.vendor);
        add(&mut devices, DeviceKind::Other, &format!("GPU of {maker}"), &unsupported(&maker));
    }
    devices
}

/// One more device, counted with its like.
fn add(devices: &mut Vec<Accelerator>, kind: DeviceKind, name: &str, unused: &Unused) {
    let same = |it: &&mut Accelerator| it.kind == kind && it.name == name;
    match devices.iter_mut().find(same) {
        Some(device) => device.count += 1,
        None => {
            let (name, unused) = (name.to_owned(), Some(unused.clone()));
            devices.push(Accelerator { kind, name, count: 1, unused });
        }
    }
}

fn nvidia(seen: &Seen, build: Build) -> Vec<Accelerator> {
    let kind = DeviceKind::Nvidia;
    let cards = seen.cards.iter().filter(|it| kind_of(**it) == Some(kind)).count();
    let count = seen.nvidia_names.len().max(seen.nvidia_files.len()).max(cards);
    if count == 0 && seen.nvidia_driver.is_none() {
        return Vec::new();
    }
    let unused = nvidia_unused(seen, build);
    let mut devices: Vec<Accelerator> = Vec::new();
    for name in &seen.nvidia_names {
        match devices.iter_mut().find(|it| it.name == *name) {
            Some(device) => device.count += 1,
            None => {
                let (name, unused) = (name.clone(), unused.clone());
                devices.push(Accelerator { kind, name, count: 1, unused });
            }
        }
    }
    if devices.is_empty() {
        let name = "NVIDIA GPU".to_owned();
        devices.push(Accelerator { kind, name, count: count.max(1), unused });
    }
    devices
}

/// The first thing that stands in the way, in the order in which a person would clear it: without
/// the right build nothing else matters.
fn nvidia_unused(seen: &Seen, build: Build) -> Option<Unused> {
    let unused = |code, reason: String| Some(Unused { code, reason });
    let Some(cuda) = build.cuda else {
        let reason = "this program was built without CUDA; build it with `--features cuda`";
        return unused(UnusedCode::BuiltWithoutCuda, reason.to_owned());
    };
    let Some(driver) = &seen.nvidia_driver else {
        let reason = "the card is there and NVIDIA's driver is not loaded; install the driver, or \
                      load it with `modprobe nvidia`";
        return unused(UnusedCode::DriverMissing, reason.to_owned());
    };
    let (found, needed) = (release(driver), driver_needed(cuda));
    if let Some(found) = found.filter(|&found| found < needed) {
        let (major, minor) = (cuda / 1_000, cuda % 1_000 / 10);
        let reason = format!(
            "its driver is {found}, and CUDA {major}.{minor}, which this program was built with, \
             needs {needed}; install a newer driver, or build with an older CUDA"
        );
        return unused(UnusedCode::DriverTooOld, reason);
    }
    if seen.nvidia_files.iter().any(|(_, access)| *access == Access::Open) {
        return memory_taken(&seen.nvidia_free);
    }
    match seen.nvidia_files.first() {
        Some((path, Access::Refused(why))) => unused(
            UnusedCode::DeviceFileNotAccessible,
            format!("{path} cannot be opened: {why}; give this user access to it"),
        ),
        Some((_, Access::Open)) | None => unused(
            UnusedCode::DeviceFileMissing,
            "the driver runs and there is no /dev/nvidia0; a container must be given the device, \
             such as with `--gpus all`"
                .to_owned(),
        ),
    }
}

/// The first number of a driver's release: 570 of `NVRM version: .. Kernel Module  570.86.15  ..`.
fn release(driver: &str) -> Option<u32> {
    let number = |word: &str| word.split('.').next()?.parse().ok();
    driver.split_whitespace().find_map(number)
}

/// The driver with which each version of CUDA came out: kernels are compiled by the driver, and it
/// knows no later language. Source: the release notes of the CUDA toolkit, table 3.
fn driver_needed(cuda: u32) -> u32 {
    const NEEDED: [(u32, u32); 10] = [
        (12_000, 525),
        (12_010, 530),
        (12_020, 535),
        (12_030, 545),
        (12_040, 550),
        (12_050, 555),
        (12_060, 560),
        (12_080, 570),
        (12_090, 575),
        (13_000, 580),
    ];
    let known = NEEDED.iter().rev().find(|(version, _)| *version <= cuda);
    known.map_or(0, |(_, driver)| *driver)
}

/// Whether no card has room for the smallest model. Cards that were not asked have room.
fn memory_taken(free: &[u64]) -> Option<Unused> {
    let most = free.iter().max().copied().filter(|&most| most < BATCH_SIZE)?;
    let reason = format!(
        "{} MiB of its memory are free and a batch alone takes {}; close what uses it",
        most >> 20,
        BATCH_SIZE >> 20
    );
    Some(Unused { code: UnusedCode::MemoryTaken, reason })
}

fn unsupported(maker: &str) -> Unused {
    Unused {
        code: UnusedCode::UnsupportedVendor,
        reason: format!(
            "this engine has no kernels for the GPUs of {maker}; use an external engine for it"
        ),
    }
}

/// Whose card it is; none for graphics that only draw.
fn kind_of(card: Card) -> Option<DeviceKind> {
    match card.vendor {
        0x10de => Some(DeviceKind::Nvidia),
        0x1002 | 0x1022 => Some(DeviceKind::Amd),
        0x8086 => Some(DeviceKind::Intel),
        // ASPEED, Matrox, Cirrus, QEMU, virtio, Red Hat's QXL, VMware, VirtualBox, Hyper-V.
        0x1a03 | 0x102b | 0x1013 | 0x1234 | 0x1af4 | 0x1b36 | 0x15ad | 0x80ee | 0x1414 => None,
        _ => Some(DeviceKind::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Build = Build { cuda: None, has_metal: false, is_apple: false };
    const CUDA: Build = Build { cuda: Some(12_080), ..PLAIN };

    fn cards(vendors: &[u32]) -> Seen {
        let cards = vendors.iter().map(|&vendor| Card { vendor }).collect();
        Seen { cards, ..Seen::default() }
    }

    /// A machine with NVIDIA's driver, cards of these names, and this file.
    fn driven(names: &[&str], file: Option<Access>) -> Seen {
        Seen {
            nvidia_driver: Some("NVRM version: 570".to_owned()),
            nvidia_names: names.iter().map(|&name| name.to_owned()).collect(),
            nvidia_files: file.map(|it| ("/dev/nvidia0".to_owned(), it)).into_iter().collect(),
            ..Seen::default()
        }
    }

    /// Each device as `count name code`.
    fn check(seen: &Seen, build: Build, want: &[&str]) {
        let found = judge(seen, build);
        let line = |it: &Accelerator| {
            let code = it.unused.as_ref().map_or("usable", |unused| unused.code.as_str());
            format!("{} {} {code}", it.count, it.name)
        };
        let lines: Vec<_> = found.iter().map(line).collect();
        assert_eq!(lines, want, "{seen:?} {build:?}");
        for unused in found.iter().filter_map(|it| it.unused.as_ref()) {
            assert!(unused.reason.contains("; "), "no next step: {}", unused.reason);
        }
    }

    #[test]
    fn a_machine_without_accelerators_has_none() {
        check(&Seen::default(), PLAIN, &[]);
        check(&cards(&[0x1a03, 0x1234, 0x1af4]), CUDA, &[]);
    }

    #[test]
    fn an_nvidia_card_is_used_when_nothing_stands_in_the_way() {
        let refused = || Some(Access::Refused("permission denied".to_owned()));
        let name = "NVIDIA H200";
        check(&driven(&[name], Some(Access::Open)), CUDA, &["1 NVIDIA H200 usable"]);
        check(&driven(&[name; 2], Some(Access::Open)), CUDA, &["2 NVIDIA H200 usable"]);
        check(&driven(&[name], None), CUDA, &["1 NVIDIA H200 device_file_missing"]);
        let want = ["1 NVIDIA H200 device_file_not_accessible"];
        check(&driven(&[name], refused()), CUDA, &want);
        check(&cards(&[0x10de; 2]), CUDA, &["2 NVIDIA GPU driver_missing"]);
        check(&driven(&[], Some(Access::Open)), CUDA, &["1 NVIDIA GPU usable"]);
        // The build comes first: whatever else is wrong, this alone would keep it unused.
        check(&driven(&[name], refused()), PLAIN, &["1 NVIDIA H200 built_without_cuda"]);
        check(&cards(&[0x10de]), PLAIN, &["1 NVIDIA GPU built_without_cuda"]);
    }

    #[test]
    fn a_driver_that_is_too_old_for_the_build_is_named() {
        let seen = |driver: &str| Seen {
            nvidia_driver: Some(driver.to_owned()),
            ..driven(&["NVIDIA H200"], Some(Access::Open))
        };
        let module = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release";
        let build = |cuda| Build { cuda: Some(cuda), ..PLAIN };
        let (used, old) = (["1 NVIDIA H200 usable"], ["1 NVIDIA H200 driver_too_old"]);
        check(&seen(module), build(12_040), &used);
        check(&seen(module), build(12_060), &old);
        check(&seen(module), build(13_000), &old);
        check(&seen(open), build(12_080), &used);
        check(&seen(open), build(13_000), &used);
        // What cannot be read is no reason: the driver itself will say.
        check(&seen("a version"), build(13_000), &used);
        let reason = judge(&seen(module), build(13_000)).remove(0).to_string();
        assert!(reason.contains("is 550, and CUDA 13.0, which"), "{reason}");
        assert!(reason.contains("needs 580; install a newer driver"), "{reason}");
    }

    #[test]
    fn a_card_whose_memory_others_use_is_named() {
        let seen = |free: &[u64]| Seen {
            nvidia_free: free.to_vec(),
            ..driven(&["NVIDIA H200"; 2], Some(Access::Open))
        };
        check(&seen(&[BATCH_SIZE - 1, 5]), CUDA, &["2 NVIDIA H200 memory_taken"]);
        check(&seen(&[5, BATCH_SIZE]), CUDA, &["2 NVIDIA H200 usable"]);
        check(&seen(&[0]), PLAIN, &["2 NVIDIA H200 built_without_cuda"]);
    }

    #[test]
    fn other_makers_are_named_and_refused() {
        let want = [
            "2 AMD GPU unsupported_vendor",
            "1 Intel GPU unsupported_vendor",
            "2 GPU of vendor 0x9999 unsupported_vendor",
        ];
        check(&cards(&[0x1002, 0x8086, 0x9999, 0x1002, 0x9999]), CUDA, &want);
        let kfd = Seen { has_kfd: true, ..Seen::default() };
        check(&kfd, PLAIN, &["1 AMD GPU unsupported_vendor"]);
    }

    #[test]
    fn an_apple_machine_has_a_gpu_by_its_target() {
        let apple = Build { is_apple: true, ..PLAIN };
        check(&Seen::default(), apple, &["1 Apple GPU built_without_metal"]);
        check(&Seen::default(), Build { has_metal: true, ..apple }, &["1 Apple GPU usable"]);
    }

    #[test]
    fn a_device_is_one_line_with_its_code() {
        let devices = judge(&driven(&["NVIDIA H200"; 2], None), PLAIN);
        let line = devices.first().map(ToString::to_string).unwrap_or_default();
        assert!(line.starts_with("2 x NVIDIA H200: not used (built_without_cuda): "), "{line}");
        let value = serde_json::to_value(&devices).expect("devices are plain values");
        assert_eq!(value[0]["unused"]["code"], "built_without_cuda");
    }
}
