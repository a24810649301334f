//! Where a body ends: lengths and chunks, right, broken and cut, and the body that waits for a 100.

use std::net::Shutdown;

use crate::bad_input::{JOB, MIB, check, check_answer, chunked, framed, job, still_works, worker};
use crate::harness::Worker;
use crate::http::Connection;

#[test]
fn chunked_bodies_are_read_and_broken_ones_refused() {
    let worker = worker();
    check(&worker, chunked("19\r\n{\"agent_id\":\"demo-agent\"}\r\n0\r\n\r\n"), "200");
    check(&worker, chunked("5\r\n{\"age\r\n14\r\nnt_id\":\"demo-agent\"}\r\n000\r\n\r\n"), "200");
    check(&worker, chunked("0019;a=b;c=\"d\"\r\n{\"agent_id\":\"demo-agent\"}\r\n0;x\r\n\r\n"), "200");
    check(&worker, chunked("19\r\n{\"agent_id\":\"demo-agent\"}\r\n0\r\nX-Trailer: a\r\nY: b\r\n\r\n"), "200");
    check(&worker, framed(&["transfer-encoding:  CHUNKED"], "2\r\n{}\r\n0\r\n\r\n"), "400 missing_agent_id");
    check(&worker, chunked("0\r\n\r\n"), "400 bad_json");
    let single: String = JOB.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    check(&worker, chunked(&(single + &"1\r\n \r\n".repeat(60_000) + "0\r\n\r\n")), "200");
    for body in ["xyz\r\n", "-1\r\n", "+2\r\n{}\r\n", "\r\n\r\n", " \r\n", "0x2\r\n{}\r\n", "2 2\r\n{}\r\n0\r\n\r\n"] {
        check(&worker, chunked(body), "400 bad_framing");
    }
    check(&worker, chunked("2\r\n{}x0\r\n\r\n"), "400 bad_framing");
    check(&worker, chunked("2\r\n{}xx0\r\n\r\n"), "400 bad_framing");
    check(&worker, chunked("2\r\n{}\n\n0\r\n\r\n"), "400 bad_framing");
    check(&worker, chunked("ffffffffffffffffff\r\n"), "400 bad_framing");
    check(&worker, chunked("7fffffffffffffff\r\n"), "400 bad_framing|413 body_too_large");
    check(&worker, chunked(&format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(200_000))), "400 bad_framing");
    check(&worker, chunked(&format!("0\r\n{}\r\n", "T: x\r\n".repeat(50_000))), "400 bad_framing|431 head_too_large");
}

/// However small its chunks are, a body without an end is not read without limit.
#[test]
fn a_body_of_many_large_chunks_is_refused_before_its_end() {
    let worker = worker();
    let mut connection = Connection::open(worker.addr);
    connection.send(&chunked("")).expect("the head is read");
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; MIB], b"\r\n"].concat();
    for _ in 0..8 {
        connection.send(&chunk).expect("the body is read");
    }
    connection.send(b"100000\r\n").expect("the size of the ninth chunk is read");
    check_answer(&connection.answer().expect("an answer before the end"), "413 body_too_large", "nine chunks");
    still_works(&worker, "nine chunks");
}

#[test]
fn framing_that_two_servers_could_read_differently_is_refused() {
    let worker = worker();
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    for headers in [
        ["Content-Length: 25", "Content-Length: 25"],
        ["Content-Length: 25", "Content-Length: 24"],
        ["Content-Length: 25", "content-length: 0"],
        ["Content-Length: 12", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 12"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ] {
        check(&worker, framed(&headers, chunks), "400 bad_framing");
    }
    for coding in
        ["gzip", "gzip, chunked", "chunked, chunked", "chunked, gzip", "identity", "", "xchunked", "chunked;q=1"]
    {
        check(&worker, framed(&[&format!("Transfer-Encoding: {coding}")], chunks), "400 bad_framing");
    }
    for length in ["-1", "+25", "25, 25", "25,24", "", "0x19", "2 5", "25.0", "1e1", "99999999999999999999", "²"] {
        check(&worker, framed(&[&format!("Content-Length: {length}")], JOB), "400 bad_framing");
    }
    check(&worker, framed(&["Content-Length: 0025"], JOB), "200|400 bad_framing");
}

#[test]
fn a_body_that_ends_early_gets_an_error_that_says_so() {
    #[track_caller]
    fn check_cut(worker: &Worker, bytes: &[u8]) {
        let mut connection = Connection::open(worker.addr);
        connection.send(bytes).expect("the worker reads");
        connection.stream().shutdown(Shutdown::Write).expect("half closed");
        let answer = connection.answer().unwrap_or_else(|why| panic!("{:?}: {why}", String::from_utf8_lossy(bytes)));
        check_answer(&answer, "400 incomplete_body", "a cut body");
        assert!(connection.closed(), "{answer:?}");
        still_works(worker, "a cut body");
    }
    let worker = worker();
    check_cut(&worker, &framed(&["Content-Length: 100"], JOB));
    check_cut(&worker, &framed(&["Content-Length: 25"], ""));
    check_cut(&worker, &framed(&["Content-Length: 1000000"], JOB));
    for body in ["", "19", "19\r\n", "19\r\n{\"age", "19\r\n{\"agent_id\":\"demo-agent\"}\r\n", "0\r\n"] {
        check_cut(&worker, &chunked(body));
    }
    // A whole job before the half-close is answered.
    let mut connection = Connection::open(worker.addr);
    connection.send(&job(JOB)).expect("the worker reads");
    connection.stream().shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(connection.answer().expect("an answer").status, 200);
}

#[test]
fn expect_100_continue_is_answered() {
    let worker = worker();
    let mut connection = Connection::open(worker.addr);
    for expect in ["100-continue", "100-Continue"] {
        let length = format!("Content-Length: {}", JOB.len());
        connection.send(&framed(&[&length, &format!("Expect: {expect}")], "")).expect("the head is read");
        assert_eq!(connection.any_answer(false).expect("an interim answer").status, 100);
        connection.send(JOB.as_bytes()).expect("the body is read");
        assert_eq!(connection.any_answer(false).expect("the answer").status, 200);
    }
    for length in [64 * 1024 + 1, MIB, 64 * MIB] {
        let mut connection = Connection::open(worker.addr);
        let length = format!("Content-Length: {length}");
        connection.send(&framed(&[&length, "Expect: 100-continue"], "")).expect("the head is read");
        check_answer(&connection.any_answer(false).expect("an answer at once"), "413 body_too_large", &length);
    }
    still_works(&worker, "them all");
}
