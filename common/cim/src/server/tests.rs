use super::*;
use crate::wire::Raw;
use crate::xml::{Element, Limits, read};

/// Systems with devices, in two namespaces.
struct Small {
    systems: usize,
}

fn system(index: usize) -> Path {
    Path::new("root/twinreel", "CIM_ComputerSystem")
        .with("CreationClassName", "CIM_ComputerSystem")
        .with("Name", format!("s{index}"))
}

fn drive(index: usize) -> Path {
    Path::new("root/twinreel", "CIM_TapeDrive")
        .with("SystemCreationClassName", "CIM_ComputerSystem")
        .with("SystemName", format!("s{index}"))
        .with("CreationClassName", "CIM_TapeDrive")
        .with("DeviceID", "d")
}

fn refuse<T>() -> Result<T, CimError> {
    Err(CimError::new(Status::NotSupported, "no"))
}

impl Repository for Small {
    type Look = ();

    fn visit(
        &self,
        (): &(),
        class: &str,
        _like: Option<&Path>,
        take: &mut Take<'_>,
    ) -> Result<(), CimError> {
        let all = 0..self.systems;
        let found: Vec<Instance> = match class {
            "CIM_ComputerSystem" => all
                .map(|i| Instance::at(system(i)).with("ElementName", format!("system {i}")))
                .collect(),
            "CIM_TapeDrive" => all.map(|i| Instance::at(drive(i))).collect(),
            "CIM_SystemDevice" => all
                .map(|i| {
                    let path = Path::new("root/twinreel", "CIM_SystemDevice");
                    let path = path.with_reference("GroupComponent", system(i));
                    Instance::at(path.with_reference("PartComponent", drive(i)))
                })
                .collect(),
            _ => Vec::new(),
        };
        found.into_iter().try_for_each(take)
    }

    fn create(&self, _: Instance, _: &Caller) -> Result<Path, CimError> {
        refuse()
    }

    fn modify(&self, _: &Path, _: Vec<(String, Value)>) -> Result<(), CimError> {
        refuse()
    }

    fn delete(&self, _: &Path) -> Result<(), CimError> {
        refuse()
    }

    fn invoke(
        &self,
        _: &Path,
        method: &Method,
        inputs: Vec<(String, Value)>,
        _: &Caller,
    ) -> Result<Invoked, CimError> {
        match method.feature.name.as_ref() {
            "RequestStateChange" => {
                let state = inputs.iter().find(|(name, _)| name == "RequestedState");
                let state = state.and_then(|(_, value)| value.integer()).unwrap_or(0);
                Ok(Invoked::code(state as u32))
            }
            _ => refuse(),
        }
    }
}

fn server(systems: usize) -> Server<Small> {
    let schema = Arc::new(Schema::served().unwrap());
    Server::new(schema, vec!["interop", "root/twinreel"], "host", Small { systems })
}

fn text(value: &str) -> Raw {
    Raw::Text(value.into())
}

fn class(name: &str) -> Raw {
    Raw::Class(Path::new("", name.to_owned()))
}

fn ask_at(
    server: &Server<Small>,
    now: u64,
    name: &str,
    parameters: Vec<(&str, Raw)>,
) -> Result<Element, u8> {
    let parameters = parameters.into_iter().map(|(n, raw)| (n.to_owned(), raw)).collect();
    let namespace = "root/twinreel".to_owned();
    let call = Call::Intrinsic { name: name.into(), namespace, parameters };
    reply(server, call, now)
}

fn reply(server: &Server<Small>, call: Call, now: u64) -> Result<Element, u8> {
    let request = Request { id: "1".into(), call };
    let caller = Caller { user: "u".into(), host: [127, 0, 0, 1].into() };
    let answer = server.answer(&request, &caller, now, Writer::new()).unwrap();
    let limits = Limits { bytes: 64 << 20, elements: 1 << 20, ..Limits::REQUEST };
    let mut tree = read(answer.as_bytes(), &limits).unwrap();
    for _ in 0..3 {
        tree = tree.children.remove(0);
    }
    match tree.children.first() {
        Some(error) if error.name == "ERROR" => {
            Err(error.attribute("CODE").unwrap().parse().unwrap())
        }
        _ => Ok(tree),
    }
}

