//! How much of the link replication may take, by days and hours.

use jiff::civil::{DateTime, Weekday};
use model::ByteSize;
use serde::Deserialize;

use super::check::Findings;
use crate::bandwidth::Rate;

/// Rules at most.
const RULES: usize = 64;
const DAY: u16 = 24 * 60;

/// `[[replication.calendar]]`: another rate at certain hours.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalendarRule {
    /// The days on which it begins; every day if not given.
    pub days: Option<Vec<Day>>,
    /// When it begins: `"08:00"`.
    pub from: Clock,
    /// When it ends: `"18:00"`, on the next day if that is not later; at most `"24:00"`.
    pub to: Clock,
    /// Bytes a second, `"0"` for nothing at all; no limit if not given.
    pub bandwidth: Option<ByteSize>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

/// A time of day: minutes since midnight, 0 to 1440.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Clock(u16);

impl TryFrom<String> for Clock {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a time of day such as \"08:30\"");
        let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| match text.as_bytes() {
            [a @ b'0'..=b'9', b @ b'0'..=b'9'] => {
                Some(u16::from(a - b'0') * 10 + u16::from(b - b'0'))
            }
            _ => None,
        };
        let (hours, minutes) = number(hours).zip(number(minutes)).ok_or_else(wrong)?;
        let all = hours * 60 + minutes;
        (minutes < 60 && all <= DAY).then_some(Self(all)).ok_or_else(wrong)
    }
}

impl CalendarRule {
    /// Whether it counts at this local time. A rule that goes over midnight belongs to the day on
    /// which it begins.
    fn covers(&self, now: DateTime) -> bool {
        let minute = now.hour() as u16 * 60 + now.minute() as u16;
        let on = |day: Weekday| {
            self.days.as_ref().is_none_or(|days| days.iter().any(|it| it.weekday() == day))
        };
        let (today, yesterday) = (now.weekday(), now.weekday().previous());
        match self.from < self.to {
            true => on(today) && (self.from.0..self.to.0).contains(&minute),
            false => (on(today) && minute >= self.from.0) || (on(yesterday) && minute < self.to.0),
        }
    }
}

/// The rate at this local time: that of the first rule that covers it, else the `usual` one.
pub fn rate_at(usual: Option<ByteSize>, calendar: &[CalendarRule], now: DateTime) -> Rate {
    let rule = calendar.iter().find(|rule| rule.covers(now));
    match rule.map_or(usual, |rule| rule.bandwidth) {
        None => Rate::Unlimited,
        Some(ByteSize(0)) => Rate::Stopped,
        Some(ByteSize(rate)) => Rate::PerSecond(rate),
    }
}

pub(super) fn check(calendar: &[CalendarRule], findings: &mut Findings) {
    findings.require(calendar.len() <= RULES, || {
        format!("replication: at most {RULES} rules in the calendar")
    });
    for rule in calendar {
        let slow = rule.bandwidth.is_some_and(|rate| (1..1024).contains(&rate.0));
        findings.require(!slow, || {
            "replication: bandwidth in a calendar is 0 for nothing, or at least 1024 bytes a second"
        });
        findings.require(
            rule.days.as_ref().is_none_or(|days| !days.is_empty()),
            || "replication: a rule of the calendar has no day; leave days out for every day",
        );
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn rules(text: &str) -> Vec<CalendarRule> {
        #[derive(Deserialize)]
        struct File {
            calendar: Vec<CalendarRule>,
        }
        toml::from_str::<File>(text).unwrap().calendar
    }

    #[test]
    fn the_first_rule_that_covers_counts() {
        let calendar = rules(
            r#"
            [[calendar]]
            days = ["wed"]
            from = "12:00"
            to = "13:00"
            [[calendar]]
            days = ["mon", "tue", "wed", "thu", "fri"]
            from = "08:00"
            to = "18:00"
            bandwidth = "2MB"
            [[calendar]]
            days = ["fri"]
            from = "22:00"
            to = "06:00"
            bandwidth = 0
            "#,
        );
        // 2026-11-16 is a Monday.
        let at = |day: i8, hour, minute| {
            let now = date(2026, 11, 15 + day).at(hour, minute, 30, 0);
            rate_at(Some(ByteSize(7000)), &calendar, now)
        };
        let (usual, slow) = (Rate::PerSecond(7000), Rate::PerSecond(2_000_000));
        let table = [
            (1, 7, 59, usual),
            (1, 8, 0, slow),
            (1, 17, 59, slow),
            (1, 18, 0, usual),
            (3, 11, 59, slow),
            (3, 12, 0, Rate::Unlimited),
            (3, 13, 0, slow),
            (5, 21, 59, usual),
            (5, 22, 0, Rate::Stopped),
            (6, 0, 0, Rate::Stopped),
            (6, 5, 59, Rate::Stopped),
            (6, 6, 0, usual),
            (6, 23, 0, usual),
            (7, 9, 0, usual),
        ];
        for (day, hour, minute, rate) in table {
            assert_eq!(at(day, hour, minute), rate, "day {day}, {hour}:{minute}");
        }
    }

    #[test]
    fn a_rule_from_a_time_to_the_same_lasts_a_day() {
        let calendar = rules("calendar = [{ days = ['sun'], from = '06:00', to = '06:00' }]");
        let at = |day, hour| {
            rate_at(Some(ByteSize(1)), &calendar, date(2026, 11, day).at(hour, 0, 0, 0))
        };
        assert_eq!(at(22, 5), Rate::PerSecond(1));
        assert_eq!(at(22, 6), Rate::Unlimited);
        assert_eq!(at(23, 5), Rate::Unlimited);
        assert_eq!(at(23, 6), Rate::PerSecond(1));
    }

    #[test]
    fn times_are_strict() {
        for (text, minutes) in [("00:00", Some(0)), ("24:00", Some(1440)), ("08:30", Some(510))] {
            assert_eq!(Clock::try_from(text.to_owned()).ok().map(|it| it.0), minutes);
        }
        for text in ["8:30", "24:01", "08:60", "", "08", "08:30:00", "-1:00", "+1:00"] {
            assert!(Clock::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
