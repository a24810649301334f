//! `pm ticket`: decodes a payment header.

use num_bigint::BigInt;
use pico_args::Arguments;

use crate::cli::arguments;
use crate::cli::output::{complain, print, usage};
use crate::livepeer::payments::payment::Payment;
use crate::livepeer::payments::ticket;
use crate::sys::exit::Exit;
use crate::sys::text_file;

pub(super) fn run(mut args: Arguments) -> Exit {
    let (payment, rand, json) = match parse(&mut args).and_then(|parsed| arguments::finish(args).map(|()| parsed)) {
        Ok(parsed) => parsed,
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

fn parse(args: &mut Arguments) -> Result<(Payment, Option<BigInt>, bool), String> {
    let json = args.contains("--json");
    let rand: Option<String> = args.opt_value_from_str("--recipient-rand").map_err(|why| why.to_string())?;
    let rand = rand.map(|text| ticket::number(&text).ok_or("--recipient-rand: must be a number below 2^256"));
    let source = arguments::required(args, "--payment")?;
    let header = match (source.as_str(), source.strip_prefix('@')) {
        ("-", _) => text_file::read("-").map_err(|why| format!("standard input: {why}"))?,
        (_, Some(path)) => text_file::read(path).map_err(|why| format!("{path}: {why}"))?,
        (header, None) => header.to_owned(),
    };
    Ok((Payment::decode(&header)?, rand.transpose()?, json))
}
