use super::*;

const GTX_680: &str = "NVRM: The NVIDIA GeForce GTX 680 GPU installed in this system is\\x0aNVRM:  supported through the NVIDIA 470.xx Legacy drivers. Please\\x0aNVRM:  visit http://www.nvidia.com/object/unix.html for more\\x0aNVRM:  information.  The 550.54.14 NVIDIA driver will ignore\\x0aNVRM:  this GPU.  Continuing probe...";

fn read(records: &[(&str, u64)]) -> Legacy {
    let mut log = LegacyLog::default();
    records.iter().for_each(|(record, seconds)| log.read(record, seconds * 1_000_000));
    log.found().clone()
}

fn place(text: &str) -> PciId {
    PciId::parse(text).unwrap()
}

#[test]
fn what_the_kernel_says_of_cards_that_its_driver_ignores() {
    #[track_caller]
    fn check(records: &[&str], expect: &[&str]) {
        let records: Vec<(&str, u64)> = records.iter().map(|record| (*record, 7)).collect();
        assert_eq!(read(&records).sentences(), expect, "{records:?}");
    }
    check(&[GTX_680], &["the card NVIDIA GeForce GTX 680 needs NVIDIA's legacy driver 470.xx"]);
    // A record for each line, and a name that has the maker in it already.
    check(
        &[
            "NVRM: The NVIDIA NVIDIA GeForce GTX 1050 GPU installed in this system is",
            "usb 1-1: new device",
            "NVRM:  supported through the NVIDIA 580.xx Legacy drivers. Please",
            "NVRM:  visit http://www.nvidia.com/object/unix.html for more",
            "NVRM: No NVIDIA GPU found.",
        ],
        &["the card NVIDIA GeForce GTX 1050 needs NVIDIA's legacy driver 580.xx"],
    );
    check(
        &["NVRM: ignoring the legacy GPU 0000:07:00.0"],
        &["the card at 0000:07:00 needs one of NVIDIA's legacy drivers"],
    );
    // Both are said of one card.
    check(
        &[GTX_680, "NVRM: ignoring the legacy GPU 0000:07:00.0"],
        &["the card NVIDIA GeForce GTX 680 needs NVIDIA's legacy driver 470.xx"],
    );
    check(
        &[
            "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:1292)\\x0aNVRM: installed in this system is not supported by the 304.116\\x0aNVRM: NVIDIA Linux driver release.  Please see 'Appendix",
        ],
        &["the card at 0000:01:00 is not supported by the installed driver"],
    );
    check(
        &[
            "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:1b80)\\x0aNVRM: installed in this system is not supported by open\\x0aNVRM: nvidia.ko because it does not include the required GPU\\x0aNVRM: System Processor (GSP).",
        ],
        &["the card at 0000:01:00 needs NVIDIA's proprietary kernel module; the open one does not support it"],
    );
    for noise in [
        "",
        "NVRM: The NVIDIA probe routine was not called for 1 device(s).",
        "NVRM: None of the NVIDIA devices were initialized.",
        "NVRM: The NVIDIA GPU 0000:02:00.0\\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
        "NVRM: ignoring the legacy GPU nowhere",
        "The NVIDIA x GPU installed in this system is supported through the NVIDIA 470.xx Legacy drivers",
    ] {
        check(&[noise], &[]);
    }
}

#[test]
fn only_the_last_look_at_the_bus_counts() {
    let unbound = [place("0000:01:00.0"), place("0000:02:00.0"), place("0000:03:00.0")];
    let ignored = |records: &[(&str, u64)]| read(records).ignored(&unbound);
    assert_eq!(ignored(&[]), 0);
    assert_eq!(ignored(&[(GTX_680, 7)]), 1);
    // Two of a kind, and the same one at another load of the driver.
    assert_eq!(ignored(&[(GTX_680, 7), (GTX_680, 7)]), 2);
    assert_eq!(ignored(&[(GTX_680, 7), (GTX_680, 60)]), 1);
    assert_eq!(read(&[(GTX_680, 7)]).ignored(&[]), 0);
    let loading = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.14";
    assert_eq!(ignored(&[(GTX_680, 7), (loading, 8)]), 1);
    assert_eq!(ignored(&[(GTX_680, 7), (loading, 60)]), 0);
    // Where the places are known, they count.
    let at = |text| (text, 7);
    let second = at("NVRM: ignoring the legacy GPU 0000:02:00.0");
    assert_eq!(ignored(&[(GTX_680, 7), second, second]), 1);
    assert_eq!(ignored(&[(GTX_680, 7), at("NVRM: ignoring the legacy GPU 0000:09:00.0")]), 0);
    // A card that the driver does not know counts as missing.
    let unknown = "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:1292)\\x0aNVRM: installed in this system is not supported by the\\x0aNVRM: NVIDIA 390.48 driver release.";
    assert_eq!(ignored(&[at(unknown)]), 0);
    assert!(!read(&[at(unknown)]).because().is_empty());
}

#[test]
fn a_log_without_end_fills_no_memory() {
    let mut log = LegacyLog::default();
    for number in 0..10_000 {
        log.read(&format!("NVRM: ignoring the legacy GPU {number:04x}:01:00.0"), 7);
        log.read(&format!("NVRM: The NVIDIA {}", "x".repeat(500)), 7);
        log.read("NVRM: and so on", 7);
    }
    assert!(log.found.cards.len() <= MAX_CARDS && log.sentence.len() <= 2 * MAX_SENTENCE);
}
