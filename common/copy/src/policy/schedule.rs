//! When a deferred copy is due: a time, a rule of the calendar, or a window.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{self, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// Days that are looked at for the next opening; every rule opens once a week at least.
const DAYS: i64 = 9;

/// When something is due.
///
/// ```text
/// at 2026-12-01T22:00              once; in the time zone of the system
/// at 2026-12-01T21:00Z             once
/// every day 22:00                  also mon-fri, sat,sun, mon,wed-fri
/// within 22:00-06:00               while that window is open
/// within sat,sun 00:00-24:00       on these days; a window over midnight belongs to its first day
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// From a time on.
    At(Moment),
    /// At a time of some days.
    Every(Days, Clock),
    /// Between two times of some days.
    Within(Days, Clock, Clock),
}

/// A point in time, with or without a time zone of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Anywhere.
    Absolute(Timestamp),
    /// By the clock on the wall.
    Local(civil::DateTime),
}

/// Days of the week, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(u8);

/// A time of day in minutes; 24:00 is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock(u16);

/// A text that is no schedule; the fault of whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no schedule: write `at DATE`, `every mon-fri 22:00` or `within 22:00-06:00`")]
pub struct ScheduleError(String);

/// What a schedule says of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is due.
    Now,
    /// Not before this time.
    At(Timestamp),
}

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Schedule {
    /// Whether what changed at `since` is due `now`, and if not, when.
    pub fn turn(&self, since: Timestamp, now: Timestamp, zone: &TimeZone) -> Turn {
        match self {
            Self::At(moment) => {
                let at = match moment {
                    Moment::Absolute(at) => *at,
                    Moment::Local(at) => instant(*at, zone).unwrap_or(Timestamp::MAX),
                };
                if now >= at { Turn::Now } else { Turn::At(at) }
            }
            Self::Every(days, clock) => {
                // Due from the first time on that comes after the change.
                let next = next_after(since, zone, |day| {
                    days.has(day.weekday()).then(|| at(day, *clock, zone)).flatten()
                });
                if now >= next { Turn::Now } else { Turn::At(next) }
            }
            Self::Within(days, from, to) => {
                let local = now.to_zoned(zone.clone()).date();
                let open = [local.yesterday().ok(), Some(local)].into_iter().flatten().any(|day| {
                    let end = if to > from { Some(day) } else { day.tomorrow().ok() };
                    let begins = at(day, *from, zone);
                    let ends = end.and_then(|end| at(end, *to, zone));
                    days.has(day.weekday())
                        && begins
                            .zip(ends)
                            .is_some_and(|(begins, ends)| begins <= now && now < ends)
                });
                if open {
                    return Turn::Now;
                }
                Turn::At(next_after(now, zone, |day| {
                    days.has(day.weekday()).then(|| at(day, *from, zone)).flatten()
                }))
            }
        }
    }
}

/// The first of a rule's times behind a moment.
fn next_after(
    moment: Timestamp,
    zone: &TimeZone,
    of_day: impl Fn(civil::Date) -> Option<Timestamp>,
) -> Timestamp {
    let first = moment.to_zoned(zone.clone()).date();
    let days = (0..DAYS).filter_map(|n| first.checked_add(n.days()).ok());
    days.filter_map(of_day).find(|time| *time > moment).unwrap_or(Timestamp::MAX)
}

fn instant(at: civil::DateTime, zone: &TimeZone) -> Option<Timestamp> {
    at.to_zoned(zone.clone()).ok().as_ref().map(Zoned::timestamp)
}

/// A time of a day; one that the day skips is the next there is.
fn at(day: civil::Date, clock: Clock, zone: &TimeZone) -> Option<Timestamp> {
    let (day, minutes) = match clock.0 {
        1440 => (day.tomorrow().ok()?, 0),
        minutes => (day, minutes),
    };
    instant(day.at((minutes / 60) as i8, (minutes % 60) as i8, 0, 0), zone)
}

impl Days {
    const ALL: Self = Self(0x7f);

    fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

impl FromStr for Days {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "day" {
            return Ok(Self::ALL);
        }
        let number = |name: &str| NAMES.iter().position(|n| *n == name).ok_or(());
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut day, last) = (number(first)?, number(last)?);
            days |= 1 << day;
            while day != last {
                day = (day + 1) % 7;
                days |= 1 << day;
            }
        }
        Ok(Self(days))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("day");
        }
        let names = (0..7).filter(|n| self.0 & (1 << n) != 0).map(|n| NAMES[n]);
        f.write_str(&names.collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Clock {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (hours, minutes) = text.split_once(':').ok_or(())?;
        let number = |text: &str| {
            let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| digits).ok_or(())
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let legal = minutes < 60 && hours * 60 + minutes <= 1440;
        legal.then_some(Self(hours * 60 + minutes)).ok_or(())
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

fn moment(text: &str) -> Result<Moment, ()> {
    let absolute = text.parse().map(Moment::Absolute);
    absolute.or_else(|_| text.parse().map(Moment::Local)).map_err(drop)
}

fn window(text: &str) -> Result<(Clock, Clock), ()> {
    let (from, to) = text.split_once('-').ok_or(())?;
    let (from, to): (Clock, Clock) = (from.parse()?, to.parse()?);
    (from != to && from.0 < 1440).then_some((from, to)).ok_or(())
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let words: Vec<_> = text.split_whitespace().take(4).collect();
        let read = || -> Result<Self, ()> {
            match words[..] {
                ["at", at] => moment(at).map(Self::At),
                ["every", days, clock] => Ok(Self::Every(days.parse()?, clock.parse()?)),
                ["within", times] => {
                    let (from, to) = window(times)?;
                    Ok(Self::Within(Days::ALL, from, to))
                }
                ["within", days, times] => {
                    let (from, to) = window(times)?;
                    Ok(Self::Within(days.parse()?, from, to))
                }
                _ => Err(()),
            }
        };
        read().map_err(|()| ScheduleError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(Moment::Absolute(at)) => write!(f, "at {at}"),
            Self::At(Moment::Local(at)) => write!(f, "at {at}"),
            Self::Every(days, clock) => write!(f, "every {days} {clock}"),
            Self::Within(days, from, to) if *days == Days::ALL => {
                write!(f, "within {from}-{to}")
            }
            Self::Within(days, from, to) => write!(f, "within {days} {from}-{to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn zone(name: &str) -> TimeZone {
        // Written out, so that no database of time zones is needed.
        match name {
            "berlin" => TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap(),
            _ => TimeZone::UTC,
        }
    }

    #[test]
    fn a_schedule_is_written_and_read() {
        for text in [
            "at 2026-12-01T22:00:00",
            "at 2026-12-01T21:00:00Z",
            "every day 22:00",
            "every mon,tue,sun 00:00",
            "within 22:00-06:00",
            "within sat,sun 00:00-24:00",
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        let days: Schedule = "every fri-mon,wed 01:30".parse().unwrap();
        assert_eq!(days.to_string(), "every mon,wed,fri,sat,sun 01:30");
        for text in [
            "",
            "at",
            "at noon",
            "every 22:00",
            "every day 25:00",
            "every day 22:60",
            "within 1-2",
            "every weekday 22:00",
            "within 22:00-22:00",
            "within 24:00-01:00",
            "at 2026-13-01T00:00",
            "every day 22:00 x",
            "every day +1:00",
        ] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.to_string().contains("every mon-fri"), "{text}");
        }
    }

    /// 2026-11-21 is a Saturday.
    #[test]
    fn when_it_is_due() {
        let cases = [
            // schedule, changed, now, due at
            (
                "at 2026-11-21T12:00Z",
                "2026-11-20T00:00Z",
                "2026-11-21T11:59:59Z",
                "2026-11-21T12:00Z",
            ),
            ("at 2026-11-21T12:00Z", "2026-11-20T00:00Z", "2026-11-21T12:00:00Z", "now"),
            ("at 2026-11-21T12:00", "2026-11-20T00:00Z", "2026-11-21T12:00:00Z", "now"),
            ("every day 22:00", "2026-11-20T21:00Z", "2026-11-20T21:59Z", "2026-11-20T22:00Z"),
            ("every day 22:00", "2026-11-20T21:00Z", "2026-11-20T22:00Z", "now"),
            ("every day 22:00", "2026-11-20T21:00Z", "2026-11-23T05:00Z", "now"),
            ("every day 22:00", "2026-11-20T22:00Z", "2026-11-20T23:00Z", "2026-11-21T22:00Z"),
            ("every mon-fri 22:00", "2026-11-20T22:30Z", "2026-11-21T23:00Z", "2026-11-23T22:00Z"),
            ("every sat 24:00", "2026-11-21T10:00Z", "2026-11-21T23:00Z", "2026-11-22T00:00Z"),
            ("within 22:00-06:00", "2026-11-21T03:00Z", "2026-11-21T05:59:59Z", "now"),
            ("within 22:00-06:00", "2026-11-21T03:00Z", "2026-11-21T06:00Z", "2026-11-21T22:00Z"),
            ("within fri 22:00-06:00", "2026-11-21T03:00Z", "2026-11-21T05:00Z", "now"),
            (
                "within fri 22:00-06:00",
                "2026-11-21T03:00Z",
                "2026-11-22T05:00Z",
                "2026-11-27T22:00Z",
            ),
            ("within sat,sun 00:00-24:00", "2026-11-20T03:00Z", "2026-11-22T23:59Z", "now"),
            (
                "within sat,sun 00:00-24:00",
                "2026-11-20T03:00Z",
                "2026-11-23T00:00Z",
                "2026-11-28T00:00Z",
            ),
        ];
        for (schedule, since, now, due) in cases {
            let turn =
                schedule.parse::<Schedule>().unwrap().turn(time(since), time(now), &zone("utc"));
            let expected = if due == "now" { Turn::Now } else { Turn::At(time(due)) };
            assert_eq!(turn, expected, "{schedule} at {now}");
        }
    }

    #[test]
    fn clocks_that_are_changed_skip_nothing() {
        let berlin = zone("berlin");
        // 2026-03-29 has no 02:30 there; it is 03:30 then, 01:30 in UTC.
        let spring: Schedule = "every day 02:30".parse().unwrap();
        let turn = spring.turn(time("2026-03-28T12:00Z"), time("2026-03-28T13:00Z"), &berlin);
        assert_eq!(turn, Turn::At(time("2026-03-29T01:30Z")));
        // 2026-10-25 has it twice: the first one.
        let turn = spring.turn(time("2026-10-24T12:00Z"), time("2026-10-24T13:00Z"), &berlin);
        assert_eq!(turn, Turn::At(time("2026-10-25T00:30Z")));
    }
}
