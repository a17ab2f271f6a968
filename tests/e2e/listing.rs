//! One barcode, one place: no listing shows a cartridge twice, or the replica of one.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::{Content, Operator, Pair, Scratch, Texture, seed, twinreel};

#[test]
fn a_replica_is_in_no_listing_and_no_barcode_is_there_twice() {
    let scratch = Scratch::new("listing");
    let mut pair = Pair::new(&scratch, |_, _| {});
    pair.run();
    let operator = Operator::of(&pair);
    operator.wait_for("dr-ptl0");
    operator.load("vtl0", "VTA001L8", 0);
    let content = Content::new(Texture::Compressible, seed("listing"), 5_000_000);
    operator.backup("vtl0/drive0", 32_768, content.reader());
    operator.unload("vtl0", 0);
    pair.wait_replicated("VTA001L8");

    assert_eq!(operator.changers(), ["dr-ptl0/changer", "vtl0/changer"]);
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for library in ["vtl0", "dr-ptl0"] {
        for (_, barcode) in operator.inventory(library) {
            let before = seen.insert(barcode.clone(), library.to_owned());
            assert_eq!(before, None, "{barcode} is in {library} and elsewhere");
        }
    }
    assert_eq!(seen.len(), 12, "{seen:?}");

    let rows = listed(&pair, "local.toml", "cartridges");
    assert_eq!(rows.len(), 6, "{rows:#?}");
    let libraries = listed(&pair, "local.toml", "libraries");
    let mut names: Vec<_> =
        libraries.iter().map(|l| l["library"]["name"].as_str().expect("a name")).collect();
    names.sort();
    assert_eq!(names, ["ptl0", "vtl0"], "{libraries:#?}");
}

/// What `twinreel COMMAND --json` prints for one engine: a list of objects.
fn listed(pair: &Pair, config: &str, command: &str) -> Vec<Value> {
    let config = pair.directory().join(config);
    let config = config.to_str().expect("a scratch path is text");
    let (code, out, errors) = twinreel([command, "--json", "--config", config]);
    assert_eq!(code, 0, "{command}: {errors}");
    let value: Value = serde_json::from_str(&out).expect("one JSON document");
    value.as_array().cloned().unwrap_or_else(|| panic!("{command} lists {value}"))
}
