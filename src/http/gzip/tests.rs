//! Members are read back by the decoder that the server has for its own texts, and their check by hand. The tests of the
//! whole take answers apart with gzip itself.

use super::*;
use crate::http::gzip_member::CRC;

#[track_caller]
fn check_member(member: &[u8], body: &[u8]) {
    assert_eq!(unpacked(member), body);
    assert_eq!(member[..HEAD.len()], HEAD);
    let end = &member[member.len() - TAIL..];
    assert_eq!(end[..4], CRC.checksum(body).to_le_bytes());
    assert_eq!(end[4..], u32::try_from(body.len()).unwrap().to_le_bytes());
}

#[test]
fn what_is_compressed_comes_back() {
    let cases: [&[u8]; 5] = [b"", b"a", &[0; 70_000], "Ä模型".as_bytes(), include_bytes!("../../reference.md")];
    for body in cases {
        check_member(&gzip(body.to_vec()).unwrap(), body);
    }
    assert_eq!(unpacked(b""), b"");
}

#[test]
fn texts_are_packed_when_the_program_is_built() {
    let page = (crate::api::page::PACKED, include_str!("../../api/page/status.html"));
    for (packed, text) in [page, (crate::api::openapi::PACKED, include_str!("../../api/openapi.json"))] {
        check_member(packed, text.as_bytes());
        assert!(packed.len() * 5 < text.len() * 2, "{} of {}", packed.len(), text.len());
    }
}

#[test]
fn a_client_gets_what_it_takes() {
    #[track_caller]
    fn check(lines: &[&str], expect: bool) {
        let mut accepted = Accepted::default();
        lines.iter().flat_map(|line| line.split(',')).for_each(|element| accepted.see(element.trim().as_bytes()));
        assert_eq!(accepted.takes_gzip(), expect, "{lines:?}");
    }
    check(&[], false);
    check(&[""], false);
    check(&["gzip"], true);
    check(&["deflate, GZip ;q=0.5, br"], true);
    check(&["br", "x-gzip"], true);
    check(&["gzip;q=1.0"], true);
    check(&["gzip;q=0.001"], true);
    check(&["gzip;q=0"], false);
    check(&["gzip; Q=0.000"], false);
    check(&["*"], true);
    check(&["*;q=0"], false);
    check(&["gzip;q=0, *"], false);
    check(&["*;q=0, gzip"], true);
    check(&["identity", "deflate"], false);
    check(&["gzipped"], false);
}
