//! Which instruction set the kernels use.

use std::sync::atomic::{AtomicU8, Ordering};

/// Instruction set of the kernels. Every level computes **the same bits**; levels differ in speed only.
///
/// Every level has a name on every processor. The levels of one architecture are ordered, lowest first, above
/// [`Scalar`](Self::Scalar), which all have; between architectures the order means nothing, and a level of another one is never
/// used (see [`usable`](Self::usable)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SimdLevel {
    /// Portable Rust; what the compiler makes of it on the target's baseline. Everywhere.
    Scalar = 1,
    /// x86-64 with AVX2, FMA and F16C (Haswell, Zen, and later).
    Avx2 = 2,
    /// [`Avx2`](Self::Avx2) and AVX-VNNI, its dot products of bytes (Alder Lake, Zen 5, and later). Not every processor with a higher
    /// level has it.
    AvxVnni = 3,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI (Cascade Lake, Ice Lake, Zen 4, and later).
    Avx512Vnni = 4,
    /// [`Avx512Vnni`](Self::Avx512Vnni) and AMX int8 tiles for batches (Sapphire Rapids and later), where the system grants it.
    Amx = 5,
    /// aarch64 with NEON, which is in its baseline.
    Neon = 6,
    /// [`Neon`](Self::Neon) and its dot products of bytes (FEAT_DotProd: Cortex-A76, Neoverse N1, Apple M1, and later).
    NeonDotprod = 7,
    /// [`NeonDotprod`](Self::NeonDotprod) and products of matrices of bytes for batches (FEAT_I8MM: Neoverse V1, Cortex-A710, Apple
    /// M2, and later).
    NeonI8mm = 8,
}

impl SimdLevel {
    /// Every level: `Scalar`, then those of x86-64 and those of aarch64, each lowest first.
    pub const ALL: [Self; 8] = [
        Self::Scalar,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512Vnni,
        Self::Amx,
        Self::Neon,
        Self::NeonDotprod,
        Self::NeonI8mm,
    ];

    /// Environment variable that lowers the level: `scalar`; `avx2`, `avx-vnni`, `avx512` (also `avx512-vnni`) or `amx`; `neon`,
    /// `neon-dotprod` or `neon-i8mm`.
    pub const ENV: &str = "BRICK_SIMD";

    /// The highest level this processor can run. Asked of the processor once.
    pub fn supported() -> Self {
        static CACHE: AtomicU8 = AtomicU8::new(0);
        match CACHE.load(Ordering::Relaxed) {
            1 => Self::Scalar,
            2 => Self::Avx2,
            3 => Self::AvxVnni,
            4 => Self::Avx512Vnni,
            5 => Self::Amx,
            6 => Self::Neon,
            7 => Self::NeonDotprod,
            8 => Self::NeonI8mm,
            _ => {
                // Racing threads ask the processor twice and store the same answer.
                let level = ask_processor();
                CACHE.store(level as u8, Ordering::Relaxed);
                level
            }
        }
    }

    /// Whether this architecture has the level, in some processor.
    const fn native(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni | Self::Amx => cfg!(target_arch = "x86_64"),
            Self::Neon | Self::NeonDotprod | Self::NeonI8mm => cfg!(target_arch = "aarch64"),
        }
    }

    /// The level, or the next lower one of its architecture that this processor can run: [`Scalar`](Self::Scalar) if it has none.
    #[inline]
    #[must_use]
    pub fn usable(self) -> Self {
        if !self.native() {
            return Self::Scalar;
        }
        match self.min(Self::supported()) {
            Self::AvxVnni if !has_avx_vnni() => Self::Avx2,
            level => level,
        }
    }

    /// The level to use: [`supported`](Self::supported), lowered by the environment variable [`ENV`](Self::ENV).
    ///
    /// Read once, at the first call. The variable can only lower: asking for more than the processor has, or for a level
    /// with no such name, leaves the level at what the processor has (callers who want to report that use
    /// [`requested`](Self::requested)).
    pub fn detect() -> Self {
        static LEVEL: std::sync::OnceLock<SimdLevel> = std::sync::OnceLock::new();
        *LEVEL.get_or_init(|| match Self::requested() {
            Ok(Some(level)) => level.usable(),
            Ok(None) | Err(_) => Self::supported(),
        })
    }

    /// What [`ENV`](Self::ENV) asks for: `None` when it is unset or empty.
    ///
    /// # Errors
    /// The variable has a value that is not the name of a level.
    pub fn requested() -> Result<Option<Self>, UnknownLevel> {
        match std::env::var_os(Self::ENV) {
            Some(value) if !value.is_empty() => value.to_string_lossy().parse().map(Some),
            _ => Ok(None),
        }
    }

    /// Every level this processor can run, lowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|&level| level == level.usable())
    }

    /// Name in reports: `scalar`, `avx2`, `avx-vnni`, `avx512-vnni`, `amx`, `neon`, `neon-dotprod`, `neon-i8mm`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
            Self::NeonI8mm => "neon-i8mm",
        }
    }
}

impl std::fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not a SIMD level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown SIMD level {found:?}: expected scalar, avx2, avx-vnni, avx512, amx, neon, neon-dotprod or neon-i8mm")]
pub struct UnknownLevel {
    /// What was given.
    pub found: String,
}