fn ask(name: &str, parameters: Vec<(&str, Raw)>) -> Result<Element, u8> {
    ask_at(&server(3), 0, name, parameters)
}

/// The children of IRETURNVALUE.
fn returned(tree: Element) -> Vec<Element> {
    tree.children.into_iter().next().map(|value| value.children).unwrap_or_default()
}

#[test]
fn every_fault_has_the_code_that_clients_expect() {
    let path = |path: Path| Raw::Path(path);
    let unknown = system(9);
    type Row = (&'static str, Vec<(&'static str, Raw)>, u8);
    let rows: Vec<Row> = vec![
        ("GetClass", vec![("ClassName", class("X"))], 6),
        ("GetClass", vec![], 4),
        ("GetClass", vec![("ClassName", class("CIM_Job")), ("Odd", text("1"))], 4),
        ("GetClass", vec![("ClassName", class("CIM_Job")), ("LocalOnly", text("maybe"))], 4),
        ("GetClass", vec![("ClassName", text("CIM_Job"))], 4),
        ("EnumerateInstances", vec![("ClassName", class("X"))], 5),
        ("EnumerateInstanceNames", vec![("ClassName", class("X"))], 5),
        ("EnumerateClasses", vec![("ClassName", class("X"))], 5),
        ("GetInstance", vec![("InstanceName", path(unknown.clone()))], 6),
        ("GetInstance", vec![("InstanceName", path(Path::new("", "X")))], 5),
        ("GetInstance", vec![("InstanceName", path(Path::new("", "CIM_ComputerSystem")))], 4),
        ("DeleteInstance", vec![("InstanceName", path(unknown))], 6),
        ("DeleteInstance", vec![("InstanceName", path(system(0)))], 7),
        ("GetQualifier", vec![("QualifierName", text("Odd"))], 6),
        ("ExecQuery", vec![], 7),
        ("OpenQueryInstances", vec![], 7),
        ("DeleteClass", vec![], 7),
        ("Odd", vec![], 7),
        (
            "PullInstancesWithPath",
            vec![("EnumerationContext", text("5")), ("MaxObjectCount", text("1"))],
            21,
        ),
        (
            "PullInstancePaths",
            vec![("EnumerationContext", text("x")), ("MaxObjectCount", text("1"))],
            21,
        ),
        ("CloseEnumeration", vec![("EnumerationContext", text("5"))], 21),
        (
            "OpenEnumerateInstances",
            vec![("ClassName", class("CIM_System")), ("FilterQuery", text("x"))],
            25,
        ),
        ("Associators", vec![("ObjectName", path(system(0))), ("AssocClass", class("X"))], 4),
    ];
    for (name, parameters, code) in rows {
        assert_eq!(ask(name, parameters.clone()).unwrap_err(), code, "{name} {parameters:?}");
    }
    let call =
        Call::Intrinsic { name: "GetClass".into(), namespace: "odd".into(), parameters: vec![] };
    assert_eq!(reply(&server(0), call, 0).unwrap_err(), 3);
}

#[test]
fn instances_are_enumerated_with_their_subclasses() {
    let names = returned(
        ask("EnumerateInstanceNames", vec![("ClassName", class("CIM_ManagedElement"))]).unwrap(),
    );
    assert_eq!(names.len(), 6);
    let found =
        returned(ask("EnumerateInstances", vec![("ClassName", class("cim_system"))]).unwrap());
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].name, "VALUE.NAMEDINSTANCE");
    let properties = |tree: &Element| -> Vec<String> {
        let of = |p: &Element| p.attribute("NAME").unwrap().to_owned();
        tree.children.iter().map(of).collect()
    };
    assert_eq!(properties(&found[0].children[1]), ["ElementName", "Name", "CreationClassName"]);
    // By name, one that is NULL is told as NULL; an empty list asks for nothing.
    let list = Raw::Texts(vec![Some("Roles".into()), Some("odd".into())]);
    let wanted = vec![("InstanceName", Raw::Path(system(1))), ("PropertyList", list)];
    let found = returned(ask("GetInstance", wanted).unwrap());
    assert_eq!(properties(&found[0]), ["Roles"]);
    let nothing =
        vec![("InstanceName", Raw::Path(system(1))), ("PropertyList", Raw::Texts(vec![]))];
    assert!(properties(&returned(ask("GetInstance", nothing).unwrap())[0]).is_empty());
    // Without DeepInheritance, what subclasses add is left out.
    let shallow =
        vec![("ClassName", class("CIM_ManagedElement")), ("DeepInheritance", text("false"))];
    let found = returned(ask("EnumerateInstances", shallow).unwrap());
    assert_eq!(properties(&found[0].children[1]), ["ElementName"]);
}

