//! The verdicts, row by row.

use svs::{CopyRule, MediumRef};

use super::*;

const NOW: u64 = 1_000 * DAY;

fn medium(name: &str) -> MediumRef {
    format!("lib V tape {name}").parse().unwrap()
}

fn now() -> Now {
    Now { ms: NOW, zone: TimeZone::UTC }
}

fn found(place: Whereabouts) -> Found {
    let facts = MediumFacts {
        version: 3,
        records: 10,
        bytes: 1000,
        last_write: Some(NOW - DAY),
        ..Default::default()
    };
    Found { place, blank: false, facts }
}

fn entry(policy: MapPolicy) -> CopyEntry {
    CopyEntry {
        changed_from: Some(7),
        changed_at: Some(NOW - DAY),
        ..CopyEntry::new(medium("A"), medium("B"), policy)
    }
}

/// `from`, or the status and a part of the reason.
fn short(verdict: Verdict) -> String {
    match verdict {
        Verdict::Copy { from, why } => format!("copy {from}: {why}"),
        Verdict::Wait { status, why, until } => {
            let until = until.map(|time| format!(" [{}]", time as i64 - NOW as i64));
            format!("{status}: {why}{}", until.unwrap_or_default())
        }
        Verdict::Switch { proven } => format!("switch: {proven}"),
    }
}

#[test]
fn what_each_policy_does_on_a_dismount() {
    use MapPolicy::{Always, Deferred, Incremental, WhenFull};
    use Whereabouts::{InDrive, Shelved, Unknown};
    let cases = [
        (Always, Shelved, false, "copy 0: the source was dismounted"),
        (Always, InDrive, false, "pending: waits for the dismount of the source"),
        (Always, Unknown, false, "pending: the source is in no library here"),
        (Incremental, Shelved, false, "copy 7: the source was dismounted"),
        (Incremental, InDrive, true, "pending: waits for the dismount of the source"),
        (WhenFull, Shelved, false, "pending: waits until the source is full"),
        (WhenFull, Shelved, true, "copy 0: the source is full"),
        (WhenFull, InDrive, true, "pending: waits for the dismount of the source"),
        (Deferred, Shelved, true, "pending: waits for a command"),
    ];
    for (policy, place, full, expected) in cases {
        let mut source = found(place);
        source.facts.full = full;
        assert_eq!(short(copy_verdict(&entry(policy), &source, &now())), expected);
    }
}

#[test]
fn what_stands_in_the_way_of_a_copy() {
    let shelved = found(Whereabouts::Shelved);
    let judge = |entry: &CopyEntry| short(copy_verdict(entry, &shelved, &now()));
    let base = entry(MapPolicy::Always);
    let with = |change: fn(&mut CopyEntry)| {
        let mut entry = base.clone();
        change(&mut entry);
        entry
    };
    let current = with(|e| e.changed_from = None);
    assert_eq!(judge(&current), "done: the target is a current copy");
    // Asked for, and there is nothing to do.
    let asked = CopyEntry { asked: true, ..current };
    assert_eq!(judge(&asked), "done: the target is a current copy");
    assert_eq!(judge(&with(|e| e.status = MapStatus::InProgress)), "in progress: is under way");
    let failed = with(|e| {
        e.status = MapStatus::Failed;
        e.message = Some("too small".into());
    });
    assert_eq!(judge(&failed), "failed: too small");
    assert_eq!(judge(&with(|e| e.next_try = Some(NOW + 5))), "pending: it failed [5]");
    assert_eq!(judge(&with(|e| e.next_try = Some(NOW))), "copy 0: the source was dismounted");
    let blank = Found { blank: true, ..shelved.clone() };
    let verdict = copy_verdict(&base, &blank, &now());
    assert_eq!(short(verdict), "pending: the source was never written");
}

