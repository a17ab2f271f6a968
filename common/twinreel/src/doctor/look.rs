//! Looking at an NDMP server as a backup application would: connection, versions, logging in.

use std::time::{Duration, Instant, UNIX_EPOCH};

use dma::{Client, DmaError, Login, ServerTime, Version};
use ndmp::wire::{AuthType, MessageCode, ReplyBody};
use zeroize::Zeroizing;

use super::devices;
use super::seen::{Attempt, Contact, Expected, NoContact, Seen};
use crate::dma::Console;

/// How long any answer is waited for: longer than the server waits for another site.
const PATIENCE: Duration = Duration::from_secs(90);

/// Looks at everything. With `in_clear` the password may cross a network as it is.
pub(super) fn look(console: &Console, in_clear: bool, expected: Option<Expected>) -> Seen {
    let contact = contact(console, in_clear, expected).map_err(|error| match error {
        DmaError::Connect { source, .. } => NoContact::Unreachable(source.to_string()),
        DmaError::ServerRefused(text) | DmaError::Closed(text) => NoContact::Refused(text),
        error => NoContact::Strange(error.to_string()),
    });
    Seen { server: console.server.clone(), contact }
}

fn contact(
    console: &Console,
    in_clear: bool,
    expected: Option<Expected>,
) -> Result<Contact, DmaError> {
    let begun = Instant::now();
    let mut client = Client::greet(&console.server, console.version)?;
    let greeting = begun.elapsed();
    client.set_timeout(PATIENCE);
    let (address, offered) = (client.server_address()?.ip().to_canonical(), client.offered());
    let ahead = client.server_time().and_then(ahead);
    let methods = offered_methods(&mut client);
    client.close();

    let keeper = Keeper { console, clear: in_clear || address.is_loopback() };
    let tried = tried(&console.login, methods.as_deref());
    let right: Vec<_> = tried
        .iter()
        .filter_map(|method| Some((*method, keeper.ask(&by(&console.login, *method)?))))
        .collect();
    let works = right.iter().find(|(_, attempt)| *attempt == Attempt::Accepted);
    let works = works.and_then(|(method, _)| by(&console.login, *method));
    // Where the first failure locks a host out, none is made.
    let may_fail = expected.as_ref().is_none_or(|expected| expected.login_attempts != 1);
    let wrong = match works.as_ref().filter(|_| may_fail) {
        Some(works) => keeper.ask_wrongly(&tried, works),
        None => Vec::new(),
    };
    let session = works.and_then(|login| {
        let mut client = Client::connect(&console.server, console.version, &login).ok()?;
        client.set_timeout(PATIENCE);
        Some(devices::look_inside(client, expected))
    });
    let versions = Version::ALL.into_iter().map(|version| (version, opens(console, version)));
    let versions = versions.collect();
    Ok(Contact { address, greeting, offered, versions, ahead, methods, wrong, right, session })
}

fn opens(console: &Console, version: Version) -> Result<(), String> {
    let client = Client::greet(&console.server, Some(version));
    client.map(Client::close).map_err(|error| error.to_string())
}

/// A server that leaves its time stamps empty tells nothing.
fn ahead(time: ServerTime) -> Option<i64> {
    let ours = time.read.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let stamp = (time.stamp != 0).then_some(i64::from(time.stamp))?;
    Some(stamp - i64::try_from(ours).ok()?)
}

/// Version 2 tells them only to who has logged in.
fn offered_methods(client: &mut Client) -> Option<Vec<AuthType>> {
    match client.ask_bare(MessageCode::ConfigGetServerInfo) {
        Ok(ReplyBody::ServerInfo(info)) => Some(info.auth_types),
        _ => None,
    }
}

/// The ways to log in that are worth a try.
fn tried(login: &Login, offered: Option<&[AuthType]>) -> Vec<AuthType> {
    let own: &[AuthType] = match login {
        Login::None => &[AuthType::None],
        Login::Text(..) | Login::Md5(..) => &[AuthType::Md5, AuthType::Text],
    };
    let is_offered = |method: &AuthType| offered.is_none_or(|offered| offered.contains(method));
    let offered: Vec<_> = own.iter().copied().filter(is_offered).collect();
    // A server may accept what it does not announce.
    if offered.is_empty() { own.to_vec() } else { offered }
}

/// The same user, another way.
fn by(login: &Login, method: AuthType) -> Option<Login> {
    match (login, method) {
        (Login::None, AuthType::None) => Some(Login::None),
        (Login::Text(user, secret) | Login::Md5(user, secret), AuthType::Md5) => {
            Some(Login::Md5(user.clone(), secret.clone()))
        }
        (Login::Text(user, secret) | Login::Md5(user, secret), AuthType::Text) => {
            Some(Login::Text(user.clone(), secret.clone()))
        }
        _ => None,
    }
}

/// The same user with a password that is surely another one.
fn wrong(login: &Login, method: AuthType) -> Option<Login> {
    let (Login::Text(user, secret) | Login::Md5(user, secret)) = login else { return None };
    let other = if secret.as_str() == "wrong" { "false" } else { "wrong" };
    by(&Login::Md5(user.clone(), Zeroizing::new(other.to_owned())), method)
}

/// The server's door.
struct Keeper<'a> {
    console: &'a Console,
    /// The password may cross the way as it is.
    clear: bool,
}

impl Keeper<'_> {
    fn ask(&self, login: &Login) -> Attempt {
        if matches!(login, Login::Text(..)) && !self.clear {
            return Attempt::NotInClear;
        }
        let client = Client::greet(&self.console.server, self.console.version);
        let attempt = client.and_then(|mut client| {
            client.set_timeout(PATIENCE);
            let logged_in = client.log_in(login);
            client.close();
            logged_in
        });
        match attempt {
            Ok(()) => Attempt::Accepted,
            Err(DmaError::NotAuthorized) => Attempt::Refused,
            Err(error) => Attempt::Failed(error.to_string()),
        }
    }

    /// With another password. A server forgets the failures of a host with a login that `works`,
    /// so one follows each, and they do not add up.
    fn ask_wrongly(&self, methods: &[AuthType], works: &Login) -> Vec<(AuthType, Attempt)> {
        let mut attempts = Vec::new();
        for method in methods {
            if let Some(login) = wrong(&self.console.login, *method) {
                attempts.push((*method, self.ask(&login)));
                drop(self.ask(works));
            }
        }
        attempts
    }
}