impl std::str::FromStr for SimdLevel {
    type Err = UnknownLevel;

    fn from_str(s: &str) -> Result<Self, UnknownLevel> {
        match s {
            "scalar" => Ok(Self::Scalar),
            "avx2" => Ok(Self::Avx2),
            "avx-vnni" => Ok(Self::AvxVnni),
            "avx512" | "avx512-vnni" => Ok(Self::Avx512Vnni),
            "amx" => Ok(Self::Amx),
            "neon" => Ok(Self::Neon),
            "neon-dotprod" => Ok(Self::NeonDotprod),
            "neon-i8mm" => Ok(Self::NeonI8mm),
            _ => Err(UnknownLevel { found: s.to_owned() }),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn ask_processor() -> SimdLevel {
    use std::arch::is_x86_feature_detected as has;
    // Miri interprets baseline instructions and few of the others.
    if cfg!(miri) || !(has!("avx2") && has!("fma") && has!("f16c")) {
        SimdLevel::Scalar
    } else if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni") {
        if amx_granted() { SimdLevel::Amx } else { SimdLevel::Avx512Vnni }
    } else if has_avx_vnni() {
        SimdLevel::AvxVnni
    } else {
        SimdLevel::Avx2
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx_vnni() -> bool {
    // The standard library keeps what it has asked.
    is_x86_feature_detected!("avxvnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx_vnni() -> bool {
    false
}

/// Whether the processor has AMX int8 tiles and the system lets this process use them. Linux wants to be asked first, once per
/// process, because the tiles make a thread's saved state 8 KiB larger.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_granted() -> bool {
    use std::arch::x86_64::__cpuid_count;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    if __cpuid_count(7, 0).edx & (TILE | INT8) != TILE | INT8 {
        return false;
    }
    // SAFETY: a system call that takes two numbers and changes nothing but the permission. It fails where the kernel is older
    // than AMX or the hypervisor hides the tile state.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_granted() -> bool {
    false
}

#[cfg(target_arch = "aarch64")]
fn ask_processor() -> SimdLevel {
    use std::arch::is_aarch64_feature_detected as has;
    // Miri, as above; NEON is not asked for, as the compiler uses it everywhere.
    if cfg!(miri) {
        SimdLevel::Scalar
    } else if has!("dotprod") && has!("i8mm") {
        SimdLevel::NeonI8mm
    } else if has!("dotprod") {
        SimdLevel::NeonDotprod
    } else {
        SimdLevel::Neon
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn ask_processor() -> SimdLevel {
    SimdLevel::Scalar
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_to_their_levels() {
        for level in SimdLevel::ALL {
            assert_eq!(level.name().parse::<SimdLevel>().unwrap(), level);
        }
        assert_eq!("avx512".parse(), Ok(SimdLevel::Avx512Vnni));
        assert_eq!("sse9".parse::<SimdLevel>().unwrap_err().found, "sse9");
    }

    #[test]
    fn what_is_used_is_available_and_the_portable_level_always_is() {
        assert!(SimdLevel::available().any(|l| l == SimdLevel::Scalar));
        assert!(SimdLevel::available().any(|l| l == SimdLevel::detect()));
        assert_eq!(SimdLevel::available().last(), Some(SimdLevel::supported()));
        assert!(SimdLevel::ALL.iter().all(|l| l.usable() <= *l && SimdLevel::available().any(|a| a == l.usable())));
    }

    #[test]
    fn levels_of_other_architectures_are_never_used() {
        let x86 = [SimdLevel::Avx2, SimdLevel::AvxVnni, SimdLevel::Avx512Vnni, SimdLevel::Amx];
        let arm = [SimdLevel::Neon, SimdLevel::NeonDotprod, SimdLevel::NeonI8mm];
        assert_eq!(SimdLevel::ALL.len(), 1 + x86.len() + arm.len());
        for (levels, here) in [(&x86[..], cfg!(target_arch = "x86_64")), (&arm[..], cfg!(target_arch = "aarch64"))] {
            for &level in levels {
                assert!(here || level.usable() == SimdLevel::Scalar, "{level} is used as {}", level.usable());
                assert!(here || SimdLevel::available().all(|l| l != level), "{level} is available");
            }
        }
    }

    #[cfg(all(target_arch = "aarch64", not(miri)))]
    #[test]
    fn neon_levels_fall_back_to_what_the_processor_has() {
        let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
        let i8mm = dotprod && std::arch::is_aarch64_feature_detected!("i8mm");
        assert_eq!(SimdLevel::Neon.usable(), SimdLevel::Neon);
        let with_dotprod = if dotprod { SimdLevel::NeonDotprod } else { SimdLevel::Neon };
        assert_eq!(SimdLevel::NeonDotprod.usable(), with_dotprod);
        assert_eq!(SimdLevel::NeonI8mm.usable(), if i8mm { SimdLevel::NeonI8mm } else { with_dotprod });
        assert_eq!(SimdLevel::available().count(), 2 + usize::from(dotprod) + usize::from(i8mm));
    }
}
