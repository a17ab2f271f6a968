//! A tape server's session as its owner drives it: messages legal and illegal, answers of devices,
//! events of the data plane, a client that goes. What must hold is checked with every output, see
//! [`model`].
#![no_main]

mod model;
mod request;

use fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut model = model::Model::new(input.below(5));
    while !input.is_over() && !model.is_finished() {
        model.step(&mut input);
    }
    model.end(&mut input);
});