#[test]
fn associations_are_walked_in_both_directions() {
    let walk = |from: Path, more: Vec<(&str, Raw)>| {
        let mut all = vec![("ObjectName", Raw::Path(from))];
        all.extend(more);
        returned(ask("AssociatorNames", all).unwrap()).len()
    };
    assert_eq!(walk(system(1), vec![]), 1);
    assert_eq!(walk(drive(1), vec![]), 1);
    assert_eq!(walk(system(1), vec![("ResultClass", class("CIM_LogicalDevice"))]), 1);
    assert_eq!(walk(system(1), vec![("ResultClass", class("CIM_Service"))]), 0);
    assert_eq!(walk(system(1), vec![("Role", text("groupcomponent"))]), 1);
    assert_eq!(walk(system(1), vec![("Role", text("PartComponent"))]), 0);
    assert_eq!(walk(system(1), vec![("ResultRole", text("PartComponent"))]), 1);
    assert_eq!(walk(system(1), vec![("AssocClass", class("CIM_Dependency"))]), 0);
    assert_eq!(
        walk(system(1), vec![("AssocClass", class("CIM_Component")), ("Role", text(""))]),
        1
    );
    let whole = returned(ask("Associators", vec![("ObjectName", Raw::Path(drive(2)))]).unwrap());
    assert_eq!((whole.len(), whole[0].name.as_str()), (1, "VALUE.OBJECTWITHPATH"));
    let joins = returned(ask("References", vec![("ObjectName", Raw::Path(drive(2)))]).unwrap());
    assert_eq!(joins[0].children[1].attribute("CLASSNAME"), Some("CIM_SystemDevice"));
    let classes =
        returned(ask("ReferenceNames", vec![("ObjectName", class("CIM_TapeDrive"))]).unwrap());
    assert!(classes.len() > 5);
    let class_ends = vec![
        ("ObjectName", class("CIM_PhysicalTape")),
        ("AssocClass", class("CIM_RealizesTapePartition")),
    ];
    assert_eq!(returned(ask("AssociatorNames", class_ends).unwrap()).len(), 1);
}

fn pulled(tree: &Element) -> (usize, String, bool) {
    let [objects, context, end] = tree.children.as_slice() else { panic!("{tree:?}") };
    let value = |element: &Element| element.children[0].text.clone();
    (objects.children.len(), value(context), value(end) == "TRUE")
}

