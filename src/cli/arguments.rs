//! What commands do with their arguments beside reading their own options.

use std::ffi::OsStr;
use std::str::FromStr;

use pico_args::Arguments;

pub(super) fn asks_for_help(args: &Arguments) -> bool {
    args.clone().contains(["-h", "--help"])
}

/// The value of an option that must be given.
///
/// # Errors
/// A sentence: it is missing, or has no value.
pub(super) fn required(args: &mut Arguments, name: &'static str) -> Result<String, String> {
    let value: Option<String> = args.opt_value_from_str(name).map_err(|why| why.to_string())?;
    value.ok_or_else(|| format!("missing option {name}"))
}

/// The number of an option that may be given; `valid` describes it.
///
/// # Errors
/// A sentence: it has no value, or another one.
pub(super) fn number<T: FromStr>(args: &mut Arguments, name: &'static str, valid: &str) -> Result<Option<T>, String> {
    let value: Option<String> = args.opt_value_from_str(name).map_err(|why| why.to_string())?;
    value.map(|text| text.parse().map_err(|_| format!("{name}={text:?}: must be {valid}"))).transpose()
}

/// # Errors
/// A sentence about the first argument that is left over.
pub(super) fn finish(args: Arguments) -> Result<(), String> {
    args.finish().first().map_or(Ok(()), |first| Err(unknown(first)))
}

/// A sentence about an argument that is left over. What follows the `=` of a misspelled option may be a secret.
pub(super) fn unknown(argument: &OsStr) -> String {
    let argument = argument.to_string_lossy();
    if argument.starts_with('-') {
        let name = argument.split('=').next().unwrap_or_default();
        format!("unknown option {name:?}")
    } else {
        format!("unexpected argument {argument:?}")
    }
}
