//! Every message of NDMP versions 2, 3 and 4: what can be read can be written, and reads as the
//! same again.
#![no_main]

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use ndmp::wire::{Header, MessageCode, Post, Reply, Request, Version, bounds};
use xdr::{Reader, Writer};

/// What was read, written; that read and written again must be the same bytes. Not the bytes that
/// were read first: what the standard does not know is left out.
fn stable<T: std::fmt::Debug, E: std::fmt::Debug>(
    body: &[u8],
    read: impl Fn(Reader<'_>) -> Result<T, E>,
    write: impl Fn(&T, &mut Writer),
) {
    let Ok(first) = read(Reader::new(&body.to_vec().into())) else { return };
    let written = |value: &T| {
        let mut writer = Writer::new(bounds::MESSAGE);
        write(value, &mut writer);
        writer.finish().expect("what fits its bounds can be written")
    };
    let bytes = written(&first);
    let second = read(Reader::new(&bytes.clone().into()));
    let second = second.unwrap_or_else(|error| panic!("{first:?} can not be read: {error:?}"));
    assert_eq!(written(&second), bytes, "{first:?} {second:?}");
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let version = *input.pick(&Version::ALL);
    // Most inputs are about a message that exists.
    let code = match input.below(8) {
        0 => MessageCode::from_wire(input.u16().into()),
        _ => *input.pick(MessageCode::ALL),
    };
    let kind = input.below(4);
    let body = input.rest();
    match kind {
        0 => stable(
            body,
            |reader| Request::decode(code, version, reader),
            |request, writer| request.encode(version, writer),
        ),
        1 => stable(
            body,
            |reader| Reply::decode(code, version, reader),
            |reply, writer| reply.encode(version, writer),
        ),
        2 => stable(
            body,
            |reader| Post::decode(code, version, reader),
            |post, writer| post.encode(version, writer),
        ),
        _ => {
            // A message is made of words.
            let body = &body[..body.len() & !3];
            let whole = body.to_vec().into();
            let mut reader = Reader::new(&whole);
            if let Ok(header) = Header::decode(&mut reader) {
                let again = header.encode(|writer| writer.fixed(&reader.rest()));
                let again = again.expect("a short message can be written");
                assert_eq!(again[4..], body[..]);
            }
        }
    }
});