#[test]
fn an_enumeration_is_pulled_in_pieces_until_it_ends_or_expires() {
    let server = server(5);
    let open = |count: &str, now| {
        let parameters = vec![("ClassName", class("CIM_System")), ("MaxObjectCount", text(count))];
        pulled(&ask_at(&server, now, "OpenEnumerateInstances", parameters).unwrap())
    };
    let pull = |context: &str, count: &str, now| {
        let parameters =
            vec![("EnumerationContext", text(context)), ("MaxObjectCount", text(count))];
        ask_at(&server, now, "PullInstancesWithPath", parameters).map(|tree| pulled(&tree))
    };
    assert_eq!(open("5", 0), (5, String::new(), true));
    let (none, context, end) = open("0", 0);
    assert_eq!((none, end), (0, false));
    let (two, context, end) = pull(&context, "2", 0).unwrap();
    assert_eq!((two, end), (2, false));
    let other = vec![("EnumerationContext", text(&context)), ("MaxObjectCount", text("1"))];
    assert_eq!(ask_at(&server, 0, "PullInstancePaths", other).unwrap_err(), 21);
    let (three, _, end) = pull(&context, "9", 1000).unwrap();
    assert_eq!((three, end), (3, true));
    assert_eq!(pull(&context, "1", 1000).unwrap_err(), 21);
    let (_, context, _) = open("1", 5000);
    assert_eq!(pull(&context, "1", 35_001).unwrap_err(), 21);
    // Closed is closed.
    let (_, context, _) = open("1", 40_000);
    let close = || vec![("EnumerationContext", text(&context))];
    assert!(ask_at(&server, 40_000, "CloseEnumeration", close()).is_ok());
    assert_eq!(ask_at(&server, 40_000, "CloseEnumeration", close()).unwrap_err(), 21);
    // There is an end to how many may be open.
    let open_one = || {
        let parameters = vec![("ClassName", class("CIM_System")), ("MaxObjectCount", text("1"))];
        ask_at(&server, 50_000, "OpenEnumerateInstances", parameters)
    };
    let opened = (0..100).map_while(|_| open_one().ok()).count();
    assert_eq!((opened, open_one().unwrap_err()), (64, 27));
}

#[test]
fn methods_take_typed_parameters_and_return_theirs() {
    let call = |name: &str, parameters: Vec<(&str, Raw)>| {
        let parameters = parameters.into_iter().map(|(n, raw)| (n.to_owned(), raw)).collect();
        reply(&server(1), Call::Extrinsic { name: name.into(), target: system(0), parameters }, 0)
    };
    let done = call("requeststatechange", vec![("RequestedState", text("3"))]).unwrap();
    let value = &done.children[0];
    assert_eq!(
        (value.attribute("PARAMTYPE"), value.children[0].text.as_str()),
        (Some("uint32"), "3")
    );
    assert_eq!(call("Odd", vec![]).unwrap_err(), 17);
    assert_eq!(call("RequestStateChange", vec![("Odd", text("3"))]).unwrap_err(), 4);
    assert_eq!(call("RequestStateChange", vec![("RequestedState", text("70000"))]).unwrap_err(), 4);
    assert_eq!(call("SetPowerState", vec![]).unwrap_err(), 7);
}

#[test]
fn every_class_is_told_with_all_its_features() {
    let server = server(0);
    let deep = vec![("DeepInheritance", text("true")), ("LocalOnly", text("false"))];
    let classes = returned(ask_at(&server, 0, "EnumerateClasses", deep).unwrap());
    assert_eq!(classes.len(), server.schema().classes().count());
    let roots = returned(ask_at(&server, 0, "EnumerateClassNames", vec![]).unwrap());
    assert!(roots.iter().any(|root| root.attribute("NAME") == Some("CIM_ManagedElement")));
    let qualifiers = returned(ask_at(&server, 0, "EnumerateQualifiers", vec![]).unwrap());
    assert!(qualifiers.len() > 20);
}

#[test]
fn a_long_reply_goes_in_parts_and_ends_when_nobody_takes_them() {
    use std::sync::{Arc, Mutex};
    let server = server(2000);
    let parameters = vec![("ClassName".to_owned(), class("CIM_ManagedElement"))];
    let namespace = "root/twinreel".to_owned();
    let call = Call::Intrinsic { name: "EnumerateInstances".into(), namespace, parameters };
    let request = Request { id: "1".into(), call };
    let caller = Caller { user: "u".into(), host: [127, 0, 0, 1].into() };
    let whole = server.answer(&request, &caller, 0, Writer::new()).unwrap();
    let parts = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&parts);
    let drain = Box::new(move |part| {
        taken.lock().unwrap().push(part);
        true
    });
    let last = server.answer(&request, &caller, 0, Writer::draining(drain)).unwrap();
    let parts = parts.lock().unwrap();
    assert!(parts.len() > 3 && parts.iter().all(|part: &String| part.len() < 140 << 10));
    assert_eq!(parts.concat() + &last, whole);
    let nobody = Writer::draining(Box::new(|_| false));
    assert_eq!(server.answer(&request, &caller, 0, nobody), None);
}
