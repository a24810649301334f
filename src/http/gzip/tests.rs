//! What is compressed comes back byte for byte, by a decoder that is not ours.

use miniz_oxide::inflate::decompress_to_vec;
use proptest::prelude::*;

use super::*;
use crate::tests::config;

/// The body that a member holds; its head, check and length are verified.
#[track_caller]
fn unpacked(member: &[u8]) -> Vec<u8> {
    let (head, rest) = member.split_at(HEAD.len());
    let (deflated, end) = rest.split_at(rest.len() - 8);
    let body = decompress_to_vec(deflated).expect("deflate");
    assert_eq!(head, HEAD);
    assert_eq!(end[..4], CRC.checksum(&body).to_le_bytes());
    assert_eq!(end[4..], u32::try_from(body.len()).unwrap().to_le_bytes());
    body
}

#[test]
fn what_is_compressed_comes_back() {
    let cases: [&[u8]; 7] = [b"", b"a", b"abc", b"abcdabcd", &[0; 70_000], &[255; 300], "Ä模型".as_bytes()];
    for body in cases {
        assert_eq!(unpacked(&gzip(body)), body);
    }
    // All lengths of a repetition, and distances up to the window and beyond it.
    for length in 1..600 {
        let body = [&b"0123"[..], &vec![b'x'; length], b"0123"].concat();
        assert_eq!(unpacked(&gzip(&body)), body, "{length}");
    }
    let noise = |count: usize| (0..count).map(|i| (i * i / 7 + i / 251).to_le_bytes()[0]).collect::<Vec<_>>();
    for distance in [1, 2, 3, 4, 5, 255, 256, 257, 4095, 16_385, WINDOW - 4, WINDOW - 3, WINDOW, WINDOW + 1] {
        let body = [&b"start"[..], &noise(distance), b"start"].concat();
        assert_eq!(unpacked(&gzip(&body)), body, "{distance}");
    }
}

#[test]
fn text_of_ours_shrinks() {
    for (text, part) in [
        (include_str!("../../api/openapi.json"), 3),
        (include_str!("../../api/page/status.html"), 2),
        (include_str!("../../reference.md"), 2),
    ] {
        let packed = gzip(text.as_bytes());
        assert!(packed.len() < text.len() / part, "{} of {}", packed.len(), text.len());
        assert_eq!(unpacked(&packed), text.as_bytes());
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

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_compressed_comes_back(pieces in prop::collection::vec((0..6_usize, 0..400_usize, any::<u8>()), 0..60)) {
        // Pieces that repeat, and others.
        let mut body: Vec<u8> = Vec::new();
        for (kind, length, byte) in pieces {
            match kind {
                0 => body.extend(std::iter::repeat_n(byte, length)),
                1 => body.extend((0..length).map(|i| (i * usize::from(byte) / 3).to_le_bytes()[0])),
                _ => {
                    let from = body.len().saturating_sub(length * usize::from(byte));
                    let again = body[from..].iter().copied().take(length).collect::<Vec<_>>();
                    body.extend(again);
                    body.push(byte);
                }
            }
        }
        prop_assert_eq!(unpacked(&gzip(&body)), body);
    }
}
