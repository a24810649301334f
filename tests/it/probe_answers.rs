//! Every answer to a probe that was recorded of Ollama v0.33.0-rc2 (CPU only), and its result. Statistics are those of the
//! recordings, names and texts are the project's own.

use std::thread;

use serde_json::{Value, json};

use crate::fake_ollama::Answer;
use crate::probe_command::{
    BUSY, NO_TEXT, RELOADED, Statistics, after, embedded, generated, ollama, probe_one, row, unanswered,
};

/// Each by its number among the recordings, with the speed, the load and the queue that follow from it.
const TEXTS: &[(&str, Statistics, f64, u64, u64)] = &[
    ("003", [26_514_739, 1_498_528, 9, 7_787_000, 16, 12_581_000], 1271.8, 1, 4),
    ("005", [44_011_683, 2_414_656, 9, 1_449_000, 16, 35_460_000], 451.2, 2, 4),
    ("009", [18_360_836, 3_228_657, 9, 840_000, 16, 10_080_000], 1587.3, 3, 4),
    ("010", [286_983_000, 256_786_811, 9, 16_597_999, 16, 10_271_000], 1557.8, 256, 3),
    ("016", [272_242_216, 258_035_612, 9, 1_482_000, 16, 6_311_000], 2535.3, 258, 6),
    ("017", [14_285_723, 1_366_096, 9, 1_131_000, 16, 7_436_000], 2151.7, 1, 4),
    ("018", [16_010_498, 2_349_769, 9, 4_040_000, 16, 6_945_000], 2303.8, 2, 2),
    ("021", [272_955_277, 257_772_357, 9, 1_974_000, 16, 9_041_000], 1769.7, 257, 4),
    ("023", [20_346_341_061, 20_333_536_759, 9, 1_415_000, 16, 8_836_000], 1810.8, 20333, 2),
    ("029", [8_103_391_550, 8_048_734_759, 9, 43_966_000, 16, 8_039_000], 1990.3, 8048, 2),
    ("030", [25_553_818_584, 9_941_237, 9, 121_361_000, 16, 1_519_998_000], 10.5, 9, 23902),
    ("033", [43_751_406_577, 11_039_704, 9, 469_665_000, 16, 3_262_165_000], 4.9, 11, 40008),
    ("035", [22_716_175_737, 3_721_255, 9, 4_552_030_000, 16, 17_955_830_000], 0.9, 3, 204),
    ("040", [6_516_055_785, 1_982_614, 9, 1_917_711_000, 16, 4_592_836_000], 3.5, 1, 3),
    ("041", [501_039_496, 2_557_957, 9, 28_580_000, 16, 464_969_000], 34.4, 2, 4),
    ("044", [16_296_505, 1_597_537, 9, 3_192_000, 16, 8_295_999], 1928.6, 1, 3),
    ("045", [14_416_098, 1_999_609, 9, 2_316_000, 16, 7_696_000], 2079.0, 1, 2),
    ("059", [14_903_307, 1_611_123, 3, 2_371_000, 16, 8_292_000], 1929.6, 1, 2),
];

