//! Instruction sets, chosen at run time.

use std::fmt;

/// The instruction sets that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Plain Rust: runs everywhere, and says what the others must compute.
    Scalar,
    /// 64-bit ARM.
    Neon,
    /// x86 with AVX2 and F16C.
    Avx2,
    /// x86 with AVX-512 F, BW, VL and VNNI.
    Avx512,
}

/// An instruction set that this machine has: only detection makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Kind);

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum IsaError {
    #[error("there are no kernels for {name:?}; there are: scalar, neon, avx2, avx512")]
    Unknown { name: String },

    #[error("this machine has no {kind}; it has: {available}")]
    Missing { kind: Kind, available: String },
}

impl Kind {
    const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            // See `intrinsics.rs`.
            #[cfg(all(target_arch = "x86_64", emulated_avx512))]
            Self::Avx512 => Self::Avx2.is_available(),
            #[cfg(all(target_arch = "x86_64", not(emulated_avx512)))]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns, reason = "which kinds are left depends on the target")]
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Isa {
    /// Plain Rust, which every machine has.
    pub const SCALAR: Self = Self(Kind::Scalar);

    /// The fastest that this machine has.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::SCALAR)
    }

    /// Those that this machine has, the slowest first.
    pub fn available() -> Vec<Self> {
        Kind::ALL.into_iter().filter(|kind| kind.is_available()).map(Self).collect()
    }

    /// The one of this name, if this machine has it.
    pub fn named(name: &str) -> Result<Self, IsaError> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| IsaError::Unknown { name: name.to_owned() })?;
        if kind.is_available() {
            return Ok(Self(kind));
        }
        let available: Vec<_> = Self::available().iter().map(ToString::to_string).collect();
        Err(IsaError::Missing { kind, available: available.join(", ") })
    }

    /// Which it is.
    pub fn kind(self) -> Kind {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_instruction_set_is_an_available_one_and_has_a_name_that_finds_it() {
        assert!(Isa::available().contains(&Isa::SCALAR));
        for isa in Isa::available() {
            assert_eq!(Isa::named(&isa.to_string()), Ok(isa));
        }
        assert!(Isa::available().contains(&Isa::best()));
    }

    #[test]
    fn what_is_unknown_or_missing_is_refused_by_name() {
        let unknown = Isa::named("avx9").expect_err("there is none");
        assert!(unknown.to_string().contains("avx9"), "{unknown}");
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_available()) {
            let missing = Isa::named(kind.name()).expect_err("it is not here");
            assert!(missing.to_string().contains("it has: scalar"), "{missing}");
        }
    }
}
