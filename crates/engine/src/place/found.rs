//! Devices through candle: counted, opened, named, measured.
//!
//! A program that is built with CUDA needs NVIDIA's driver library to start at all. Whether its
//! kernels run is known when one did: [`open`] adds two numbers.

use candle_core as candle;
use commons_record::settlement::EngineClass;

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::{CudaContext, sys::CUDA_VERSION};

use super::{Chosen, Device, DeviceError, Place, Placement};

/// More cards than any machine has.
#[cfg(feature = "cuda")]
const CARDS_MAX: usize = 64;

/// The devices that this build can use, best first.
pub(super) fn offered() -> Vec<Device> {
    let cuda = (0..cuda_count()).map(Device::Cuda);
    cuda.chain(cfg!(feature = "metal").then_some(Device::Metal(0))).collect()
}

/// Opens a device, if the bytes that are needed are free there.
pub(super) fn open(device: Device, needed: u64) -> Result<Chosen, DeviceError> {
    let absent = |source| DeviceError::Absent { device, source: Box::new(source) };
    let opened = match device {
        Device::Cuda(_) if cfg!(not(feature = "cuda")) => {
            return Err(DeviceError::NotBuilt { device, feature: "cuda" });
        }
        Device::Metal(_) if cfg!(not(feature = "metal")) => {
            return Err(DeviceError::NotBuilt { device, feature: "metal" });
        }
        Device::Cuda(index) => candle::Device::new_cuda(index).map_err(absent)?,
        Device::Metal(index) => candle::Device::new_metal(index).map_err(absent)?,
        Device::Candle | Device::Auto | Device::Cpu => candle::Device::Cpu,
    };
    check_kernels(&opened).map_err(absent)?;
    let available = available(&opened).filter(|_| !opened.is_cpu());
    if let Some(available) = available.filter(|&available| needed > available) {
        return Err(DeviceError::Memory { device, needed, available });
    }
    let class = EngineClass {
        device: name(&opened),
        kernels: "candle/tol".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok((Place::Candle(opened), Placement { device, reason: None, class }))
}

/// Computes something: a driver that is too old for the kernels says so here, and not in the midst
/// of a model.
fn check_kernels(device: &candle::Device) -> candle::Result<()> {
    let one = candle::Tensor::ones(1, candle::DType::F32, device)?;
    let sum: Vec<f32> = (&one + &one)?.to_vec1()?;
    if sum != [2.0] {
        candle::bail!("it added one and one to {sum:?}");
    }
    Ok(())
}

/// Bytes that are free on a device, as its driver tells.
pub(crate) fn available(device: &candle::Device) -> Option<u64> {
    match device {
        candle::Device::Cpu => crate::memory::available_memory(),
        #[cfg(feature = "cuda")]
        candle::Device::Cuda(device) => {
            let (free, _) = device.cuda_stream().context().mem_get_info().ok()?;
            Some(free as u64)
        }
        #[cfg(feature = "metal")]
        candle::Device::Metal(device) => {
            let device = device.metal_device();
            let most = device.recommended_max_working_set_size() as u64;
            Some(most.saturating_sub(device.current_allocated_size() as u64))
        }
        #[cfg(not(all(feature = "cuda", feature = "metal")))]
        _ => None,
    }
}

/// What a device is: two of one name can be expected to agree closely.
fn name(device: &candle::Device) -> String {
    match device {
        candle::Device::Cpu => "cpu".to_owned(),
        #[cfg(feature = "cuda")]
        candle::Device::Cuda(device) => match device.cuda_stream().context().compute_capability() {
            Ok((major, minor)) => format!("cuda/sm_{major}{minor}"),
            Err(_) => "cuda".to_owned(),
        },
        #[cfg(feature = "metal")]
        candle::Device::Metal(_) => "metal".to_owned(),
        #[cfg(not(all(feature = "cuda", feature = "metal")))]
        _ => "unknown".to_owned(),
    }
}

/// The version of CUDA that this program was built with, such as 13000 for 13.0.
pub(crate) fn cuda_version() -> Option<u32> {
    #[cfg(feature = "cuda")]
    return Some(CUDA_VERSION);
    #[cfg(not(feature = "cuda"))]
    None
}

fn cuda_count() -> usize {
    #[cfg(feature = "cuda")]
    return CudaContext::device_count()
        .map_or(0, |count| usize::try_from(count).unwrap_or(0))
        .min(CARDS_MAX);
    #[cfg(not(feature = "cuda"))]
    0
}

/// Bytes that are free on each CUDA device that can be asked.
pub(crate) fn cuda_free() -> Vec<u64> {
    #[cfg(feature = "cuda")]
    return (0..cuda_count())
        .filter_map(|index| CudaContext::new(index).ok()?.mem_get_info().ok())
        .map(|(free, _)| free as u64)
        .collect();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}
