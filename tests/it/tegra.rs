//! Jetson boards by trees of files laid out like theirs, and WSL.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::gpus::{has, is_ok, start};
use crate::harness::{Worker, codes, folder, verdict};
use crate::nvml::FakeNvml;

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

const MEMINFO: &str = "MemTotal:       31281248 kB\nMemFree:  1000000 kB\nMemAvailable:   20281248 kB\nCached: 5 kB\n";

/// A Jetson AGX Orin with JetPack 6.
fn orin(name: &str) -> PathBuf {
    let root = folder(name);
    write(
        &root,
        &[
            ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64\n"),
            ("proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0"),
            ("proc/device-tree/compatible", "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0"),
            ("proc/meminfo", MEMINFO),
            ("proc/self/mountinfo", "22 1 0:5 / /dev rw - devtmpfs udev rw\n"),
            ("dev/nvmap", ""),
            ("sys/bus/pci/devices/0001:01:00.0/vendor", "0x10ec\n"),
            ("sys/bus/pci/devices/0001:01:00.0/class", "0x020000\n"),
            ("sys/class/devfreq/15340000.vic/device/load", "999\n"),
            ("sys/class/devfreq/15340000.vic/device/of_node/name", "vic\0"),
            ("sys/class/devfreq/17000000.gpu/device/load", "423\n"),
            ("sys/class/devfreq/17000000.gpu/device/of_node/name", "gpu\0"),
            ("sys/class/devfreq/17000000.gpu/cur_freq", "612000000\n"),
            ("sys/class/devfreq/17000000.gpu/max_freq", "1300500000\n"),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "99000\n"),
            ("sys/class/thermal/thermal_zone1/type", "gpu-thermal\n"),
            ("sys/class/thermal/thermal_zone1/temp", "48531\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_0_type", "active\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_0_temp", "50000\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_1_type", "hot\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_1_temp", "101500\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_2_type", "critical\n"),
            ("sys/class/thermal/thermal_zone1/trip_point_2_temp", "104500\n"),
            ("sys/class/hwmon/hwmon0/name", "pwmfan\n"),
            ("sys/class/hwmon/hwmon0/pwm1", "128\n"),
            ("sys/class/hwmon/hwmon3/name", "ina3221\n"),
            ("sys/class/hwmon/hwmon3/in1_label", "VDD_GPU_SOC\n"),
            ("sys/class/hwmon/hwmon3/in1_input", "19000\n"),
            ("sys/class/hwmon/hwmon3/curr1_input", "400\n"),
            ("sys/class/hwmon/hwmon3/in2_label", "VDD_CPU_CV\n"),
            ("sys/class/hwmon/hwmon3/in2_input", "19000\n"),
            ("sys/class/hwmon/hwmon3/curr2_input", "100\n"),
            ("sys/class/hwmon/hwmon3/in3_label", "NC\n"),
            ("sys/class/hwmon/hwmon3/in3_input", "19000\n"),
            ("sys/class/hwmon/hwmon3/curr3_input", "9000\n"),
            ("sys/class/hwmon/hwmon3/in7_label", "sum of shunt voltages\n"),
            ("sys/class/hwmon/hwmon3/curr1_crit_alarm", "0\n"),
            ("sys/class/hwmon/hwmon3/curr2_max_alarm", "0\n"),
        ],
    );
    root
}

/// A worker on that board. NVML loads there and reads nothing.
fn on(root: &Path, ollama: &FakeOllama, more: &[(&str, &str)]) -> Worker {
    let nothing =
        "gpu0.name=Orin (nvgpu)\ngpu0.memory=0/0\ngpu0.temperature=err:3\ngpu0.utilization=err:3\ngpu0.power=err:3";
    let nvml = FakeNvml::new(nothing);
    start(ollama, &nvml, &[&[("HOST_ROOT", root.to_str().unwrap())], more].concat())
}

fn check(gpu: &Value, expect: &[(&str, Value)]) {
    for (name, value) in expect {
        assert_eq!(&gpu[*name], value, "{name}: {gpu:#}");
    }
}

