use store::ObjectRun;

use super::order::{Section, Stretch, stretches};

fn cut(start: u64, count: Option<u64>) -> Vec<Stretch> {
    let runs = [
        ObjectRun::Records { size: 10, count: 3 },
        ObjectRun::Filemarks { count: 1 },
        ObjectRun::Records { size: 100, count: 2 },
        ObjectRun::Filemarks { count: 2 },
    ];
    let runs = runs.into_iter().map(Ok::<_, ()>);
    stretches(runs, Section { start, count }).map(Result::unwrap).collect()
}

#[test]
fn a_section_is_cut_out_of_runs() {
    let records = |size, count, offset| Stretch::Records { size, count, offset };
    let filemarks = |count| Stretch::Filemarks { count };
    let all = [records(10, 3, 0), filemarks(1), records(100, 2, 30), filemarks(2)];
    assert_eq!(cut(0, None), all);
    assert_eq!(cut(0, Some(8)), all);
    assert_eq!(cut(1, Some(1)), [records(10, 1, 10)]);
    assert_eq!(cut(2, Some(3)), [records(10, 1, 20), filemarks(1), records(100, 1, 30)]);
    assert_eq!(cut(5, None), [records(100, 1, 130), filemarks(2)]);
    assert_eq!(cut(7, None), [filemarks(1)]);
    assert!(cut(8, None).is_empty() && cut(0, Some(0)).is_empty());
}
