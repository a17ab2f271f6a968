//! Which way leads to which drive element.

use model::ElementAddress;

use crate::{DeviceIdentity, ElementStatus};

/// Characters of a serial number that READ ELEMENT STATUS has room for (SMC-3, DVCID of the T10
/// type): of a longer one it shows the last.
const SHOWN: usize = 10;

/// A drive element and its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The element.
    pub element: ElementAddress,
    /// Which of the ways leads to it; `None` if none does.
    pub way: Option<usize>,
}

/// Matches drive elements with ways to drives by serial number, and what is then left by their
/// order, if the changer does not say who they are and as many of each are left.
///
/// `identities` are those of the ways, `None` for one whose drive does not answer.
pub fn match_drives(
    elements: &[ElementStatus],
    identities: &[Option<DeviceIdentity>],
) -> Vec<Matched> {
    let mut free: Vec<usize> = (0..identities.len()).collect();
    let mut matched: Vec<_> = elements
        .iter()
        .map(|element| {
            let shown = element.drive.as_ref().map(|drive| drive.serial.trim());
            let shown = shown.filter(|serial| !serial.is_empty());
            let way = shown.and_then(|shown| {
                let fits = |way: &usize| {
                    let identity = identities.get(*way).and_then(Option::as_ref);
                    identity.is_some_and(|identity| is_same(shown, identity.serial.trim()))
                };
                let at = free.iter().position(fits)?;
                Some(free.remove(at))
            });
            (Matched { element: element.address, way }, shown.is_none())
        })
        .collect();
    let left: Vec<usize> = (0..matched.len()).filter(|at| matched[*at].0.way.is_none()).collect();
    let nameless = left.iter().all(|at| matched[*at].1);
    if nameless && left.len() == free.len() {
        for (at, way) in left.into_iter().zip(free) {
            matched[at].0.way = Some(way);
        }
    }
    matched.into_iter().map(|(matched, _)| matched).collect()
}

fn is_same(shown: &str, serial: &str) -> bool {
    shown == serial || (shown.len() == SHOWN && serial.len() > SHOWN && serial.ends_with(shown))
}

#[cfg(test)]
mod tests {
    use model::ElementType;

    use super::*;

    fn named(serial: &str) -> DeviceIdentity {
        DeviceIdentity { serial: serial.into(), ..DeviceIdentity::default() }
    }

    fn elements(serials: &[Option<&str>]) -> Vec<ElementStatus> {
        let element = |(at, serial): (usize, &Option<&str>)| ElementStatus {
            address: 256 + at as u16,
            kind: ElementType::DataTransfer,
            full: false,
            barcode: None,
            accessible: false,
            imported: false,
            source: None,
            exception: None,
            drive: serial.map(named),
        };
        serials.iter().enumerate().map(element).collect()
    }

    fn ways(shown: &[Option<&str>], serials: &[Option<&str>]) -> Vec<Option<usize>> {
        let identities: Vec<_> = serials.iter().map(|serial| serial.map(named)).collect();
        match_drives(&elements(shown), &identities).into_iter().map(|m| m.way).collect()
    }

    #[test]
    fn drives_are_known_by_their_serial_numbers() {
        let (a, b, c) = (Some("DRIVE-A"), Some("DRIVE-B"), Some("DRIVE-C"));
        assert_eq!(ways(&[a, b], &[b, a]), [Some(1), Some(0)]);
        assert_eq!(ways(&[Some(" DRIVE-A "), b], &[b, a]), [Some(1), Some(0)]);
        // A drive that does not answer, or that nobody named, has no way.
        assert_eq!(ways(&[a, b], &[b, None]), [None, Some(0)]);
        assert_eq!(ways(&[a, b, c], &[c, a]), [Some(1), None, Some(0)]);
        // One that is another than the changer says is not taken by its place.
        assert_eq!(ways(&[a, b], &[a, c]), [Some(0), None]);
        // The same drive twice.
        assert_eq!(ways(&[a, a], &[a]), [Some(0), None]);
    }

    #[test]
    fn a_long_serial_number_is_shown_by_its_end() {
        let long = Some("XYZ1234567890");
        assert_eq!(ways(&[Some("1234567890")], &[long]), [Some(0)]);
        assert_eq!(ways(&[Some("567890")], &[long]), [None]);
    }

    #[test]
    fn a_changer_that_names_nobody_is_taken_by_its_order() {
        let (a, b) = (Some("A"), Some("B"));
        assert_eq!(ways(&[None, None], &[a, b]), [Some(0), Some(1)]);
        assert_eq!(ways(&[None, b], &[b, a]), [Some(1), Some(0)]);
        assert_eq!(ways(&[None, None], &[a]), [None, None]);
    }
}
