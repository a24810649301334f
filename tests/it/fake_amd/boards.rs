//! The boards: the files of a card below its folder, as public captures of real cards have them. What a capture leaves out is
//! filled in by the rules of the driver's source, or stays away where the source says that the card does not have it.
//!
//! Captures: the test trees of LACT (RX 6900 XT, RX 6600, RX 7900 XTX, RX 7600S, RX 580, 780M), and reports to nvtop (WX 5100,
//! MI300A), glances (a sleeping RX 7600S), btop (BC-250), homelab-monitor and nix-amd-ai (8060S), wandb (MI250X).

/// How a card is attached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Link {
    /// Behind a switch of its own, whose outer port is the slot's link: this speed and width, now and at most.
    Switch([&'static str; 4]),
    /// At the slot itself; its own files are the slot's link.
    Direct,
    /// A part of the processor.
    Inside,
}

/// A kind of card.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    /// Device and revision, as the kernel writes them: `73bf`, `c0`.
    pub device: &'static str,
    pub revision: &'static str,
    pub link: Link,
    /// Files below its folder; `H/` is the folder of its sensors.
    pub files: &'static [(&'static str, &'static str)],
}

/// Gen 4 with all lanes.
const FULL: Link = Link::Switch(["16.0 GT/s PCIe", "16", "16.0 GT/s PCIe", "16"]);
/// Gen 4 with the eight lanes that the chip has.
const EIGHT: Link = Link::Switch(["16.0 GT/s PCIe", "8", "16.0 GT/s PCIe", "8"]);

