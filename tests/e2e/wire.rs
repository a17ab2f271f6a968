//! What crosses the WAN, counted by a relay between the engines and not by the engines.

use tests::{Content, Direction, Operator, Pair, Role, Scratch, Texture, full, seed};

/// Writes `content` as a new tape of the first virtual cartridge, unloads it, waits until the other
/// site has it, and tells what that cost on the wire, both ways.
fn backup_and_replicate(pair: &Pair, operator: &Operator, content: &Content) -> u64 {
    let before = pair.relay.total();
    operator.load("vtl0", "VTA001L8", 0);
    assert_eq!(operator.backup("vtl0/drive0", 65_536, content.reader()), content.length());
    operator.unload("vtl0", 0);
    pair.wait_replicated("VTA001L8");
    pair.relay.total() - before
}

#[test]
fn a_second_generation_costs_what_changed_in_it() {
    let scratch = Scratch::new("wire");
    let seed = seed("a_second_generation_costs_what_changed_in_it");
    let mut pair = Pair::new(&scratch, |_, _| {});
    pair.run();
    let operator = Operator::of(&pair);

    let first = Content::new(Texture::Incompressible, seed, full(1 << 30, 4 << 30));
    let cost = backup_and_replicate(&pair, &operator, &first);
    println!("first generation: {} bytes, {cost} on the wire", first.length());
    assert!(cost >= first.length(), "less than the data itself: is the relay in between?");
    assert!(cost < first.length() + first.length() / 20, "{cost} for {}", first.length());

    let second = first.edited(64, 8, seed);
    let cost = backup_and_replicate(&pair, &operator, &second);
    println!("second generation: {} bytes, {cost} on the wire", second.length());
    assert!(cost <= 16 << 20, "the second generation cost {cost} bytes on the wire");
    assert!(pair.relay.bytes(Direction::Down) > 0);
    let status = pair.cartridge(Role::Local, "VTA001L8");
    assert_eq!(status.logical_bytes, Some(second.length().next_multiple_of(65_536)));
    assert!(status.wire_bytes.is_some_and(|bytes| bytes <= cost), "{status:?}, relay: {cost}");
}
