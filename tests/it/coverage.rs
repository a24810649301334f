//! Every reason code has a test that raises it and one that clears it.

use crate::rules::OF_ONE_GPU;
use crate::tidy::{codes, sources};

/// Each code, the test that raises it and the test that clears it. What takes minutes by its nature is cleared in the
/// unit tests, where time is an argument.
const COVERED: &[(&str, &str, &str)] = &[
    ("NO_SAMPLE", "a_hang_from_the_start_is_reported_as_no_sample", "same"),
    ("STALE", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("NO_GPU", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("GPU_COUNT_LOW", "gpus_that_are_missing_are_noticed_by_all_that_shows_them", "same"),
    ("GPU_ACCESS_LOST", "a_device_that_cannot_be_opened_any_more_is_noticed_although_nvml_answers", "same"),
    ("NVML_LIB_MISSING", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("DRIVER_NOT_LOADED", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("DRIVER_LIB_MISMATCH", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("NVML_NO_PERMISSION", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("NVML_INIT_UNKNOWN", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("NVML_INIT_FAILED", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("NVML_HELPER_MISSING", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("NVML_HELPER_FAILED", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("DRIVER_STARTING", "a_driver_that_starts_slowly_is_unknown_and_comes_up", "same"),
    ("GPU_RESET", "resets_are_held_and_cleared_as_the_log_says", "what_the_drivers_log_says"),
    ("GPU_SLOW", "one_slow_gpu_keeps_no_other_from_being_read", "same"),
    ("GPU_READ_FAILED", "a_dead_gpu_is_unhealthy", "same"),
    ("MIG_NO_INSTANCE", "a_gpu_without_an_instance_and_a_list_that_fails_have_reasons", "same"),
    ("HW_SLOWDOWN", "a_slowdown_without_a_cause_counts_at_work", "same"),
    ("DRIVER_STUCK", "what_the_library_and_its_helper_do_is_raised_and_cleared", "same"),
    ("XID_FATAL", "errors_in_the_kernels_log_are_held_until_something_settles_them", "same"),
    ("XID_WARN", "errors_in_the_kernels_log_are_held_until_something_settles_them", "same"),
    ("PCIE_REPLAY", "what_a_gpu_says_of_itself_is_raised_and_cleared", "same"),
    ("INFOROM_CORRUPT", "a_corrupt_inforom_is_reported_until_nvml_restarts", "same"),
    (
        "HW_THERMAL_SLOWDOWN",
        "a_minute_of_slowdown_is_noticed",
        "a_slowdown_is_three_fifths_of_five_minutes_and_over_after_five_clean_ones",
    ),
    ("HW_POWER_BRAKE", "a_minute_of_slowdown_is_noticed", "the_drivers_counter_reports_what_happens_between_samples"),
    ("POWER_ALARM", "a_power_rail_over_its_limit_is_reported", "same"),
    ("OLLAMA_NO_ANSWER", "ollama_beside_the_gpu_is_raised_and_cleared", "same"),
    ("OLLAMA_DOWN", "ollama_beside_the_gpu_is_raised_and_cleared", "same"),
    ("OLLAMA_LIST_FAILED", "ollama_beside_the_gpu_is_raised_and_cleared", "same"),
    ("MODEL_ON_CPU", "ollama_beside_the_gpu_is_raised_and_cleared", "same"),
    ("MODEL_VRAM_MISMATCH", "ollama_beside_the_gpu_is_raised_and_cleared", "same"),
    ("MODEL_NOT_LOADED", "a_missing_model_is_pulled_loaded_and_kept", "same"),
    ("MODEL_STUCK", "a_runner_that_hangs_is_unhealthy_until_it_answers", "same"),
    ("MODEL_HANGS", "a_model_that_does_not_answer_probes_is_unhealthy", "same"),
    ("MODEL_SLOW", "a_model_below_half_of_its_usual_speed_is_degraded", "same"),
    ("MODELS_DISPLACED", "models_that_displace_each_other_are_named", "same"),
    ("UPTIME_LOW_SHORT", "low_uptime_is_reported", "same"),
    ("UPTIME_LOW_MEDIUM", "low_uptime_is_reported", "same"),
    ("UPTIME_LOW_LONG", "low_uptime_is_reported", "same"),
];

#[test]
fn no_code_is_left_out() {
    let codes = codes();
    let sources: String = ["src", "tests"].iter().flat_map(|f| sources(f)).map(|(_, text)| text).collect();
    for code in &codes {
        let in_table = OF_ONE_GPU.iter().any(|row| row.1 == code);
        let named = COVERED.iter().find(|row| row.0 == code);
        assert!(in_table || named.is_some(), "{code} is raised by no test");
        for test in named.iter().flat_map(|(_, raised, cleared)| [raised, cleared]).filter(|test| **test != "same") {
            assert!(sources.contains(&format!("fn {test}()")), "{code}: there is no test {test}");
        }
    }
    for (code, ..) in COVERED {
        assert!(codes.iter().any(|c| c == code), "{code} is not a code");
    }
}