/// A desktop card, seen on an older kernel: `product_name` is there and empty.
pub const RX_6900_XT: Board = Board {
    device: "73bf",
    revision: "c0",
    link: FULL,
    files: &[
        ("gpu_busy_percent", "3"),
        ("mem_busy_percent", "0"),
        ("mem_info_vram_total", "17163091968"),
        ("mem_info_vram_used", "668274688"),
        ("mem_info_gtt_total", "16786171904"),
        ("mem_info_gtt_used", "35651584"),
        ("mem_info_vram_vendor", "samsung"),
        ("unique_id", "5d1a7c0d3b2f4e61"),
        ("product_name", ""),
        ("product_number", ""),
        ("vbios_version", "113-D4120500-101"),
        ("current_link_speed", "16.0 GT/s PCIe"),
        ("current_link_width", "16"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
        ("pp_dpm_pcie", "0: 2.5GT/s, x1 310Mhz \n1: 16.0GT/s, x16 619Mhz *"),
        ("H/temp1_label", "edge"),
        ("H/temp1_input", "56000"),
        ("H/temp1_crit", "100000"),
        ("H/temp1_emergency", "105000"),
        ("H/temp1_crit_hyst", "-273150"),
        ("H/temp2_label", "junction"),
        ("H/temp2_input", "59000"),
        ("H/temp2_crit", "110000"),
        ("H/temp2_emergency", "115000"),
        ("H/temp3_label", "mem"),
        ("H/temp3_input", "54000"),
        ("H/temp3_crit", "100000"),
        ("H/temp3_emergency", "105000"),
        ("H/power1_label", "PPT"),
        ("H/power1_average", "36000000"),
        ("H/power1_cap", "289000000"),
        ("H/power1_cap_max", "332000000"),
        ("H/power1_cap_min", "0"),
        ("H/fan1_input", "0"),
        ("H/fan1_max", "3400"),
        ("H/fan1_min", "0"),
        ("H/pwm1", "0"),
        ("H/pwm1_max", "255"),
        ("H/freq1_label", "sclk"),
        ("H/freq1_input", "500000000"),
        ("H/freq2_label", "mclk"),
        ("H/freq2_input", "1000000000"),
        ("H/in0_label", "vddgfx"),
        ("H/in0_input", "775"),
    ],
};

/// Its own link is always full: only the outer port of its switch says what the slot gives.
pub const RX_6600: Board = Board {
    device: "73ff",
    revision: "c7",
    link: Link::Switch(["8.0 GT/s PCIe", "8", "16.0 GT/s PCIe", "8"]),
    files: &[
        ("gpu_busy_percent", "0"),
        ("mem_busy_percent", "0"),
        ("mem_info_vram_total", "8573157376"),
        ("mem_info_vram_used", "33554432"),
        ("mem_info_gtt_total", "16786171904"),
        ("mem_info_gtt_used", "20971520"),
        ("mem_info_vram_vendor", "hynix"),
        ("vbios_version", "113-EXT800241-L03"),
        ("current_link_speed", "16.0 GT/s PCIe"),
        ("current_link_width", "16"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
        ("pp_dpm_pcie", "0: 2.5GT/s, x1 81Mhz \n1: 8.0GT/s, x8 619Mhz *"),
        ("H/temp1_label", "edge"),
        ("H/temp1_input", "28000"),
        ("H/temp2_label", "junction"),
        ("H/temp2_input", "28000"),
        ("H/temp2_crit", "110000"),
        ("H/temp3_label", "mem"),
        ("H/temp3_input", "26000"),
        ("H/power1_label", "PPT"),
        ("H/power1_average", "3000000"),
        ("H/power1_cap", "120000000"),
        ("H/power1_cap_default", "100000000"),
        // It turns, although nothing is asked of it.
        ("H/fan1_input", "1395"),
        ("H/fan1_max", "3100"),
        ("H/pwm1", "0"),
        ("H/freq1_label", "sclk"),
        ("H/freq1_input", "20000000"),
        ("H/freq2_label", "mclk"),
        ("H/freq2_input", "96000000"),
        ("H/in0_label", "vddgfx"),
        ("H/in0_input", "1000"),
    ],
};

pub const RX_7900_XTX: Board = Board {
    device: "744c",
    revision: "c8",
    link: FULL,
    files: &[
        ("gpu_busy_percent", "3"),
        ("mem_busy_percent", "1"),
        ("mem_info_vram_total", "25753026560"),
        ("mem_info_vram_used", "1073741824"),
        ("mem_info_gtt_total", "33554432000"),
        ("mem_info_gtt_used", "52428800"),
        ("mem_info_vram_vendor", "hynix"),
        ("board_info", "type : cem"),
        ("unique_id", "b5e1f0a92c7d4836"),
        ("vbios_version", "113-D70201XT-041"),
        ("current_link_speed", "16.0 GT/s PCIe"),
        ("current_link_width", "16"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
        ("pcie_replay_count", "0"),
        ("pp_dpm_pcie", "0: 2.5GT/s, x1 310Mhz *\n1: 8.0GT/s, x16 619Mhz *\n2: 16.0GT/s, x16 619Mhz *"),
        ("gpu_od/fan_ctrl/fan_curve", "OD_FAN_CURVE:\n0: 0C 0%"),
        ("H/temp1_label", "edge"),
        ("H/temp1_input", "53000"),
        ("H/temp1_crit", "100000"),
        ("H/temp1_emergency", "105000"),
        ("H/temp2_label", "junction"),
        ("H/temp2_input", "61000"),
        ("H/temp2_crit", "110000"),
        ("H/temp2_emergency", "115000"),
        ("H/temp3_label", "mem"),
        ("H/temp3_input", "68000"),
        ("H/temp3_crit", "108000"),
        ("H/temp3_emergency", "113000"),
        ("H/power1_label", "PPT"),
        ("H/power1_average", "68000000"),
        ("H/power1_cap", "290000000"),
        ("H/power1_cap_default", "303000000"),
        ("H/power1_cap_max", "333000000"),
        ("H/power1_cap_min", "261000000"),
        ("H/fan1_input", "0"),
        ("H/fan1_max", "3200"),
        ("H/pwm1", "0"),
        ("H/freq1_label", "sclk"),
        ("H/freq1_input", "73000000"),
        ("H/freq2_label", "mclk"),
        ("H/freq2_input", "772000000"),
    ],
};

/// A part of a Phoenix processor, on a kernel that shows how its queues can be reset.
pub const RADEON_780M: Board = Board {
    device: "15bf",
    revision: "dd",
    link: Link::Inside,
    files: &[
        ("gpu_busy_percent", "0"),
        ("vcn_busy_percent", "0"),
        ("mem_info_vram_total", "4294967296"),
        ("mem_info_vram_used", "1272893440"),
        ("mem_info_gtt_total", "31433977856"),
        ("mem_info_gtt_used", "211398656"),
        ("unique_id", NOTHING),
        ("vbios_version", "113-PHXGENERIC-001"),
        ("current_link_speed", "16.0 GT/s PCIe"),
        ("current_link_width", "16"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
        ("pp_dpm_pcie", NOTHING),
        ("gfx_reset_mask", "queue full"),
        ("H/temp1_label", "edge"),
        ("H/temp1_input", "25000"),
        ("H/power1_label", "PPT"),
        ("H/power1_average", "3103000"),
        ("H/power1_input", "4142000"),
        ("H/freq1_label", "sclk"),
        ("H/freq1_input", "800000000"),
        ("H/in0_label", "vddgfx"),
        ("H/in0_input", "814"),
        ("H/in1_label", "vddnb"),
        ("H/in1_input", "615"),
    ],
};

/// The Radeon 8060S of a Strix Halo: 512 MiB of its own, and 124 GiB of the machine's memory.
pub const STRIX_HALO: Board = Board {
    device: "1586",
    revision: "d1",
    link: Link::Inside,
    files: &[
        ("gpu_busy_percent", "1"),
        ("vcn_busy_percent", "0"),
        ("mem_info_vram_total", "536870912"),
        ("mem_info_vram_used", "155189248"),
        ("mem_info_gtt_total", "133143986176"),
        ("mem_info_gtt_used", "18874368"),
        ("unique_id", NOTHING),
        ("vbios_version", "113-STRXLGEN-001"),
        ("H/temp1_label", "edge"),
        ("H/temp1_input", "31000"),
        ("H/power1_label", "PPT"),
        ("H/power1_average", "9000000"),
        ("H/power1_input", "9000000"),
        ("H/freq1_label", "sclk"),
        ("H/freq1_input", "600000000"),
    ],
};

/// The older card of the workstation series; it has eight lanes.
pub const W6600: Board = Board {
    device: "73e3",
    revision: "00",
    link: EIGHT,
    files: &[
        ("gpu_busy_percent", "0"),
        ("mem_busy_percent", "0"),
        ("mem_info_vram_total", "8573157376"),
        ("mem_info_vram_used", "104857600"),
        ("mem_info_gtt_total", "16786171904"),
        ("mem_info_gtt_used", "20971520"),
        ("mem_info_vram_vendor", "samsung"),
        ("vbios_version", "113-D5340200-101"),
        ("current_link_speed", "16.0 GT/s PCIe"),
        ("current_link_width", "16"),
        ("max_link_speed", "16.0 GT/s PCIe"),
        ("max_link_width", "16"),
        ("H/temp1_label", "edge"),
        ("H/temp1_input", "48000"),
        ("H/temp1_crit", "100000"),
        ("H/temp1_emergency", "105000"),
        ("H/temp2_label", "junction"),
        ("H/temp2_input", "48000"),
        ("H/temp2_crit", "105000"),
        ("H/temp2_emergency", "110000"),
        ("H/temp3_label", "mem"),
        ("H/temp3_input", "40000"),
        ("H/temp3_crit", "100000"),
        ("H/power1_label", "PPT"),
        ("H/power1_average", "6000000"),
        ("H/power1_cap", "100000000"),
        ("H/fan1_input", "1140"),
        ("H/fan1_max", "5700"),
        ("H/pwm1", "51"),
        ("H/freq1_label", "sclk"),
        ("H/freq1_input", "63000000"),
        ("H/freq2_label", "mclk"),
        ("H/freq2_input", "541000000"),
        ("H/in0_label", "vddgfx"),
        ("H/in0_input", "718"),
    ],
};

/// The end of a file without a byte: not even the end of a line.
pub const NOTHING: &str = "\0";
