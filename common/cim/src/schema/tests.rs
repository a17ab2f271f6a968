use super::*;

fn served() -> Schema {
    Schema::served().unwrap()
}

#[test]
fn the_files_fit_each_other() {
    let schema = served();
    assert!(schema.classes().count() > 110);
    for class in schema.classes() {
        let has_keys = class.keys().next().is_some();
        let by_keys = class.is_abstract || class.indication || has_keys;
        assert!(by_keys || schema.is_a(&class.name, "CIM_ManagedElement"), "{}", class.name);
        if class.association {
            let ends = class.properties.iter().filter(|p| p.kind == Type::Reference).count();
            assert!(ends >= 2, "{}", class.name);
        }
        let named = |name: &str| class.qualifiers.iter().any(|q| q.name == name);
        assert!(named("Description") && named("Version"), "{}", class.name);
    }
}

#[test]
fn features_are_inherited_and_overridden_in_place() {
    let schema = served();
    let drive = schema.class("cim_tapedrive").unwrap();
    let keys: Vec<_> = drive.keys().map(|key| key.name.as_ref()).collect();
    assert_eq!(keys, ["SystemCreationClassName", "SystemName", "CreationClassName", "DeviceID"]);
    assert_eq!(drive.property("elementname").unwrap().origin, "CIM_ManagedElement");
    let job = schema.class("CIM_ConcreteJob").unwrap();
    let states = &job.property("JobState").unwrap().values;
    assert!(states.contains(&("7".into(), "Completed".into())));
    assert!(job.method("KillJob").is_some() && job.method("GetError").is_some());
    assert!(schema.is_a("CIM_TapeDrive", "CIM_LogicalDevice"));
    assert!(!schema.is_a("CIM_LogicalDevice", "CIM_TapeDrive"));
    let family: Vec<_> = schema.family("CIM_PhysicalMedia").iter().map(|c| &c.name).collect();
    assert_eq!(family, ["CIM_PhysicalMedia", "CIM_PhysicalTape"]);
}

#[test]
fn a_file_that_does_not_fit_is_told_with_its_line() {
    let rows = [
        ("class A : B", "no superclass B"),
        ("class A\nclass A", "twice"),
        ("property X string", ":1: no class"),
        ("class A\nproperty X text", ":2: no type"),
        ("class A\nproperty X ref:B", "names B"),
        ("class A\nproperty X string loud", "loud"),
        ("class A\nparameter X string", "without a method"),
        ("class A\n= 1 | One", "of nothing"),
        ("class A\nproperty X string key", "no qualifier Key"),
        ("word", "unknown word"),
    ];
    for (text, says) in rows {
        let error = Schema::parse(&[("f", text)]).unwrap_err();
        assert!(error.0.contains(says), "{text}: {error}");
    }
}
