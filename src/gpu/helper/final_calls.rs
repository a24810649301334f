//! Calls that this driver, this GPU or this user does not have. That does not change while the driver stays loaded: they are
//! not made again. One that health is judged by is, if it has worked: its end is a fault, and that may pass.

use nvml_wrapper::error::NvmlError;

use super::reading_log::ReadingLog;
use crate::gpu::readings;

/// The names of such calls of one GPU.
#[derive(Debug, Default)]
pub(super) struct FinalCalls {
    refused: Vec<&'static str>,
    /// Those for readings that health is judged by.
    worked: Vec<&'static str>,
}

impl FinalCalls {
    /// As [`ReadingLog::at`], except that the readings are unsupported without a call once the driver has refused it.
    pub(super) fn at<T>(
        &mut self,
        log: &mut ReadingLog<'_>,
        call: &'static str,
        names: &[&str],
        read: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.refused.contains(&call) {
            names.iter().for_each(|name| log.unsupported(name));
            return None;
        }
        let mut refused = false;
        let value = log.at(call, names, || {
            let read = read();
            refused = read.as_ref().is_err_and(is_final);
            read
        });
        let worked = self.worked.contains(&call);
        if refused && !worked {
            self.refused.push(call);
        }
        if value.is_some() && !worked && names.iter().any(|name| readings::is_lasting(name)) {
            self.worked.push(call);
        }
        value
    }
}

/// The answer stays the same until the driver is loaded again. 25: it does not know the version of the struct.
pub(super) fn is_final(why: &NvmlError) -> bool {
    matches!(
        why,
        NvmlError::NotSupported
            | NvmlError::NoPermission
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::UnexpectedVariant(25)
    )
}

#[test]
fn a_call_that_was_refused_is_not_made_again_and_one_that_failed_is() {
    use super::reading_log::Times;
    let mut times = Times::new();
    for (code, calls) in [(0, 3), (3, 1), (4, 1), (13, 1), (25, 1), (2, 3), (6, 3), (10, 3), (27, 3), (999, 3)] {
        let (mut finals, mut made) = (FinalCalls::default(), 0);
        let mut log = ReadingLog::new(&mut times);
        for _ in 0..3 {
            let value = finals.at(&mut log, "power_usage", &["power_w"], || {
                made += 1;
                if code == 0 { Ok(7) } else { Err(NvmlError::from(code)) }
            });
            assert_eq!(value, (code == 0).then_some(7), "{code}");
        }
        assert_eq!(made, calls, "{code}");
        // Other calls are still made, and those that have worked where health is judged by them.
        for (call, names, last) in [("temperature", ["temperature_c"], Some(2)), ("fan_speed", ["fan_percent"], None)] {
            for (read, expect) in [(Ok(1), Some(1)), (Err(NvmlError::NotSupported), None), (Ok(2), last)] {
                assert_eq!(finals.at(&mut log, call, &names, || read), expect, "{code}");
            }
        }
    }
}
