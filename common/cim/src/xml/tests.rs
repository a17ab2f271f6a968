use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> String {
    read(text.as_bytes(), &Limits::REQUEST).unwrap_err().0
}

#[test]
fn a_tree_has_names_attributes_and_text() {
    let text = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!-- a --><A x='1&lt;'> t<B/>\
                <![CDATA[<&]]>&#65;&amp;</A>\n";
    let tree = read(text.as_bytes(), &Limits::REQUEST).unwrap();
    assert_eq!((tree.name.as_str(), tree.attribute("x")), ("A", Some("1<")));
    assert_eq!(tree.text, " t<&A&");
    assert_eq!(tree.children.len(), 1);
}

#[test]
fn what_is_not_read_here_is_refused_by_name() {
    let rows = [
        ("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "document type"),
        ("<a>&b;</a>", "entity"),
        ("<a>&#0;</a>", ""),
        ("<a>&#xFFFE;</a>", "U+FFFE"),
        ("<a>\u{1}</a>", "U+0001"),
        ("<a b='\u{1f}'/>", "U+001F"),
        ("<a b='&#1;'/>", "character"),
        ("<a b='1' b='2'/>", ""),
        ("<a b=1/>", ""),
        ("<a></b>", ""),
        ("<a><b></a></b>", ""),
        ("<a/><b/>", "second"),
        ("<a/>x", "outside"),
        ("x<a/>", "outside"),
        ("<a>", "early"),
        ("", "early"),
        ("</a>", ""),
        ("<?xml version='1.0' encoding='utf-16'?><a/>", "UTF-8"),
        ("<a/><?xml version='1.0'?>", "declaration"),
        ("<a><?php ?></a>", "instruction"),
        ("<1a/>", "name"),
        ("<a b='<'/>", "<"),
        ("<a>]]></a>", "]]>"),
        ("<a", ""),
        ("<a b", ""),
    ];
    for (text, says) in rows {
        let said = refused(text);
        assert!(said.contains(says), "{text}: {said}");
    }
    assert!(read(b"<a>\xff</a>", &Limits::REQUEST).unwrap_err().0.contains("UTF-8"));
}

#[test]
fn every_limit_holds_at_its_edge() {
    let limits = Limits { bytes: 400, elements: 10, depth: 4, attributes: 2, name: 8 };
    let at = |text: &str| read(text.as_bytes(), &limits);
    let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    assert!(at(&nested(4)).is_ok());
    assert!(at(&nested(5)).unwrap_err().0.contains("deeper"));
    let flat = |n: usize| format!("<a>{}</a>", "<b/>".repeat(n));
    assert!(at(&flat(9)).is_ok());
    assert!(at(&flat(10)).unwrap_err().0.contains("elements"));
    assert!(at("<a b='1' c='2'/>").is_ok());
    assert!(at("<a b='1' c='2' d='3'/>").unwrap_err().0.contains("attributes"));
    assert!(at("<abcdefgh/>").is_ok());
    assert!(at("<abcdefghi/>").unwrap_err().0.contains("name"));
    assert!(at(&format!("<a>{}</a>", "x".repeat(393))).is_ok());
    assert!(at(&format!("<a>{}</a>", "x".repeat(394))).unwrap_err().0.contains("bytes"));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in "\\PC{0,40}", text in "\\PC{0,40}") {
        let mut writer = Writer::new();
        writer.leaf("A", &[("X", &value)], &text);
        let tree = read(writer.finish().as_bytes(), &Limits::REQUEST).unwrap();
        prop_assert_eq!(tree.attribute("X"), Some(value.as_str()));
        prop_assert_eq!(tree.text, text);
    }

    #[test]
    fn any_bytes_end_in_a_tree_or_in_words(
        bytes in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        let _ = read(&bytes, &Limits::REQUEST);
    }

    #[test]
    fn any_markup_ends_in_a_tree_or_in_words(
        text in "[<>/a-c='\" &#;!\\[\\]?x0-9-]{0,200}"
    ) {
        let _ = read(text.as_bytes(), &Limits::REQUEST);
    }
}
