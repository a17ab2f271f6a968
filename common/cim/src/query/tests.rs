use proptest::prelude::*;

use super::*;

fn job(state: u16, status: Vec<u16>, percent: u16) -> Instance {
    Instance::embedded("Twinreel_ConcreteJob")
        .with("JobState", state)
        .with("OperationalStatus", status)
        .with("PercentComplete", percent)
        .with("Name", "it's")
}

fn modified(before: Instance, after: Instance) -> Instance {
    Instance::embedded("CIM_InstModification")
        .with("PreviousInstance", before)
        .with("SourceInstance", after)
}

fn chooses(query: &str, indication: &Instance) -> bool {
    let schema = Schema::served().unwrap();
    Query::parse(query).unwrap().chooses(&schema, indication)
}

#[test]
fn the_standard_filters_choose_what_they_say() {
    let done = modified(job(4, vec![2], 99), job(7, vec![17, 2], 100));
    let failed = modified(job(4, vec![2], 50), job(10, vec![17, 6], 50));
    let moved = modified(job(4, vec![2], 50), job(4, vec![2], 51));
    let from = "SELECT * FROM CIM_InstModification WHERE SourceInstance ISA CIM_ConcreteJob AND ";
    // (condition, done, failed, moved)
    let rows = [
        (
            "SourceInstance.CIM_ConcreteJob::PercentComplete <> \
          PreviousInstance.CIM_ConcreteJob::PercentComplete",
            true,
            false,
            true,
        ),
        ("SourceInstance.JobState <> PreviousInstance.JobState", true, true, false),
        (
            "ANY SourceInstance.CIM_ConcreteJob::OperationalStatus[*] = 17 AND \
          ANY SourceInstance.CIM_ConcreteJob::OperationalStatus[*] = 2",
            true,
            false,
            false,
        ),
        (
            "SourceInstance.OperationalStatus[0]=17 AND SourceInstance.OperationalStatus[1]=6",
            false,
            true,
            false,
        ),
        ("sourceinstance.jobstate = 7 or (SourceInstance.JobState=10)", true, true, false),
        ("NOT SourceInstance.JobState >= 7", false, false, true),
        (
            "SourceInstance.OperationalStatus <> PreviousInstance.OperationalStatus",
            true,
            true,
            false,
        ),
        ("SourceInstance.Name = 'it''s' AND SourceInstance.Nothing IS NULL", true, true, true),
        ("SourceInstance.Name IS NOT NULL AND SourceInstance.Name = \"it's\"", true, true, true),
        ("SourceInstance.PercentComplete > -1", true, true, true),
    ];
    for (condition, in_done, in_failed, in_moved) in rows {
        let query = format!("{from}{condition}");
        let found = [&done, &failed, &moved].map(|indication| chooses(&query, indication));
        assert_eq!(found, [in_done, in_failed, in_moved], "{condition}");
    }
    assert!(chooses("select * from CIM_InstIndication", &done));
    assert!(!chooses("SELECT * FROM CIM_InstCreation", &done));
    assert!(!chooses(
        "SELECT * FROM CIM_InstModification WHERE SourceInstance ISA CIM_TapeDrive",
        &done
    ));
    assert!(chooses(
        "SELECT SourceInstance.Name, IndicationTime FROM CIM_InstModification \
         WHERE SourceInstance ISA \"CIM_Job\";",
        &done
    ));
}

#[test]
fn what_is_no_query_is_told() {
    let deep = format!("SELECT * FROM A WHERE {}a = 1{}", "(".repeat(40), ")".repeat(40));
    let long = format!("SELECT * FROM A WHERE a = '{}'", "x".repeat(5000));
    for text in [
        "",
        "SELECT",
        "SELECT * FROM",
        "SELECT * FROM A WHERE",
        "SELECT * FROM A B",
        "SELECT * FROM A WHERE a",
        "SELECT * FROM A WHERE a =",
        "SELECT * FROM A WHERE a = 'x",
        "SELECT * FROM A WHERE (a = 1",
        "SELECT * FROM A WHERE a[x] = 1",
        "DELETE FROM A",
        "SELECT * FROM A WHERE 1 ISA B",
        "SELECT * FROM A WHERE a = #",
        &deep,
        &long,
        "SELECT * FROM A WHERE a = 99999999999999999999999999999999999999999999",
    ] {
        assert!(Query::parse(text).is_err(), "{text}");
    }
    assert!(is_known("wql") && is_known("DMTF:CQL") && !is_known("SQL"));
}

proptest! {
    #[test]
    fn any_text_is_a_query_or_none(text in "\\PC{0,80}") {
        let _ = Query::parse(&text);
    }

    #[test]
    fn any_words_are_a_query_or_none(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "SELECT", "*", "FROM", "A", "WHERE", "NOT", "(", ")", "a.b", "::", "=", "<>", "1",
                "'x'", "AND", "OR", "ISA", "IS", "NULL", "ANY", "[", "]", "-", ".",
            ]), 0..24)
    ) {
        let _ = Query::parse(&words.join(" "));
    }
}
