//! Libraries, drives and tapes by their names here and by their serial numbers in the maps.

use std::sync::Arc;

use model::{Barcode, DeviceName, DeviceRole, LibraryName};
use svs::{DeviceRef, LibraryRole, MediumRef, TapeRange};
use tape::ElementStatus;

use crate::copies::TapeAt;
use crate::device::{Library, LibraryView};
use crate::engine::Engine;
use crate::mounting;

/// A library by the serial number of its changer.
pub(super) fn by_serial(engine: &Engine, serial: &str) -> Option<(Arc<dyn Library>, LibraryView)> {
    mounting::backend(&engine.ground.registry, serial)
}

/// A library by its name.
pub(super) fn by_name(
    engine: &Engine,
    name: &LibraryName,
) -> Option<(Arc<dyn Library>, LibraryView)> {
    let mut all = engine.ground.registry.libraries().into_iter();
    let library = all.find(|library| library.name() == name)?;
    let view = library.view()?;
    Some((library, view))
}

/// The tape that a medium of the maps is, if its library is known here.
pub(super) fn tape(engine: &Engine, medium: &MediumRef) -> Option<TapeAt> {
    let MediumRef::Tape { library, volser } = medium else { return None };
    let (library, _) = by_serial(engine, library)?;
    Some(TapeAt { library: library.name().clone(), barcode: volser.clone() })
}

/// What a tape is called in the maps.
pub(super) fn medium(engine: &Engine, tape: &TapeAt) -> Option<MediumRef> {
    // What a frontend shows lies in another library, where it is watched too.
    let found = by_name(engine, &tape.library);
    let (_, view) = found.filter(|(_, view)| view.role != LibraryRole::Frontend)?;
    let library = view.identity.serial;
    (!library.is_empty()).then(|| MediumRef::Tape { library, volser: tape.barcode.clone() })
}

/// Where a tape is in its library.
pub(super) fn element<'a>(view: &'a LibraryView, volser: &Barcode) -> Option<&'a ElementStatus> {
    let mut all = view.inventory.elements.iter();
    all.find(|element| element.full && element.barcode.as_ref() == Some(volser))
}

/// How people write media and devices.
const MEDIUM_FORMS: &str = "LIBRARY:BARCODE, LIBRARY:FIRST-LAST or `lib SERIAL tape VOLSER`";

/// The tapes that an administrator names: `vtl0:A00001-A00010`, or as the maps have them.
pub(super) fn read_tapes(engine: &Engine, text: &str) -> Result<TapeRange, String> {
    if text.starts_with("wwpn ") {
        return Err("logical disks are not supported yet".into());
    }
    if text.starts_with("lib ") {
        return text.parse().map_err(|error: svs::ReferenceError| error.to_string());
    }
    let unread = || format!("{text:?} names no tape: write {MEDIUM_FORMS}");
    let (library, tapes) = text.split_once(':').ok_or_else(unread)?;
    let name = LibraryName::new(library).map_err(|_| unread())?;
    let (_, view) =
        by_name(engine, &name).ok_or_else(|| format!("there is no library {name} here"))?;
    let text = format!("lib {} tape {tapes}", view.identity.serial);
    text.parse().map_err(|_| unread())
}

/// The drive that an administrator names: `vtl0/drive0`, or as the maps have it.
pub(super) fn read_device(engine: &Engine, text: &str) -> Result<DeviceRef, String> {
    let form = "LIBRARY/driveN or `lib SERIAL drive SERIAL`";
    if text.starts_with("wwpn ") {
        return Err("logical disks are not supported yet".into());
    }
    let unread = || format!("{text:?} names no drive: write {form}");
    if text.starts_with("lib ") {
        let device: DeviceRef = text.parse().map_err(|_| unread())?;
        return match device_name(engine, &device) {
            Some(_) => Ok(device),
            None => Err(format!("there is no drive {device} here")),
        };
    }
    let name: DeviceName = text.parse().map_err(|_| unread())?;
    let DeviceRole::Drive(_) = name.role else { return Err(unread()) };
    device_ref(engine, &name).ok_or_else(|| format!("there is no drive {name} here"))
}

/// What a drive is called in the maps.
pub(super) fn device_ref(engine: &Engine, name: &DeviceName) -> Option<DeviceRef> {
    let DeviceRole::Drive(index) = name.role else { return None };
    let (library, view) = by_name(engine, &name.library)?;
    mounting::drive_ref(library.as_ref(), &view.identity.serial, index)
}

/// What a drive of the maps is called here.
pub(super) fn device_name(engine: &Engine, device: &DeviceRef) -> Option<DeviceName> {
    let DeviceRef::Drive { library, drive } = device else { return None };
    let (library, _) = by_serial(engine, library)?;
    let index = mounting::drive_by_serial(library.as_ref(), drive)?;
    Some(DeviceName::drive(library.name().clone(), index))
}

/// A medium as people write it, where its library is known.
pub(super) fn show(engine: &Engine, medium: &MediumRef) -> String {
    match tape(engine, medium) {
        Some(tape) => format!("{}:{}", tape.library, tape.barcode),
        None => medium.to_string(),
    }
}

/// Whether a library's tapes are in the store of this engine.
pub(super) fn is_virtual(view: &LibraryView) -> bool {
    view.role == LibraryRole::Virtual
}
