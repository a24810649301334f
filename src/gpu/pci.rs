//! Where a GPU sits on the PCI bus, in the spellings of NVML, the kernel's log and sysfs.

use std::fmt;

/// Domain, bus and device; the function is left out, since an error concerns the whole device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PciId {
    domain: u32,
    bus: u8,
    device: u8,
}

impl PciId {
    /// `00000000:01:00.0` (NVML), `0000:01:00.0` (sysfs), `PCI:0000:01:00` or `0000:01:00` (kernel log).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("PCI:").unwrap_or(text);
        let text = text.split('.').next()?;
        let mut parts = text.split(':').rev();
        let device = u8::from_str_radix(parts.next()?, 16).ok()?;
        let bus = u8::from_str_radix(parts.next()?, 16).ok()?;
        let domain = parts.next().map_or(Some(0), |domain| u32::from_str_radix(domain, 16).ok())?;
        parts.next().is_none().then_some(Self { domain, bus, device })
    }
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}", self.domain, self.bus, self.device)
    }
}

#[test]
fn every_spelling_is_the_same_place() {
    let place = PciId { domain: 0, bus: 0x1a, device: 2 };
    for text in ["00000000:1A:02.0", "0000:1a:02.0", "PCI:0000:1a:02", "0000:1A:02", "1a:02"] {
        assert_eq!(PciId::parse(text), Some(place), "{text}");
    }
    for text in ["", "PCI:", "x:y:z", "0000:01", "1:0000:01:00", "0000:1ff:00"] {
        assert_ne!(PciId::parse(text), Some(place), "{text}");
    }
    assert_eq!(PciId::parse("1:0000:01:00"), None);
    assert_eq!(place.to_string(), "0000:1a:02");
}
