use super::*;

fn place(text: &str) -> PciId {
    PciId::parse(text).unwrap()
}

fn open(log: &XidLog) -> Vec<(u32, Class, u64)> {
    log.open().map(|kind| (kind.number, kind.class, kind.count)).collect()
}

fn counts(log: &XidLog) -> Vec<(u32, u64)> {
    log.all().iter().map(|xid| (xid.number, xid.count)).collect()
}

#[test]
fn errors_are_counted_and_settled() {
    let (mut log, gpu) = (XidLog::default(), place("1:0"));
    for (number, class, at) in
        [(79, Class::Fatal, 100.0), (79, Class::Fatal, 101.0), (31, Class::Info, 101.0), (31, Class::Info, 101.0)]
    {
        log.record(gpu, number, class, at);
    }
    assert_eq!(counts(&log), [(79, 1), (31, 2)]);
    // A load of the driver that began before the last report.
    log.settle_before(101.0);
    assert_eq!(open(&log), [(79, Class::Fatal, 1), (31, Class::Info, 2)]);
    log.settle_before(101.1);
    assert_eq!((open(&log), counts(&log)), (vec![], vec![(79, 1), (31, 2)]));
    log.record(gpu, 79, Class::Fatal, 200.0);
    assert_eq!(open(&log), [(79, Class::Fatal, 2)]);
    // What the operator knows of is what was known when he said so, whatever its time.
    log.record(gpu, 62, Class::Fatal, 9999.0);
    log.settle();
    assert_eq!(open(&log), []);
    log.record(gpu, 62, Class::Fatal, 201.0);
    assert_eq!(open(&log), [(62, Class::Fatal, 2)]);
    for number in 0..2000 {
        log.record(gpu, number, Class::Info, 1000.0 + f64::from(number));
    }
    assert_eq!(log.kinds.len(), MAX_KINDS);
}

#[test]
fn one_number_with_two_meanings_is_one_row_and_two_errors() {
    let (mut log, gpu) = (XidLog::default(), place("1:0"));
    log.record(gpu, 149, Class::Fatal, 10.0);
    log.record(gpu, 149, Class::Warn, 500.0);
    log.record(gpu, 149, Class::Warn, 400.0);
    assert_eq!(counts(&log), [(149, 3)]);
    assert_eq!(open(&log), [(149, Class::Fatal, 1), (149, Class::Warn, 2)]);
    assert_eq!(log.open().map(|kind| kind.last).collect::<Vec<_>>(), [10.0, 500.0]);
}

#[test]
fn what_the_driver_asks_for_now_takes_the_place_of_what_it_asked_for_before() {
    let (mut log, gpu, other) = (XidLog::default(), place("1:0"), place("2:0"));
    let mut asks = |class, at: f64| {
        log.record(gpu, 154, class, at);
        let of_gpu = log.open().filter(|kind| kind.pci == gpu).map(|kind| kind.class).collect::<Vec<_>>();
        (of_gpu, log.all_clear(gpu))
    };
    assert_eq!(asks(Class::Fatal, 1.0), (vec![Class::Fatal], None));
    assert_eq!(asks(Class::Lesser, 2.0), (vec![Class::Lesser], None));
    assert_eq!(asks(Class::Fatal, 3.0), (vec![Class::Fatal], None));
    assert_eq!(asks(Class::AllClear, 4.0), (vec![Class::AllClear], Some(4.0)));
    // Words that this worker does not know say nothing about what was asked for before.
    assert_eq!(asks(Class::Fatal, 5.0), (vec![Class::Fatal], None));
    assert_eq!(asks(Class::Warn, 6.0), (vec![Class::Fatal, Class::Warn], None));
    assert_eq!(asks(Class::AllClear, 7.0), (vec![Class::AllClear], Some(7.0)));
    // Each GPU speaks for itself, and of 154 alone.
    log.record(other, 154, Class::Fatal, 8.0);
    log.record(gpu, 79, Class::Fatal, 8.0);
    log.record(gpu, 154, Class::AllClear, 9.0);
    assert_eq!(log.open().filter(|kind| kind.class == Class::Fatal).count(), 2);
    assert_eq!((log.all_clear(gpu), log.all_clear(other)), (Some(9.0), None));
    assert_eq!(counts(&log), [(154, 8), (154, 1), (79, 1)]);
}

#[test]
fn people_see_the_wall_clocks_time_as_it_is_set_now() {
    let mut log = XidLog::default();
    let last = |log: &XidLog| log.all()[0].last;
    // A machine without a battery starts in 1970.
    log.see_clocks(30.0, 35.0);
    log.record(place("1:0"), 79, Class::Fatal, 20.0);
    assert_eq!(last(&log), 25.0);
    log.see_clocks(100.0, 1_700_000_000.0);
    assert_eq!(last(&log), 1_699_999_920.0);
    // Small corrections change nothing that was shown.
    log.see_clocks(200.0, 1_700_000_100.9);
    assert_eq!(last(&log), 1_699_999_920.0);
    log.see_clocks(300.0, 1_699_996_600.0);
    assert_eq!(last(&log), 1_699_996_320.0);
}
