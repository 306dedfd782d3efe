//! Devices by name, and what is said where one cannot be used.

use super::*;

#[test]
fn a_device_is_written_as_it_is_read() {
    for (text, device) in [
        ("auto", Device::Auto),
        ("cpu", Device::Cpu),
        ("cuda:0", Device::Cuda(0)),
        ("cuda:7", Device::Cuda(7)),
        ("metal:1", Device::Metal(1)),
    ] {
        assert_eq!(text.parse(), Ok(device));
        assert_eq!(device.to_string(), text);
    }
    assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
    assert_eq!("metal".parse(), Ok(Device::Metal(0)));
    for text in ["", "gpu", "cpu:0", "auto:1", "cuda:", "cuda:-1", "cuda:x", "metal:1:2", "CUDA"] {
        let error = text.parse::<Device>().expect_err(text);
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

/// What a device answers when it is opened.
#[derive(Clone, Copy)]
enum Answer {
    Opens,
    Fails,
    Lacks,
}

/// Decides between devices that answer like this, and says what came of it.
fn check(device: Device, devices: &[(Device, Answer)], want: &str) {
    let open = |device| {
        let answer = devices.iter().find(|(known, _)| *known == device).map(|(_, answer)| *answer);
        match answer {
            Some(Answer::Opens) => {
                let class = EngineClass {
                    device: "a card".to_owned(),
                    kernels: "candle/tol".to_owned(),
                    version: "1".to_owned(),
                };
                Ok((Place::Cpu, Placement { device, reason: None, class }))
            }
            Some(Answer::Fails) => {
                Err(DeviceError::Absent { device, source: "no such card".into() })
            }
            Some(Answer::Lacks) => Err(DeviceError::Memory { device, needed: 9, available: 5 }),
            None => Err(DeviceError::NotBuilt { device, feature: "cuda" }),
        }
    };
    let offered: Vec<_> = devices.iter().map(|(device, _)| *device).collect();
    let said = match decide(device, &offered, open) {
        Ok((_, placement)) => {
            let is_ours = placement.class == crate::model::engine_class();
            assert_eq!(is_ours, placement.device == Device::Cpu, "each has the class of its own");
            placement.to_string()
        }
        Err(error) => format!("refused: {}", in_full(&error)),
    };
    assert!(said.starts_with(want), "{said:?} for {want:?}");
}

#[test]
fn the_first_device_that_the_model_fits_is_used_and_else_the_processor_with_the_reasons() {
    use Answer::{Fails, Lacks, Opens};
    let (first, second) = (Device::Cuda(0), Device::Cuda(1));
    check(Device::Auto, &[(first, Opens), (second, Opens)], "cuda:0");
    check(Device::Auto, &[(first, Lacks), (second, Opens)], "cuda:1");
    check(Device::Auto, &[(Device::Metal(0), Opens)], "metal:0");
    let told = "cpu (9 bytes are needed on cuda:0 and 5 are free;";
    check(Device::Auto, &[(first, Lacks)], told);
    check(Device::Auto, &[(first, Fails)], "cpu (cuda:0 cannot be used; see `commons doctor`");
    check(Device::Auto, &[], "cpu");
    check(Device::Cpu, &[(first, Opens)], "cpu");
    check(second, &[(first, Opens), (second, Opens)], "cuda:1");
    // What was named is not replaced by something else.
    check(first, &[(first, Lacks), (second, Opens)], "refused: 9 bytes are needed on cuda:0");
    check(second, &[(first, Opens), (second, Fails)], "refused: cuda:1 cannot be used");
    check(Device::Cuda(0), &[], "refused: this program was built without cuda; build it with");
}

#[test]
fn the_processor_is_always_there() {
    let (place, placement) = choose(Device::Cpu, u64::MAX).expect("needs nothing");
    assert!(matches!(place, Place::Cpu));
    assert_eq!(placement.to_string(), "cpu");
}

#[cfg(not(any(feature = "cuda", feature = "metal")))]
#[test]
fn a_build_without_devices_computes_on_the_processor_and_refuses_others_by_name() {
    let (place, placement) = choose(Device::Auto, 0).expect("falls back");
    assert!(matches!(place, Place::Cpu));
    assert_eq!(placement.reason, None);
    for (device, feature) in [(Device::Cuda(0), "cuda"), (Device::Metal(0), "metal")] {
        let error = choose(device, 0).expect_err("was not built");
        assert!(error.to_string().contains(&format!("`--features {feature}`")), "{error}");
    }
}

#[cfg(feature = "candle")]
#[test]
fn what_candle_computes_has_a_class_of_its_own() {
    let (place, placement) = choose(Device::Candle, u64::MAX).expect("is the processor");
    assert!(matches!(place, Place::Candle(_)));
    assert_eq!(placement.class.kernels, "candle/tol");
    assert_ne!(placement.class, crate::model::engine_class());
}