/// The number among the recordings, the answer of generate, that of embed, and the probe.
type Recorded = (&'static str, Answer, Option<Answer>, Value);

/// Those of models that make no text.
fn embeddings() -> Vec<Recorded> {
    let no_text = || Answer::Status(400, NO_TEXT.into());
    let embedding = |total, load| Some(after(total, embedded("[[-0.017950416,-0.052958164]]", total, load)));
    let vector = "an embedding has no speed";
    let reloaded = format!("{vector}; {RELOADED}");
    let unable = "This server does not support embeddings. Start it with `--embeddings`";
    let neither = Some(Answer::Status(501, json!({"error": unable}).to_string()));
    vec![
        ("012, 013", no_text(), embedding(7_848_456, 1_424_124), row("ok", Some(vector), None, 1, None, None)),
        ("012, 014", no_text(), embedding(274_736_192, 261_158_478), row("ok", Some(&reloaded), None, 261, None, None)),
        ("012, 015", no_text(), neither, unanswered("skipped", &format!("Ollama answered 501: {unable}"))),
    ]
}

/// Refusals, and answers with too many or too few tokens.
fn odd() -> Vec<Recorded> {
    let of = |statistics: Statistics, more: &str| after(statistics[0], generated(statistics, more));
    let refused = |status, error: &str| {
        let why = format!("Ollama answered {status}: {error}");
        (Answer::Status(status, json!({"error": error}).to_string()), unanswered("skipped", &why))
    };
    let many = || unanswered("failed", "its answer reports 32 tokens, but 16 were requested");
    let few = "too few tokens for a speed";
    let both = row("ok", Some(&format!("{few}; {RELOADED}")), None, 20851, Some(3), Some(4));
    let probabilities = r#","logprobs":[{"token":"0","logprob":-1.1121505498886108,"bytes":[48]}]"#;
    let chat = generated([14_019_157, 1_884_943, 5, 1_731_000, 16, 6_788_000], "")
        .replace(r#""response":" 9, 10, 11""#, r#""message":{"role":"assistant","content":"cccccccc"}"#);
    let load = r#"{"model":"lab:1","created_at":"2026-11-26T20:10:06.455061436Z","response":"","done":true,"done_reason":"load"}"#;
    let (missing, skipped) = refused(404, "model 'lab:1' not found");
    let (busy, later) = refused(503, "server busy, please try again.  maximum pending requests exceeded");
    vec![
        ("019", missing, None, skipped),
        ("024", of([21_082_945_969, 20_851_254_518, 9, 139_087_000, 4, 89_408_000], ""), None, both),
        ("031", busy, None, later),
        ("042", of([1_217_212_221, 1_595_499, 9, 143_346_000, 32, 1_068_758_000], ""), None, many()),
        ("043", of([1_084_824_672, 2_155_468, 9, 35_656_000, 32, 1_037_179_000], ""), None, many()),
        (
            "057",
            of([15_615_962, 1_600_954, 9, 1_164_000, 16, 9_691_000], probabilities),
            None,
            row("ok", None, Some(1651.0), 1, Some(3), Some(16)),
        ),
        ("058", Answer::Json(load.into()), None, unanswered("failed", "it answered without a token")),
        (
            "060",
            of([5_157_068, 1_516_546, 9, 1_277_000, 1, 1000], ""),
            None,
            row("ok", Some(few), None, 1, Some(2), Some(1)),
        ),
        ("061", after(14_019_157, chat), None, row("ok", None, Some(2357.1), 1, Some(3), Some(16))),
    ]
}

#[test]
fn every_recorded_answer_has_its_result() {
    let text = |(number, statistics, speed, load, queue): &(&'static str, Statistics, f64, u64, u64)| {
        let reloaded = (*load >= 200).then_some(RELOADED);
        let why = reloaded.or_else(|| (*queue >= 100).then_some(BUSY));
        let answer = after(statistics[0], generated(*statistics, ""));
        (*number, answer, None, row("ok", why, Some(*speed), *load, Some(*queue), Some(16)))
    };
    let all: Vec<_> = TEXTS.iter().map(text).chain(embeddings()).chain(odd()).collect();
    assert_eq!(all.len(), 30);
    for some in all.chunks(6) {
        thread::scope(|scope| {
            for (number, generate, embed, expected) in some {
                scope.spawn(move || {
                    let fake = ollama(generate.clone());
                    embed.iter().for_each(|answer| fake.set("/api/embed", answer.clone()));
                    let (code, found) = probe_one(&fake, &[]);
                    assert_eq!(found, *expected, "{number}");
                    assert_eq!(code, i32::from(expected["result"] != "ok"), "{number}");
                });
            }
        });
    }
}
