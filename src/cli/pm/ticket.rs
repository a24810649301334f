//! `pm ticket`: decodes a payment header.

use num_bigint::BigInt;
use pico_args::Arguments;

use crate::cli::arguments;
use crate::cli::output::{complain, print, usage};
use crate::livepeer::payments::payment::Payment;
use crate::livepeer::payments::ticket;
use crate::sys::exit::Exit;
use crate::sys::text_file;

struct Asked {
    /// Of --payment.
    source: String,
    rand: Option<BigInt>,
    json: bool,
}

pub(super) fn run(mut args: Arguments) -> Exit {
    let asked = match parse(&mut args).and_then(|asked| arguments::finish(args).map(|()| asked)) {
        Ok(asked) => asked,
        Err(why) => return usage("pm ticket", &why),
    };
    let Asked { source, rand, json } = asked;
    let header = match header(&source) {
        Ok(header) => header,
        Err(why) => {
            complain(&why);
            return Exit::Config;
        }
    };
    let payment = match Payment::decode(&header) {
        Ok(payment) => payment,
        Err(why) => return usage("pm ticket", &why),
    };
    if rand.as_ref().is_some_and(|rand| !payment.is_rand(rand)) {
        complain(
            "--recipient-rand does not match this payment's recipient_rand_hash: it cannot show which tickets win",
        );
        return Exit::Failed;
    }
    let report = payment.report(rand.as_ref());
    match print(&if json { report.json() } else { report.text() }) {
        Exit::Ok if !report.is_sound() => Exit::Failed,
        printed => printed,
    }
}

fn parse(args: &mut Arguments) -> Result<Asked, String> {
    let json = args.contains("--json");
    let rand: Option<String> = args.opt_value_from_str("--recipient-rand").map_err(|why| why.to_string())?;
    let rand = rand.map(|text| ticket::number(&text).ok_or("--recipient-rand: must be a number below 2^256"));
    Ok(Asked { source: arguments::required(args, "--payment")?, rand: rand.transpose()?, json })
}

/// The header that `source` is or names; or why its file cannot be read.
fn header(source: &str) -> Result<String, String> {
    match (source, source.strip_prefix('@')) {
        ("-", _) => text_file::read("-").map_err(|why| format!("standard input: {why}")),
        (_, Some(path)) => text_file::read(path).map_err(|why| format!("{path}: {why}")),
        (header, None) => Ok(header.to_owned()),
    }
}
