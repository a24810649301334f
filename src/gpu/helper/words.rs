//! NVML's errors in words, each with the name that nvml.h gives it: nvml-wrapper has no name for those from 23 on.

use nvml_wrapper::error::NvmlError;

/// Number, name without `NVML_ERROR_`, and what it means. All of nvml.h of NVML 13.
const ERRORS: &[(u32, &str, &str)] = &[
    (1, "UNINITIALIZED", "NVML is not initialized"),
    (2, "INVALID_ARGUMENT", "the driver rejects an argument"),
    (3, "NOT_SUPPORTED", "not supported by this GPU or its driver"),
    (4, "NO_PERMISSION", "this process may not do that"),
    (5, "ALREADY_INITIALIZED", "NVML is already initialized"),
    (6, "NOT_FOUND", "not found"),
    (7, "INSUFFICIENT_SIZE", "the buffer is too small for the answer"),
    (8, "INSUFFICIENT_POWER", "its external power cables are not properly attached"),
    (9, "DRIVER_NOT_LOADED", "NVIDIA's driver is not loaded"),
    (10, "TIMEOUT", "the driver timed out"),
    (11, "IRQ_ISSUE", "the kernel detected an interrupt problem with a GPU"),
    (12, "LIBRARY_NOT_FOUND", "a shared library was not found"),
    (13, "FUNCTION_NOT_FOUND", "this driver does not have the function"),
    (14, "CORRUPTED_INFOROM", "the board's infoROM is corrupted"),
    (15, "GPU_IS_LOST", "fell off the bus or is unreachable"),
    (16, "RESET_REQUIRED", "must be reset before it can be used again"),
    (17, "OPERATING_SYSTEM", "the operating system or a cgroup blocks access"),
    (18, "LIB_RM_VERSION_MISMATCH", "the library and the loaded driver have different versions"),
    (19, "IN_USE", "in use"),
    (20, "MEMORY", "not enough memory"),
    (21, "NO_DATA", "no data"),
    (22, "VGPU_ECC_NOT_SUPPORTED", "not available while ECC is enabled"),
    (23, "INSUFFICIENT_RESOURCES", "the driver lacks a resource other than memory"),
    (24, "FREQ_NOT_SUPPORTED", "frequency not supported"),
    (25, "ARGUMENT_VERSION_MISMATCH", "the driver uses another version of the call"),
    (26, "DEPRECATED", "the driver no longer supports the call"),
    (27, "NOT_READY", "the system is not ready for this request"),
    (28, "GPU_NOT_FOUND", "the driver does not find the GPU"),
    (29, "INVALID_STATE", "the GPU is in a state that does not allow it"),
    (30, "RESET_TYPE_NOT_SUPPORTED", "this kind of reset is not supported"),
    (999, "UNKNOWN", "unknown error in the driver"),
];

/// NVML_ERROR_NOT_READY and NVML_ERROR_GPU_NOT_FOUND.
pub(super) const NOT_READY: u32 = 27;
pub(super) const GPU_NOT_FOUND: u32 = 28;

/// What happened, with nvml.h's name for it.
pub(super) fn words(why: &NvmlError) -> String {
    let number = number(why);
    let known = number.and_then(|number| ERRORS.iter().find(|(known, ..)| *known == number));
    match (known, why) {
        (Some((_, name, words)), _) => format!("{words} (NVML_ERROR_{name})"),
        (None, NvmlError::UnexpectedVariant(number)) => format!("unknown answer {number} from the driver"),
        (None, NvmlError::LibloadingError(why)) => format!("cannot be loaded: {why}"),
        // The wrapper's own: a symbol that is missing, text that is not UTF-8.
        (None, why) => why.to_string(),
    }
}

/// The number that NVML returned; None where the error is not NVML's.
#[expect(deprecated, reason = "NVML 5 is deprecated; a driver can still return it")]
fn number(why: &NvmlError) -> Option<u32> {
    use NvmlError as E;
    Some(match why {
        E::Uninitialized => 1,
        E::InvalidArg => 2,
        E::NotSupported => 3,
        E::NoPermission => 4,
        E::AlreadyInitialized => 5,
        E::NotFound => 6,
        E::InsufficientSize(_) => 7,
        E::InsufficientPower => 8,
        E::DriverNotLoaded => 9,
        E::Timeout => 10,
        E::IrqIssue => 11,
        E::LibraryNotFound => 12,
        E::FunctionNotFound => 13,
        E::CorruptedInfoROM => 14,
        E::GpuLost => 15,
        E::ResetRequired => 16,
        E::OperatingSystem => 17,
        E::LibRmVersionMismatch => 18,
        E::InUse => 19,
        E::InsufficientMemory => 20,
        E::NoData => 21,
        E::VgpuEccNotSupported => 22,
        E::Unknown => 999,
        // Those below have variants of their own: then it is a value that the wrapper does not know, not an error.
        E::UnexpectedVariant(number) if *number > 22 => *number,
        _ => return None,
    })
}

#[test]
fn every_error_of_nvml_has_its_name() {
    for (at, name) in [(4, "NO_PERMISSION"), (8, "INSUFFICIENT_POWER"), (27, "NOT_READY"), (28, "GPU_NOT_FOUND")] {
        assert!(words(&NvmlError::from(at)).ends_with(&format!("(NVML_ERROR_{name})")), "{at}");
    }
    for (at, name, _) in ERRORS {
        let error = NvmlError::from(*at);
        assert_eq!(number(&error), Some(*at));
        let said = words(&error);
        assert!(said.ends_with(&format!(" (NVML_ERROR_{name})")) && !said.contains(&at.to_string()), "{said}");
    }
    let numbers: Vec<u32> = ERRORS.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=30).chain([999]).collect::<Vec<_>>());
    for unknown in [7, 31] {
        let said = words(&NvmlError::UnexpectedVariant(unknown));
        assert_eq!(said, format!("unknown answer {unknown} from the driver"));
    }
    assert_eq!(words(&NvmlError::FailedToLoadSymbol("x".into())), "function symbol failed to load: x");
}
