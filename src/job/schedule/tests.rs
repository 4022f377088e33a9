use jiff::tz;

use super::*;

fn zone(name: &str) -> TimeZone {
    tz::db().get(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn schedule(line: &str, zone_name: &str) -> Schedule {
    Schedule {
        times: Times::Cron(Line::parse(line).unwrap(), zone(zone_name)),
        starts_at: None,
        ends_at: None,
        offset: Duration::ZERO,
    }
}

/// The times on that day, as the clock on the wall shows them.
fn day(line: &str, day: &str) -> Vec<String> {
    let berlin = zone("Europe/Berlin");
    let date: jiff::civil::Date = day.parse().unwrap();
    let begin = date.to_zoned(berlin.clone()).unwrap().timestamp();
    let end = date.tomorrow().unwrap().to_zoned(berlin.clone()).unwrap();
    let schedule = schedule(line, "Europe/Berlin");
    let mut last = Timestamp::from_micros(begin.as_microsecond() - 1);
    let mut times = Vec::new();
    while let Some(next) = schedule.next(last) {
        if next.as_micros() >= end.timestamp().as_microsecond() {
            break;
        }
        assert!(next > last);
        last = next;
        let moment = jiff::Timestamp::from_microsecond(next.as_micros()).unwrap();
        let shown = moment.to_zoned(berlin.clone());
        times.push(shown.strftime("%H:%M%:::z").to_string());
    }
    times
}

#[test]
fn in_the_night_with_the_gap_what_does_not_exist_is_the_first_moment_after_it() {
    let night = "2027-03-28";
    assert_eq!(day("30 2 * * *", night), ["03:00+02"]);
    assert_eq!(day("0,30 2 * * *", night), ["03:00+02"]);
    assert_eq!(day("0 2-3 * * *", night), ["03:00+02"]);
    assert_eq!(day("30 1 * * *", night), ["01:30+01"]);
    assert_eq!(day("30 3 * * *", night), ["03:30+02"]);
    let hours = day("0 * * * *", night);
    assert_eq!(hours.len(), 23);
    assert_eq!(hours[..4], ["00:00+01", "01:00+01", "03:00+02", "04:00+02"]);
    let quarters = day("*/15 * * * *", night);
    assert_eq!(quarters.len(), 23 * 4);
    assert_eq!(
        quarters[6..10],
        ["01:30+01", "01:45+01", "03:00+02", "03:15+02"]
    );
    assert_eq!(day("0 */2 * * *", night).len(), 11);
}

#[test]
fn in_the_night_with_the_hour_twice_a_time_is_the_first_of_the_two() {
    let night = "2027-10-31";
    assert_eq!(day("30 2 * * *", night), ["02:30+02"]);
    assert_eq!(day("0,30 2 * * *", night), ["02:00+02", "02:30+02"]);
    assert_eq!(day("0 2,3 * * *", night), ["02:00+02", "03:00+01"]);
    let hours = day("0 * * * *", night);
    assert_eq!(hours.len(), 25);
    assert_eq!(
        hours[1..5],
        ["01:00+02", "02:00+02", "02:00+01", "03:00+01"]
    );
    let quarters = day("*/15 * * * *", night);
    assert_eq!(quarters.len(), 25 * 4);
    assert_eq!(quarters[11..13], ["02:45+02", "02:00+01"]);
    let evens = day("0 */2 * * *", night);
    assert_eq!(evens[..4], ["00:00+02", "02:00+02", "02:00+01", "04:00+01"]);
}

#[test]
fn a_search_from_within_the_two_hours_does_not_repeat_them() {
    let schedule = schedule("30 2 * * *", "Europe/Berlin");
    let tomorrow = Some(at("2027-11-01T02:30:00+01:00"));
    for after in [
        "02:30:00+02:00",
        "02:59:59+02:00",
        "02:00:00+01:00",
        "02:29:59+01:00",
        "02:45:00+01:00",
    ] {
        let after = at(&format!("2027-10-31T{after}"));
        assert_eq!(schedule.next(after), tomorrow, "{after:?}");
    }
    let spring = at("2027-03-28T01:59:59+01:00");
    assert_eq!(schedule.next(spring), Some(at("2027-03-28T03:00:00+02:00")));
    let spring = at("2027-03-28T03:00:00+02:00");
    assert_eq!(schedule.next(spring), Some(at("2027-03-29T02:30:00+02:00")));
}

#[test]
fn elapsed_time_knows_no_zones() {
    let every = Schedule {
        times: Times::Every(Duration::from_secs(7200), at("2027-10-30T22:00:00Z")),
        starts_at: None,
        ends_at: None,
        offset: Duration::ZERO,
    };
    let mut times = Vec::new();
    let mut last = at("2027-10-01T00:00:00Z");
    for _ in 0..3 {
        last = every.next(last).unwrap();
        times.push(last);
    }
    let expected = [
        "2027-10-30T22:00:00Z",
        "2027-10-31T00:00:00Z",
        "2027-10-31T02:00:00Z",
    ];
    assert_eq!(times, expected.map(at));
}

#[test]
fn what_is_no_line_is_refused_in_words() {
    for line in [
        "",
        "* * * *",
        "61 * * * *",
        "* 24 * * *",
        "* * 32 * *",
        "* * * 13 *",
        "x * * * *",
        "* * * * * *",
        "@never",
    ] {
        assert!(Line::parse(line).is_err(), "{line}");
    }
    assert_eq!(Line::parse("30 2 30 2 *").unwrap_err(), "never due");
    assert_eq!(Line::parse("0 0 31 4,6,9,11 *").unwrap_err(), "never due");
    for line in [
        "@hourly",
        "@daily",
        "@weekly",
        "@monthly",
        "@yearly",
        "0 0 29 2 *",
        "0 9 * JAN MON-FRI",
        "0 0 L * *",
        "0 0 * * 5#3",
        "0 0 15W * *",
        "0 0 * * 5L",
    ] {
        Line::parse(line).unwrap();
    }
}

#[test]
fn the_last_day_of_a_month_is_also_that_of_december_and_a_leap_day_may_be_far() {
    let last = schedule("0 12 L * *", "UTC");
    let mut at_last = at("2027-11-01T00:00:00Z");
    let mut times = Vec::new();
    for _ in 0..4 {
        at_last = last.next(at_last).unwrap();
        times.push(at_last);
    }
    let expected = ["2027-11-30", "2027-12-31", "2028-01-31", "2028-02-29"];
    assert_eq!(times, expected.map(|it| at(&format!("{it}T12:00:00Z"))));
    let without = schedule("0 12 L 1-11 *", "UTC");
    let next = without.next(at("2027-12-01T00:00:00Z"));
    assert_eq!(next, Some(at("2028-01-31T12:00:00Z")));
    let leap = schedule("0 0 29 2 *", "UTC");
    let next = leap.next(at("2096-03-01T00:00:00Z"));
    assert_eq!(next, Some(at("2104-02-29T00:00:00Z")));
}

#[test]
fn bounds_and_an_offset_hold() {
    let bounded = Schedule {
        starts_at: Some(at("2027-01-02T03:00:00Z")),
        ends_at: Some(at("2027-01-03T03:00:00Z")),
        offset: Duration::from_secs(90),
        ..schedule("0 3 * * *", "UTC")
    };
    let first = bounded.next(at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(first, at("2027-01-02T03:01:30Z"));
    let second = bounded.next(first).unwrap();
    assert_eq!(second, at("2027-01-03T03:01:30Z"));
    assert_eq!(bounded.next(second), None);
    let listed = Schedule {
        times: Times::At(vec![at("2027-01-01T00:00:00Z"), at("2027-02-01T00:00:00Z")]),
        starts_at: None,
        ends_at: None,
        offset: Duration::ZERO,
    };
    assert_eq!(
        listed.next(at("2027-01-01T00:00:00Z")),
        Some(at("2027-02-01T00:00:00Z"))
    );
    assert_eq!(listed.next(at("2027-02-01T00:00:00Z")), None);
}

#[test]
fn what_was_missed_is_made_up_for_as_said() {
    let hourly = schedule("0 * * * *", "UTC");
    let (seen, now) = (at("2027-01-01T00:00:00Z"), at("2027-01-01T05:10:00Z"));
    let hour = |it: u32| at(&format!("2027-01-01T{it:02}:00:00Z"));
    let due =
        |missed, minutes: u64| hourly.due(seen, now, missed, Duration::from_secs(60 * minutes));
    let latest = due(Missed::Latest, 60);
    assert_eq!(latest.run, [hour(5)]);
    assert!(latest.skipped.is_some_and(|it| it < hour(5)));
    assert_eq!(latest.seen, hour(5));
    let all = due(Missed::All, 60 * 24);
    assert_eq!((all.run, all.skipped), ((1..=5).map(hour).collect(), None));
    let none = due(Missed::Skip, 60);
    assert_eq!((none.run, none.skipped), (vec![], Some(hour(5))));
    let late = due(Missed::Latest, 5);
    assert!(late.run.is_empty() && late.skipped.is_some());
    for missed in [Missed::Latest, Missed::All, Missed::Skip] {
        let now = hour(1).after(Duration::from_secs(1));
        let due = hourly.due(seen, now, missed, Duration::ZERO);
        assert_eq!((due.run, due.skipped), (vec![hour(1)], None), "{missed:?}");
        let again = hourly.due(due.seen, now, missed, Duration::ZERO);
        assert_eq!(again.run, vec![], "{missed:?}");
        let back = hourly.due(due.seen, seen, missed, Duration::ZERO);
        assert_eq!(back.run, vec![], "a clock that was set back: {missed:?}");
    }
}

#[test]
fn years_of_seconds_are_not_looked_through_one_by_one() {
    let every = Schedule {
        times: Times::Every(Duration::from_secs(1), at("2020-01-01T00:00:00Z")),
        starts_at: None,
        ends_at: None,
        offset: Duration::ZERO,
    };
    let now = at("2027-01-01T00:00:00.5Z");
    let due = every.due(
        at("2020-01-01T00:00:00Z"),
        now,
        Missed::All,
        Duration::from_secs(3600),
    );
    assert_eq!(due.run.len(), MADE_UP_MAX);
    assert_eq!(due.run.last(), Some(&at("2027-01-01T00:00:00Z")));
}

#[test]
fn in_every_zone_over_every_change_times_ascend_and_end() {
    let from = "2020-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap();
    let to = "2040-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap();
    let lines = [
        "30 2 * * *",
        "0 * * * *",
        "*/15 1-3 * * *",
        "59 23 * * *",
        "0 0 * * *",
        "*/20 */3 * * *",
    ];
    let mut changes = 0;
    for name in tz::db().available() {
        let zone = zone(name.as_str());
        for change in zone.following(from).take_while(|it| it.timestamp() < to) {
            changes += 1;
            // One line a change: over all of them each line meets each kind of change.
            let line = lines[changes % lines.len()];
            let schedule = schedule(line, name.as_str());
            let begin = change.timestamp().as_second() - 2 * 3600;
            let end = change.timestamp().as_second() + 3 * 3600;
            let mut last = Timestamp::from_micros(begin * 1_000_000);
            let mut found = Vec::new();
            while last.as_micros() < end * 1_000_000 {
                let next = schedule.next(last).unwrap();
                assert!(next > last, "{name} {line} {change:?}");
                last = next;
                found.push(next);
            }
            // From wherever the search begins, it finds the same.
            for (earlier, later) in found.iter().zip(found.iter().skip(1)) {
                let middle = (earlier.as_micros() + later.as_micros()) / 2;
                assert_eq!(
                    schedule.next(Timestamp::from_micros(middle)),
                    Some(*later),
                    "{name} {line}"
                );
            }
        }
    }
    assert!(changes > 1000, "{changes}");
}
