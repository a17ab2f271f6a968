//! OperationalStatus and HealthState, and times.

use cim::{Instance, Value};

/// How an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Fine.
    Good,
    /// It works, and something is wrong with it.
    Degraded,
    /// What is on it is not whole: the last copy to it failed or was ended.
    Failed,
    /// It is out of use.
    Stopped,
    /// Its site can not be reached: what is shown is what was last seen.
    Lost,
}

impl Health {
    /// Sets the properties of CIM_ManagedSystemElement.
    pub(super) fn of(self, instance: Instance) -> Instance {
        let (status, state, text): (u16, u16, _) = match self {
            Self::Good => (2, 5, "OK"),
            Self::Degraded => (3, 10, "Degraded"),
            Self::Failed => (6, 25, "Error: the last copy to it is not whole"),
            Self::Stopped => (10, 20, "Stopped: it is out of use"),
            Self::Lost => (13, 0, "Lost Communication: as last seen"),
        };
        instance
            .with("OperationalStatus", vec![status])
            .with("StatusDescriptions", vec![text])
            .with("HealthState", state)
    }

    /// Sets the properties of CIM_EnabledLogicalElement too.
    pub(super) fn enabled(self, instance: Instance) -> Instance {
        // Enabled; of what can not be reached nobody knows.
        let state: u16 = match self {
            Self::Lost => 5,
            // Disabled.
            Self::Stopped => 3,
            Self::Good | Self::Degraded | Self::Failed => 2,
        };
        self.of(instance).with("EnabledState", state).with("RequestedState", 12u16)
    }
}

/// A time of a row (RFC 3339 UTC) as CIM writes it; NULL for one that is not there.
pub(super) fn moment(text: Option<&str>) -> Value {
    let time = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map(datetime).into()
}

/// A time as CIM writes it, in UTC.
pub(in crate::smis) fn datetime(time: jiff::Timestamp) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC);
    format!("{}.{:06}+000", zoned.strftime("%Y%m%d%H%M%S"), zoned.subsec_nanosecond() / 1000)
}

/// The time between two rows' times, until now where the second is not there.
pub(super) fn interval(from: Option<&str>, to: Option<&str>) -> Value {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let Some(from) = from.and_then(parse) else { return Value::Null };
    let to = to.and_then(parse).unwrap_or_else(jiff::Timestamp::now);
    let micros = u64::try_from(to.as_microsecond() - from.as_microsecond()).unwrap_or(0);
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes) = (rest / 3600, rest / 60 % 60);
    format!("{days:08}{hours:02}{minutes:02}{:02}.{micros:06}:000", rest % 60).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_twenty_five_characters() {
        let time = Some("2026-11-21T07:05:09.250Z");
        assert_eq!(moment(time).text(), Some("20261121070509.250000+000"));
        let later = Some("2026-11-22T08:05:10.750Z");
        assert_eq!(interval(time, later).text(), Some("00000001010001.500000:000"));
        assert_eq!(interval(later, time).text(), Some("00000000000000.000000:000"));
        assert!(moment(None).is_null() && interval(None, time).is_null());
        assert!(moment(Some("yesterday")).is_null());
    }
}
