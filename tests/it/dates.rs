//! Times as Ollama writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Year, month and day of a day since 1970; by counting.
fn date(mut day: i64) -> (i64, usize, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while day >= 365 + i64::from(leap(year)) {
        day -= 365 + i64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    (year, month, day + 1)
}

fn clock(second: i64) -> String {
    let second = second.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Unix seconds as RFC 3339.
pub fn rfc3339(seconds: i64) -> String {
    with_fraction(seconds, "5")
}

/// The same to the nanosecond.
pub fn exact(at: SystemTime) -> String {
    let since = since(at);
    with_fraction(since.as_secs().cast_signed(), &format!("{:09}", since.subsec_nanos()))
}

fn with_fraction(seconds: i64, fraction: &str) -> String {
    let (year, month, day) = date(seconds.div_euclid(86_400));
    format!("{year:04}-{:02}-{day:02}T{}.{fraction}Z", month + 1, clock(seconds))
}

/// Unix seconds of such a time.
pub fn unix_seconds(text: &str) -> f64 {
    let number = |from: usize, to: usize| -> i64 { text[from..to].parse().expect("digits") };
    let month = usize::try_from(number(5, 7)).expect("a month") - 1;
    let day = (0..).find(|day| date(*day) == (number(0, 4), month, number(8, 10)));
    let whole = day.expect("a day") * 86_400 + number(11, 13) * 3600 + number(14, 16) * 60 + number(17, 19);
    let fraction: f64 = text[19..].trim_end_matches('Z').parse().unwrap_or_default();
    whole as f64 + fraction
}

/// The value of a Date header.
pub fn http_date(at: SystemTime) -> String {
    let seconds = since(at).as_secs().cast_signed();
    let days = seconds.div_euclid(86_400);
    let (year, month, day) = date(days);
    // 1970 began on a Thursday.
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(days.rem_euclid(7)).unwrap()];
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month];
    format!("{weekday}, {day:02} {month} {year:04} {} GMT", clock(seconds))
}

fn since(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).expect("after 1970")
}

#[test]
fn times_are_written_as_ollama_writes_them() {
    let at = UNIX_EPOCH + Duration::new(1_795_721_690, 454_801_895);
    assert_eq!(exact(at), "2026-11-26T19:34:50.454801895Z");
    assert!((unix_seconds(&exact(at)) - 1_795_721_690.454_8).abs() < 0.001);
    assert_eq!(http_date(at), "Thu, 26 Nov 2026 19:34:50 GMT");
    assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00.5Z");
}
