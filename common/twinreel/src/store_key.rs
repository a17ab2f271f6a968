//! The key of an encrypted store.

use serde_json::json;
use store::{Key, Store};
use vfs::RealVfs;

use crate::catalogue::site_and_store;
use crate::cli::{Failed, StoreKeyCommand};
use crate::output::Output;

pub(crate) fn run(command: &StoreKeyCommand, output: &Output) -> Result<(), Failed> {
    let (key, file) = match command {
        StoreKeyCommand::New { file } => (Key::create(file).map_err(Failed::new)?, file),
        StoreKeyCommand::Change { which, file } => {
            let (site, config) = site_and_store(which)?;
            let none = "no key_file is configured; a store that is not encrypted stays so";
            let old = config.key_file.ok_or_else(|| Failed::usage(none))?;
            let old = Key::read(&old).map_err(Failed::new)?;
            let new = Key::read(file).map_err(Failed::new)?;
            Store::change_key(&RealVfs, &site.store(), &old, &new).map_err(Failed::new)?;
            (new, file)
        }
    };
    let value = json!({ "key": key.id().to_string(), "file": file });
    output.show(&value, |_| format!("key {} in {}", key.id(), file.display()))
}