#[test]
fn other_triggers_than_the_dismount() {
    let mounted = found(Whereabouts::InDrive);
    let judge = |policy, rule: CopyRule, asked| {
        let entry = CopyEntry { rule, asked, ..entry(policy) };
        short(copy_verdict(&entry, &mounted, &now()))
    };
    let rule = CopyRule::default;
    let waits = "pending: waits for the dismount of the source";
    assert_eq!(judge(MapPolicy::Always, rule(), true), "copy 0: asked for");
    assert_eq!(judge(MapPolicy::Incremental, rule(), true), "copy 7: asked for");
    let records = |n| CopyRule { after_records: Some(n), ..rule() };
    assert_eq!(
        judge(MapPolicy::Incremental, records(10), false),
        "copy 7: 10 records were written"
    );
    assert_eq!(judge(MapPolicy::Incremental, records(11), false), waits);
    let bytes = |n| CopyRule { after_bytes: Some(n), ..rule() };
    assert_eq!(judge(MapPolicy::Deferred, bytes(1000), false), "copy 0: 1000 bytes were written");
    assert_eq!(judge(MapPolicy::Always, bytes(1001), false), waits);
    let schedule = |text: &str| CopyRule { schedule: Some(text.into()), ..rule() };
    // NOW is midnight.
    assert_eq!(
        judge(MapPolicy::Deferred, schedule("every day 22:00"), false),
        "copy 0: scheduled every day 22:00"
    );
    let early = judge(MapPolicy::Deferred, schedule("within 01:00-02:00"), false);
    assert!(early.starts_with("scheduled: within 01:00-02:00: due at"), "{early}");
    assert!(early.ends_with("[3600000]"), "{early}");
    // A schedule beside the dismount.
    let both = judge(MapPolicy::Always, schedule("within 01:00-02:00"), false);
    assert!(both.starts_with("scheduled"), "{both}");
    assert_eq!(
        judge(MapPolicy::Always, schedule("within 23:00-01:00"), false),
        "copy 0: scheduled within 23:00-01:00"
    );
    let nonsense = judge(MapPolicy::Deferred, schedule("soon"), false);
    assert!(nonsense.starts_with("failed: \"soon\" is no schedule"), "{nonsense}");
}

#[test]
fn when_a_medium_is_migrated() {
    use MapPolicy::{AfterDays, Always, Deferred, WhenFull};
    let base = |policy| MigrationEntry::new(medium("A"), medium("M"), policy);
    let shelved = found(Whereabouts::Shelved);
    let judge = |entry: &MigrationEntry, copy: Option<&CopyEntry>, source: &Found| {
        short(migration_verdict(entry, copy, source, &now()))
    };
    assert_eq!(judge(&base(WhenFull), None, &shelved), "pending: waits until the source is full");
    let mut full = shelved.clone();
    full.facts.full = true;
    assert_eq!(judge(&base(WhenFull), None, &full), "copy 0: the source is full");
    let mounted = Found { place: Whereabouts::InDrive, ..full.clone() };
    let waits = "pending: waits for the dismount of the source";
    assert_eq!(judge(&base(WhenFull), None, &mounted), waits);
    let days = |days| {
        let mut entry = base(AfterDays);
        entry.rule.days = Some(days);
        entry
    };
    assert_eq!(judge(&days(1), None, &shelved), "copy 0: not written for 1 days");
    let later = judge(&days(2), None, &shelved);
    assert!(later.starts_with("scheduled: 2 days after the last write"), "{later}");
    assert!(later.ends_with(&format!("[{DAY}]")), "{later}");
    assert_eq!(judge(&base(Deferred), None, &shelved), "pending: waits for a command");
    assert_eq!(judge(&base(Always), None, &shelved), "copy 0: the source was dismounted");
    // A copy that is there already, if it is current and proven as wanted.
    let copy = |changed_from, proven| CopyEntry {
        changed_from,
        proven,
        status: MapStatus::Done,
        ..entry(Always)
    };
    let there = copy(None, Verified::Readback);
    assert_eq!(judge(&base(WhenFull), Some(&there), &full), "switch: readback");
    for not in [copy(None, Verified::Position), copy(Some(9), Verified::Readback)] {
        assert_eq!(judge(&base(WhenFull), Some(&not), &full), "copy 0: the source is full");
    }
    let making = CopyEntry { status: MapStatus::InProgress, ..copy(Some(0), Verified::None) };
    assert!(judge(&base(WhenFull), Some(&making), &full).contains("is under way"));
    let done = MigrationEntry { status: MapStatus::Done, ..base(Always) };
    assert_eq!(judge(&done, None, &full), "done: it was moved");
    let failed =
        MigrationEntry { status: MapStatus::Failed, message: Some("x".into()), ..base(Always) };
    assert_eq!(judge(&failed, None, &full), "failed: x");
}