#[test]
fn an_orin_is_read_from_its_sysfs() {
    let (root, ollama) = (orin("tegra-orin"), FakeOllama::new());
    let worker = on(&root, &ollama, &[]);
    let report = worker.report_when("verdict ok", is_ok);
    assert_eq!((&report["source"], &report["gpu_count"]), (&json!("tegra+ollama"), &json!(1)));
    assert_eq!(report["driver_version"], "L4T 36.4.7");
    let gpu = &report["gpus"][0];
    check(
        gpu,
        &[
            ("name", json!("NVIDIA Jetson AGX Orin Developer Kit")),
            ("unified_memory", json!(true)),
            ("vram_total_mb", json!(31_281_248 / 1024)),
            ("vram_free_mb", json!(20_281_248 / 1024)),
            ("vram_used_mb", json!(11_000_000 / 1024)),
            ("utilization_percent", json!(42)),
            ("graphics_clock_mhz", json!(612)),
            ("graphics_clock_max_mhz", json!(1300)),
            ("temperature_c", json!(48)),
            ("temperature_slowdown_c", json!(101)),
            ("temperature_shutdown_c", json!(104)),
            // Without VDD_IN it is the sum of the rails that are connected.
            ("power_w", json!(9.5)),
            ("power_alarm", json!(false)),
            ("fan_percent", json!([50])),
            ("error", Value::Null),
        ],
    );
    let unsupported = gpu["unsupported"].as_array().unwrap();
    let no_reading = ["uuid", "pci_bus_id", "error"];
    for (name, _) in
        gpu.as_object().unwrap().iter().filter(|(name, v)| v.is_null() && !no_reading.contains(&name.as_str()))
    {
        assert!(unsupported.contains(&json!(name)), "{name} is null and not named");
    }
    for name in ["power_limit_w", "energy_j", "ecc_enabled", "throttle_reasons", "processes", "recovery_action"] {
        assert!(gpu[name].is_null() && unsupported.contains(&json!(name)), "{name}: {gpu:#}");
    }
    // jetson_stats#889: at the start of the machine the GPU's files can come after the worker.
    let devfreq = root.join("sys/class/devfreq/17000000.gpu");
    fs::rename(&devfreq, root.join("later")).unwrap();
    worker.report_when("no load", |r| r["gpus"][0]["utilization_percent"].is_null());
    fs::rename(root.join("later"), &devfreq).unwrap();
    worker.report_when("a load", |r| r["gpus"][0]["utilization_percent"] == 42);
    // The whole board's rail says more.
    write(&root, &[("sys/class/hwmon/hwmon3/in2_label", "VDD_IN\n")]);
    worker.report_when("the board's draw", |r| r["gpus"][0]["power_w"] == 1.9);
}

#[test]
fn a_power_rail_over_its_limit_is_reported() {
    let (root, ollama) = (orin("tegra-alarm"), FakeOllama::new());
    let worker = on(&root, &ollama, &[]);
    for alarm in ["sys/class/hwmon/hwmon3/curr1_crit_alarm", "sys/class/hwmon/hwmon3/curr2_max_alarm"] {
        worker.report_when("verdict ok", is_ok);
        write(&root, &[(alarm, "1\n")]);
        let report = worker.report_when("POWER_ALARM", has("POWER_ALARM"));
        assert_eq!((verdict(&report), &report["health"]["reasons"][0]["gpu"]), ("degraded", &json!("gpu0")));
        write(&root, &[(alarm, "0\n")]);
    }
    worker.report_when("verdict ok", is_ok);
}

#[test]
fn heat_is_judged_by_the_boards_own_limits() {
    let (root, ollama) = (orin("tegra-heat"), FakeOllama::new());
    let worker = on(&root, &ollama, &[]);
    for (millis, code, expect) in [("98000", "TEMP_HIGH", "degraded"), ("102900", "TEMP_CRITICAL", "unhealthy")] {
        worker.report_when("verdict ok", is_ok);
        write(&root, &[("sys/class/thermal/thermal_zone1/temp", millis)]);
        let report = worker.report_when(code, |r| codes(r).contains(&code));
        assert_eq!(verdict(&report), expect);
        write(&root, &[("sys/class/thermal/thermal_zone1/temp", "48531\n")]);
    }
    worker.report_when("verdict ok", is_ok);
    // A sensor that is off says −256 °C.
    write(&root, &[("sys/class/thermal/thermal_zone1/temp", "-256000\n")]);
    let report = worker.report_when("no temperature", |r| r["gpus"][0]["temperature_c"].is_null());
    assert!(is_ok(&report), "{report:#}");
}

