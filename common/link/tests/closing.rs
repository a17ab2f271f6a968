//! A device that is asked for while its last lease is being given back: whoever asks waits for it,
//! though not for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use link::{
    Answer, CLOSING_MS, ClientEvent, LeaseAction, LeaseClient, LeaseReplyBody, LeaseTable, Message,
    Peer, RefusalWhy, Work,
};
use model::{EngineId, LeaseId, SiteName, Ulid};

const LEASE_MS: u64 = 120_000;

fn peer(site: &str, engine: u128) -> Peer {
    let capabilities = link::Capabilities::ALL;
    let (site, engine) = (SiteName::new(site).unwrap(), EngineId(Ulid(engine)));
    Peer { site, engine, version: 1, capabilities }
}

fn id(number: u128) -> LeaseId {
    LeaseId(Ulid(number))
}

fn client(number: u128) -> (LeaseClient, link::LeaseRequest) {
    LeaseClient::open(id(number), "ptl0/drive0".parse().unwrap(), true)
}

/// Leases whose devices are to be taken.
fn opens(actions: &[LeaseAction]) -> Vec<LeaseId> {
    let open = |action: &LeaseAction| match action {
        LeaseAction::Open { lease, .. } => Some(*lease),
        _ => None,
    };
    actions.iter().filter_map(open).collect()
}

/// What the site is told.
fn replies(actions: Vec<LeaseAction>) -> Vec<LeaseReplyBody> {
    let reply = |action| match action {
        LeaseAction::Send { reply, .. } => Some(reply.body),
        _ => None,
    };
    actions.into_iter().filter_map(reply).collect()
}

fn is_busy(replies: &[LeaseReplyBody]) -> bool {
    matches!(replies, [LeaseReplyBody::Refused(refusal)] if refusal.why == RefusalWhy::Busy)
}

/// A table with an open lease, number 1 of engine 1 at `here`.
fn table() -> (LeaseTable, LeaseClient) {
    let mut table = LeaseTable::new(LEASE_MS);
    let (mut holder, open) = client(1);
    let asked = table.handle(0, &peer("here", 1), open).unwrap();
    assert_eq!(opens(&asked), [id(1)]);
    for action in table.opened(0, id(1), Ok(())) {
        if let LeaseAction::Send { reply, .. } = action {
            assert_eq!(holder.handle(reply), Some(ClientEvent::Opened));
        }
    }
    (table, holder)
}

/// The same, and the holder has asked for its end.
fn closing() -> LeaseTable {
    let (mut table, mut holder) = table();
    let close = holder.submit(Work::Close).unwrap();
    let asked = table.handle(1, &peer("here", 1), close).unwrap();
    assert!(matches!(asked[..], [LeaseAction::Close { .. }]), "{asked:?}");
    table
}

#[test]
fn who_asks_while_a_device_is_given_back_gets_it_when_it_is() {
    let mut table = closing();
    let asked = table.handle(2, &peer("here", 1), client(2).1).unwrap();
    assert_eq!(asked, [], "neither refused nor opened");
    assert_eq!(table.holder(&"ptl0/drive0".parse().unwrap()).unwrap().0, id(1));
    let freed = table.closed(3, id(1), Ok(()));
    assert_eq!(opens(&freed), [id(2)]);
    let answered = replies(freed);
    assert!(matches!(answered[..], [LeaseReplyBody::Answered { answer: Answer::Closed, .. }]));
    assert_eq!(
        replies(table.opened(4, id(2), Ok(()))),
        [LeaseReplyBody::Opened { lease_ms: LEASE_MS }]
    );
}

#[test]
fn a_device_in_use_is_busy_at_once_and_a_second_one_does_not_wait() {
    let (mut table, _holder) = table();
    let asked = table.handle(2, &peer("here", 1), client(2).1).unwrap();
    assert!(is_busy(&replies(asked)));
    let mut table = closing();
    assert_eq!(table.handle(2, &peer("here", 1), client(2).1).unwrap(), []);
    let third = table.handle(2, &peer("there", 9), client(3).1).unwrap();
    assert!(is_busy(&replies(third)));
}

#[test]
fn a_device_that_is_not_given_back_in_time_is_busy() {
    let mut table = closing();
    let (mut asker, open) = client(2);
    table.handle(2, &peer("here", 1), open).unwrap();
    // Asked again over a new connection it waits no longer for that.
    asker.on_disconnect(3);
    let again = asker.on_reconnect().remove(0);
    assert_eq!(table.handle(CLOSING_MS, &peer("here", 1), again).unwrap(), []);
    assert_eq!(table.next_deadline_ms(), Some(CLOSING_MS + 2));
    assert_eq!(table.tick(CLOSING_MS + 1), []);
    let told = table.tick(CLOSING_MS + 2);
    let [LeaseAction::Send { reply, .. }] = &told[..] else { panic!("{told:?}") };
    match asker.handle(reply.clone()) {
        Some(ClientEvent::Refused(refusal)) => assert_eq!(refusal.why, RefusalWhy::Busy),
        other => panic!("{other:?}"),
    }
    assert_eq!(opens(&table.closed(CLOSING_MS + 3, id(1), Ok(()))), []);
}

#[test]
fn an_engine_that_comes_back_waits_for_what_its_last_run_held() {
    let (mut table, _lost) = table();
    let met = table.on_peer(5, &peer("here", 2));
    assert!(matches!(met[..], [LeaseAction::Close { .. }]), "{met:?}");
    assert_eq!(table.handle(6, &peer("here", 2), client(2).1).unwrap(), []);
    // And once more: the one that waited is forgotten with its engine.
    assert_eq!(table.on_peer(7, &peer("here", 3)), []);
    assert_eq!(table.handle(8, &peer("here", 3), client(3).1).unwrap(), []);
    assert_eq!(opens(&table.closed(9, id(1), Ok(()))), [id(3)]);
}

#[test]
fn a_device_that_could_not_be_taken_after_all_is_free_for_who_waits() {
    let mut table = LeaseTable::new(LEASE_MS);
    table.handle(0, &peer("here", 1), client(1).1).unwrap();
    table.on_peer(1, &peer("here", 2));
    assert_eq!(table.handle(2, &peer("here", 2), client(2).1).unwrap(), []);
    let refusal = link::Refusal { why: RefusalWhy::Device, text: "gone".into() };
    assert_eq!(opens(&table.opened(3, id(1), Err(refusal))), [id(2)]);
}

#[test]
fn a_request_of_who_waits_breaks_the_rules() {
    let mut table = closing();
    let (_, open) = client(2);
    table.handle(2, &peer("here", 1), open.clone()).unwrap();
    let work = link::Numbered {
        number: 1,
        repeated: false,
        expect: Default::default(),
        work: Work::Close,
    };
    let early = link::LeaseRequest { body: link::LeaseBody::Perform(work), ..open };
    let early = Message::decode(Message::Lease(early).encode()).unwrap();
    let Message::Lease(early) = early else { panic!() };
    assert!(table.handle(3, &peer("here", 1), early).is_err());
}
