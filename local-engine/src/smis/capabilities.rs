//! What the replication service can, as its capabilities tell it when they are asked.

use cim::{Instance, Invoked, Value};

use super::copying::{
    ABORT, ASYNCHRONOUS, CLONE, DETACH, DONE, INVALID, NOT_SUPPORTED, RESUME, SUSPEND,
};

/// The one replication type: Asynchronous Clone Local.
pub(super) const TYPE: u16 = 11;
/// LocalOrRemote: Local.
const LOCAL: i128 = 2;
/// ServiceControlling: Source or Target.
const EITHER: u16 = 4;
/// Synchronized clone target detaches automatically.
const DETACHES: u16 = 18;
/// Initialized, Unsynchronized, Synchronized, Broken, Suspended, Aborted; and whether a host can
/// use the target then.
const COPY_STATES: [(u16, bool); 6] =
    [(2, false), (3, false), (4, true), (5, true), (9, false), (12, true)];

/// Answers a method of the capabilities; `None` for one that is not offered.
pub(super) fn answer(method: &str, input: impl Fn(&str) -> Value) -> Option<Invoked> {
    let number = |name: &str| input(name).integer();
    let absent_or = |name: &str, wanted| number(name).is_none_or(|value| value == wanted);
    if method == "ConvertSyncTypeToReplicationType" {
        let fits = number("SyncType") == Some(CLONE)
            && absent_or("Mode", ASYNCHRONOUS)
            && absent_or("LocalOrRemote", LOCAL);
        let Some(_) = number("SyncType") else { return Some(Invoked::code(INVALID)) };
        return Some(match fits {
            true => Invoked::code(DONE).with("SupportedReplicationTypes", TYPE),
            false => Invoked::code(NOT_SUPPORTED),
        });
    }
    let answer = match method {
        "ConvertReplicationTypeToSyncType" => Invoked::code(DONE)
            .with("SyncType", CLONE as u16)
            .with("Mode", ASYNCHRONOUS as u16)
            .with("LocalOrRemote", LOCAL as u16),
        "GetSupportedFeatures" => Invoked::code(DONE).with("Features", vec![DETACHES]),
        "GetSupportedOperations" => {
            let operations = [ABORT, DETACH, RESUME, SUSPEND].map(|it| it as u16);
            Invoked::code(DONE)
                .with("SupportedOperations", operations.to_vec())
                .with("ServiceControlling", vec![EITHER; operations.len()])
                .with("RequiresForce", vec![false; operations.len()])
                .with("UpdatesSynchronizedPath", vec![false; operations.len()])
        }
        "GetSupportedCopyStates" => {
            let (states, accessible): (Vec<_>, Vec<_>) = COPY_STATES.into_iter().unzip();
            Invoked::code(DONE)
                .with("SupportedCopyStates", states)
                .with("HostAccessible", accessible)
        }
        "GetDefaultReplicationSettingData" => {
            let setting = Instance::embedded("Twinreel_TapeReplicationSettingData")
                .with("InstanceID", "twinreel:default")
                .with("ElementName", "A whole tape, from its beginning")
                // Stop; overwrite.
                .with("OnGroupOrListError", 3u16)
                .with("TargetPosition", 2u16);
            Invoked::code(DONE).with("DefaultInstance", setting)
        }
        _ => return None,
    };
    Some(match number("ReplicationType") {
        Some(kind) if kind == i128::from(TYPE) => answer,
        Some(_) => Invoked::code(NOT_SUPPORTED),
        None => Invoked::code(INVALID),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, inputs: &[(&str, u16)]) -> (i128, Vec<&'static str>) {
        let input = |name: &str| {
            let found = inputs.iter().find(|(known, _)| *known == name);
            found.map_or(Value::Null, |(_, value)| (*value).into())
        };
        let answer = answer(method, input).unwrap();
        let names = answer.outputs.iter().map(|(name, _)| *name).collect();
        (answer.returned.integer().unwrap(), names)
    }

    #[test]
    fn what_is_told_is_what_the_service_does() {
        let convert = "ConvertSyncTypeToReplicationType";
        assert_eq!(ask(convert, &[("SyncType", 8)]).1, ["SupportedReplicationTypes"]);
        assert_eq!(ask(convert, &[("SyncType", 8), ("Mode", 2)]).0, 1);
        assert_eq!(ask(convert, &[("SyncType", 7)]).0, 1);
        assert_eq!(ask(convert, &[]).0, 5);
        let (code, names) = ask("GetSupportedOperations", &[("ReplicationType", 11)]);
        assert_eq!((code, names.len()), (0, 4));
        assert_eq!(ask("GetSupportedFeatures", &[("ReplicationType", 2)]).0, 1);
        assert_eq!(ask("GetSupportedCopyStates", &[]).0, 5);
        assert!(answer("GetSupportedMaximum", |_| Value::Null).is_none());
    }
}
