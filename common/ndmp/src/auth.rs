//! Passwords: the MD5 digest and comparison in constant time (reference: NDMP version 4, 3.1.2).

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Longest password that the digest has room for.
pub const MD5_PASSWORD_MAX: usize = 32;

/// The digest that proves a password: MD5 over 128 bytes, which are the password, zeros to fill
/// the half together with it, the challenge, and the password again. `None` for a password that
/// is empty or longer than [`MD5_PASSWORD_MAX`].
pub fn md5_digest(password: &[u8], challenge: &[u8; 64]) -> Option<[u8; 16]> {
    if password.is_empty() || password.len() > MD5_PASSWORD_MAX {
        return None;
    }
    let mut message = Zeroizing::new([0; 128]);
    message[..password.len()].copy_from_slice(password);
    message[64 - password.len()..128 - password.len()].copy_from_slice(challenge);
    message[128 - password.len()..].copy_from_slice(password);
    Some(Md5::digest(message.as_slice()).into())
}

/// Whether two secrets are the same, in a time that only tells whether their lengths are.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}
