//! The machine: processor, memory, accelerators, open files and the clock.

use commons_engine::devices::{self, Accelerator};
use commons_port::time::Clock as _;
use commons_record::Millis;

use super::Finding;
use crate::machine;
use crate::output::{bytes, moment};
use crate::runtime::RealClock;

/// The smallest useful model, its cache and the program.
const MEMORY_MIN: u64 = 1 << 30;

/// Each connection and each stream is a file: 128 of the API, 256 of the mesh, and the journal.
const OPEN_FILES_MIN: u64 = 1024;

/// When this version was written, 1 January 2026: no clock that is right shows less.
const BUILT: Millis = Millis::from_secs(1_767_225_600);

/// Beyond this, 1 January 2100, a clock was set by accident.
const FAR_FUTURE: Millis = Millis::from_secs(4_102_444_800);

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![processor(), memory()];
    findings.extend(accelerators(&devices::find()));
    findings.extend([open_files(), clock(RealClock::new().unix())]);
    findings
}

fn processor() -> Finding {
    let name = machine::processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let wide = machine::wide_instructions();
    let detail = format!("{name}, {} threads, {}", machine::cores(), wide.join(" "));
    let is_slow = cfg!(target_arch = "x86_64") && !wide.contains(&"avx2");
    if is_slow {
        return Finding::note(
            "processor",
            format!("{detail}without AVX2"),
            "models work, several times slower than on a newer processor",
        );
    }
    Finding::ok("processor", detail.trim_end_matches([',', ' ']).to_owned())
}

fn memory() -> Finding {
    let Some(memory) = machine::memory() else {
        return Finding::ok("memory", "this system does not tell");
    };
    let (available, total) = (bytes(memory.available), bytes(memory.total));
    let detail = format!("{available} of {total} available");
    if memory.available < MEMORY_MIN {
        return Finding::note(
            "memory",
            format!("{detail}: only the smallest models fit"),
            "close other programs, or join a mesh and let others compute",
        );
    }
    Finding::ok("memory", detail)
}

fn accelerators(devices: &[Accelerator]) -> Vec<Finding> {
    const CHECK: &str = "accelerator";
    if devices.is_empty() {
        return vec![Finding::ok(CHECK, "none seen; models run on the processor")];
    }
    let finding = |device: &Accelerator| match device.unused {
        None => Finding::ok(CHECK, device.to_string()),
        Some(_) => Finding::note(CHECK, device.to_string(), "models run on the processor"),
    };
    devices.iter().map(finding).collect()
}

fn open_files() -> Finding {
    match machine::open_files_max() {
        None => Finding::ok("open files", "no limit"),
        Some(max) if max < OPEN_FILES_MIN => Finding::fault(
            "open files",
            format!("at most {max}, and a busy node needs {OPEN_FILES_MIN}"),
            format!("type `ulimit -n {OPEN_FILES_MIN}` before `commons up`"),
        ),
        Some(max) => Finding::ok("open files", format!("at most {max}")),
    }
}

fn clock(now: Millis) -> Finding {
    let detail = format!("it is {} UTC", moment(now));
    if (BUILT..FAR_FUTURE).contains(&now) {
        return Finding::ok("clock", detail);
    }
    Finding::fault(
        "clock",
        format!("{detail}, which cannot be: others refuse records of another epoch"),
        "set the machine's clock, best with a time service such as systemd-timesyncd",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_is_a_fault() {
        let check = |secs, want| assert_eq!(clock(Millis::from_secs(secs)).verdict, want, "{secs}");
        check(0, Verdict::Fault);
        check(1_800_000_000, Verdict::Ok);
        check(5_000_000_000, Verdict::Fault);
    }
}
