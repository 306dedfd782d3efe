//! Where a model is computed: what was asked for, what there is, and what was chosen.
//!
//! ```text
//! Device (asked for) -> choose(needed bytes) -> Place (for the loader) + Placement (for people)
//! ```
//!
//! The processor is always there, and its class repeats bit for bit. A device is used where the
//! build has its feature (`cuda`, `metal`), the machine has one, and the model fits what is free
//! there. What a device computes is of another class, and never claims to repeat.
//!
//! Not here: the arithmetic (`forward/machine.rs`), how pages are counted (`room.rs`), and why an
//! accelerator of this machine cannot be used (`devices.rs`).

#[cfg(feature = "candle")]
mod found;

use std::fmt;
use std::str::FromStr;

use commons_record::settlement::EngineClass;

/// Where a model shall be computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// On the first device that the model fits; else on the processor, with the reason told.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On the CUDA device of this number, or not at all.
    Cuda(usize),
    /// On the Metal device of this number, or not at all.
    Metal(usize),
    /// On the processor, through the library that computes on devices: what tests compare with.
    #[cfg(feature = "candle")]
    Candle,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal(index) => write!(f, "metal:{index}"),
            #[cfg(feature = "candle")]
            Self::Candle => f.write_str("candle"),
        }
    }
}

/// Why a text names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no device; write auto, cpu, cuda, cuda:N, metal or metal:N")]
pub struct UnknownDevice {
    text: String,
}

impl FromStr for Device {
    type Err = UnknownDevice;

    /// Reads what people write: `auto`, `cpu`, `cuda:1`. Without a number the first is meant.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, index.parse().ok()),
            None => (text, Some(0)),
        };
        match (name, index) {
            _ if text == "auto" => Ok(Self::Auto),
            _ if text == "cpu" => Ok(Self::Cpu),
            ("cuda", Some(index)) => Ok(Self::Cuda(index)),
            ("metal", Some(index)) => Ok(Self::Metal(index)),
            _ => Err(UnknownDevice { text: text.to_owned() }),
        }
    }
}

/// Why a device is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum DeviceError {
    #[error(
        "this program was built without {feature}; build it with `--features {feature}`, or leave \
         {device} and compute on the processor"
    )]
    NotBuilt { device: Device, feature: &'static str },

    #[error("{device} cannot be used; see `commons doctor`, or compute on the processor")]
    Absent { device: Device, source: Box<dyn std::error::Error + Send + Sync> },

    #[error(
        "{needed} bytes are needed on {device} and {available} are free; close something, take a \
         smaller quantisation, or compute on the processor"
    )]
    Memory { device: Device, needed: u64, available: u64 },
}

/// A place that computes, opened.
#[derive(Clone, Debug)]
pub enum Place {
    /// The processor, with our own kernels.
    Cpu,
    /// A device of candle's.
    #[cfg(feature = "candle")]
    Candle(candle_core::Device),
}

/// What was chosen, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where the model is computed: never [`Device::Auto`].
    pub device: Device,
    /// Why it is not on a device, where one was not ruled out.
    pub reason: Option<String>,
    /// What computes there.
    pub class: EngineClass,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{} ({reason})", self.device),
            None => write!(f, "{}", self.device),
        }
    }
}

/// A place and what there is to say about it.
type Chosen = (Place, Placement);

/// Opens the device that is asked for. `needed` are the bytes that a model takes there at least.
pub fn choose(device: Device, needed: u64) -> Result<Chosen, DeviceError> {
    let chosen = decide(device, &offered(), |device| open(device, needed))?;
    let placement = &chosen.1;
    let reason = placement.reason.as_deref();
    tracing::info!(device = %placement.device, reason, "chose where to compute");
    Ok(chosen)
}

/// Decides between the devices that are offered, best first, and the processor.
fn decide(
    device: Device,
    offered: &[Device],
    open: impl Fn(Device) -> Result<Chosen, DeviceError>,
) -> Result<Chosen, DeviceError> {
    let cpu = |reason| {
        let class = crate::model::engine_class();
        (Place::Cpu, Placement { device: Device::Cpu, reason, class })
    };
    match device {
        Device::Cpu => Ok(cpu(None)),
        Device::Auto => {
            let mut reasons = Vec::new();
            for &device in offered {
                match open(device) {
                    Ok(chosen) => return Ok(chosen),
                    Err(error) => reasons.push(in_full(&error)),
                }
            }
            // Where none was to be expected there is nothing to tell.
            if reasons.is_empty() && cfg!(any(feature = "cuda", feature = "metal")) {
                reasons.push("this program sees no GPU".to_owned());
            }
            Ok(cpu((!reasons.is_empty()).then(|| reasons.join("; "))))
        }
        named => open(named),
    }
}

/// An error with its causes, on one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Drivers write whole paragraphs.
        text = format!("{text}: {}", error.to_string().lines().next().unwrap_or_default());
        cause = error.source();
    }
    text
}

#[cfg(feature = "candle")]
pub(crate) use found::{available, cuda_free, cuda_version};
#[cfg(feature = "candle")]
use found::{offered, open};

#[cfg(not(feature = "candle"))]
mod absent {
    //! A build without devices.

    use super::{Chosen, Device, DeviceError};

    pub(super) fn offered() -> Vec<Device> {
        Vec::new()
    }

    pub(super) fn open(device: Device, _: u64) -> Result<Chosen, DeviceError> {
        let feature = if matches!(device, Device::Metal(_)) { "metal" } else { "cuda" };
        Err(DeviceError::NotBuilt { device, feature })
    }

    pub(crate) fn cuda_version() -> Option<u32> {
        None
    }

    pub(crate) fn cuda_free() -> Vec<u64> {
        Vec::new()
    }
}
#[cfg(not(feature = "candle"))]
pub(crate) use absent::{cuda_free, cuda_version};
#[cfg(not(feature = "candle"))]
use absent::{offered, open};

#[cfg(test)]
mod tests;