#[test]
fn older_and_newer_boards_are_laid_out_differently() {
    let ollama = FakeOllama::new();
    // A Jetson Nano with JetPack 4: kernel 4.9.
    let nano = folder("tegra-nano");
    write(
        &nano,
        &[
            ("etc/nv_tegra_release", "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\n"),
            ("sys/firmware/devicetree/base/model", "NVIDIA Jetson Nano Developer Kit\0"),
            ("proc/meminfo", MEMINFO),
            ("sys/devices/gpu.0/load", "1000\n"),
            ("sys/class/thermal/thermal_zone1/type", "CPU-therm\n"),
            ("sys/class/thermal/thermal_zone1/temp", "51000\n"),
            ("sys/class/thermal/thermal_zone2/type", "GPU-therm\n"),
            ("sys/class/thermal/thermal_zone2/temp", "37500\n"),
            ("sys/bus/iio/devices/iio:device0/rail_name_0", "POM_5V_IN\n"),
            ("sys/bus/iio/devices/iio:device0/in_power0_input", "4123\n"),
            ("sys/bus/iio/devices/iio:device0/rail_name_1", "POM_5V_GPU\n"),
            ("sys/bus/iio/devices/iio:device0/in_power1_input", "200\n"),
        ],
    );
    let report = on(&nano, &ollama, &[]).report_when("verdict ok", is_ok);
    let expect = [("utilization_percent", json!(100)), ("temperature_c", json!(37)), ("power_w", json!(4.1))];
    check(&report["gpus"][0], &expect);
    assert_eq!(report["gpus"][0]["name"], "NVIDIA Jetson Nano Developer Kit");
    // A Jetson AGX Thor with JetPack 7.
    let thor = folder("tegra-thor");
    write(
        &thor,
        &[
            ("proc/device-tree/compatible", "nvidia,p3971-0089+p3834-0008\0nvidia,tegra264\0"),
            ("proc/device-tree/model", "NVIDIA Jetson AGX Thor Developer Kit\0"),
            // Its own GPU shows on a bus within the chip.
            ("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n"),
            ("sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n"),
            ("proc/meminfo", MEMINFO),
            ("sys/class/devfreq/gpu-gpc-0/cur_freq", "1575000000\n"),
            ("sys/class/devfreq/gpu-gpc-0/max_freq", "1575000000\n"),
            ("sys/class/thermal/thermal_zone3/type", "tj-thermal\n"),
            ("sys/class/thermal/thermal_zone3/temp", "55000\n"),
        ],
    );
    let report = on(&thor, &ollama, &[]).report_when("verdict ok", is_ok);
    let expect =
        [("graphics_clock_mhz", json!(1575)), ("temperature_c", json!(55)), ("utilization_percent", Value::Null)];
    check(&report["gpus"][0], &expect);
}

#[test]
fn a_board_without_anything_readable_is_unknown() {
    let (root, ollama) = (folder("tegra-bare"), FakeOllama::new());
    write(&root, &[("etc/nv_tegra_release", "# R36 (release), REVISION: 4.7\n")]);
    let report = on(&root, &ollama, &[]).report_when("GPU_NO_READINGS", has("GPU_NO_READINGS"));
    assert_eq!(verdict(&report), "unknown");
}

#[test]
fn wsl_has_no_device_nodes_and_needs_none() {
    let (root, ollama, nvml) = (folder("wsl"), FakeOllama::new(), FakeNvml::new("gpu0.fans=err:3"));
    write(&root, &[("dev/dxg", ""), ("proc/self/mountinfo", "22 1 0:5 / /dev rw - devtmpfs none rw\n")]);
    let settings = [("HOST_ROOT", root.to_str().unwrap())];
    let report = start(&ollama, &nvml, &settings).report_when("verdict ok", is_ok);
    assert_eq!((&report["gpu_count"], &report["source"]), (&json!(1), &json!("nvml+ollama")));
    // What is missing there does not show on the bus.
    nvml.set("init=12");
    let report = start(&ollama, &nvml, &settings).report_when("NVML_LIB_MISSING", has("NVML_LIB_MISSING"));
    assert_eq!(verdict(&report), "unknown");
}
