//! The receivers of NOTIFY_URL, by their place there: their URLs are secrets.

use crate::notify::row::NotificationRow;
use crate::sys::exposition::{Exposition, Family, counter, flag, gauge, metrics};

metrics! {
    NOTIFICATIONS = counter(
        "agent_net_notifications_total", &["target", "result"],
        "Notifications: messages sent, tries that failed, messages dropped. The target is the URL's place in NOTIFY_URL."
    );
    PENDING = gauge("agent_net_notification_pending", &["target"], "1 while a notification waits to be sent.");
    LAST_SUCCESS = gauge(
        "agent_net_notification_last_success_timestamp_seconds", &["target"], "Unix time of the last accepted notification."
    );
    FAILING = gauge("agent_net_notification_failing", &["target"], "1 while the last try failed or was refused.");
}

/// Writes all rows; nothing where NOTIFY_URL is unset.
pub(crate) fn write(out: &mut Exposition, rows: &[NotificationRow]) {
    type Read = fn(&NotificationRow) -> Vec<(Option<&'static str>, Option<f64>)>;
    let families: [(&Family, Read); 4] = [
        (&NOTIFICATIONS, |row| {
            let counts = row.counts;
            let results = [("sent", counts.sent), ("failed", counts.failed), ("dropped", counts.dropped)];
            results.map(|(result, count)| (Some(result), Some(count as f64))).into()
        }),
        (&PENDING, |row| vec![(None, Some(flag(row.pending)))]),
        (&LAST_SUCCESS, |row| vec![(None, row.last_sent)]),
        (&FAILING, |row| vec![(None, Some(flag(row.is_failing())))]),
    ];
    let places: Vec<String> = (1..=rows.len()).map(|place| place.to_string()).collect();
    for (family, read) in families {
        let samples = rows.iter().zip(&places).flat_map(|(row, place)| {
            let labels = move |more: Option<&'static str>| [place.as_str()].into_iter().chain(more).collect();
            read(row).into_iter().map(move |(more, value)| (labels(more), value))
        });
        out.samples(family, samples);
    }
}
