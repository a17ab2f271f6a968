//! CONNECT and CONFIG: versions, logging in, and what there is.

use super::config::Users;
use super::io::{DeviceEntry, DeviceReply, DeviceRequest, LogLevel};
use super::session::{Asked, Login, Session, Stage};
use crate::auth;
use crate::mover::Mover;
use crate::tape::error_of;
use crate::wire::{
    AddrType, AuthAttr, AuthData, AuthType, DeviceCapability, DeviceInfo, ErrorCode, HostInfo,
    MessageCode, Pair, Reply, ReplyBody, Request, ServerInfo, Version,
};

/// How often a client may fail to log in before it is cut off.
const LOGIN_ATTEMPTS: u32 = 8;
/// `NDMP_TAPE_ATTR_RAW` (version 4).
const TAPE_ATTR_RAW: u32 = 4;

impl Session {
    pub(super) fn on_connect(&mut self, asked: Asked, request: Request, now: u32) {
        match request {
            Request::ConnectOpen(version) => {
                let result = self.open(version);
                self.answer(asked, result, now);
            }
            Request::ConnectClientAuth(data) => self.log_in(asked, &data, now),
            Request::Bare(MessageCode::ConnectClose) => self.leave(now),
            _ => self.refuse_request(asked, ErrorCode::NotSupported, now),
        }
    }

    fn open(&mut self, version: u32) -> Result<(), ErrorCode> {
        if self.settled {
            return Err(ErrorCode::IllegalState);
        }
        let version = Version::from_wire(version)
            .filter(|version| self.config.versions.contains(version))
            .ok_or(ErrorCode::IllegalArgs)?;
        self.version = version;
        self.mover = Mover::new(version);
        self.settled = true;
        Ok(())
    }

    fn log_in(&mut self, asked: Asked, data: &AuthData, now: u32) {
        let result = match self.barred {
            true => Err(ErrorCode::NotAuthorized),
            false => check(&self.config.users, data, &self.challenge),
        };
        self.authorized = result.is_ok();
        match &result {
            Ok(user) => {
                self.user = user.clone();
                let name = user.as_deref().unwrap_or("anybody");
                self.log(LogLevel::Info, format!("{name} logged in, {}", self.version));
                self.login = Some(Login::Accepted);
            }
            Err(_) => {
                self.user = None;
                self.failed_logins += 1;
                let name = match data {
                    AuthData::Text { id, .. } | AuthData::Md5 { id, .. } => id.escape_debug(),
                    AuthData::None | AuthData::Unknown(_) => "anybody".escape_debug(),
                };
                let name: String = name.take(64).collect();
                self.log(LogLevel::Warn, format!("log in refused: {name}"));
                self.login = Some(Login::Refused(name));
            }
        }
        self.answer(asked, result.map(|_| ()), now);
        if self.failed_logins >= LOGIN_ATTEMPTS {
            self.leave(now);
        }
    }

    pub(super) fn on_config(&mut self, asked: Asked, request: &Request, now: u32) {
        let identity = &self.config.identity;
        let auth_types = self.config.users.methods();
        let body = match request {
            Request::ConfigGetAuthAttr(kind) => {
                let reply = self.auth_attr(*kind);
                return self.reply(asked, &reply, now);
            }
            Request::ConfigSetExtList(list) if list.is_empty() => ReplyBody::Empty,
            Request::ConfigSetExtList(_) => {
                return self.refuse_request(asked, ErrorCode::ClassNotSupported, now);
            }
            Request::Bare(code) => match code {
                MessageCode::ConfigGetHostInfo => ReplyBody::HostInfo(HostInfo {
                    hostname: identity.hostname.clone(),
                    os_type: identity.os_type.clone(),
                    os_version: identity.os_version.clone(),
                    host_id: identity.host_id.clone(),
                    auth_types,
                }),
                MessageCode::ConfigGetServerInfo => ReplyBody::ServerInfo(ServerInfo {
                    vendor: identity.vendor.clone(),
                    product: identity.product.clone(),
                    revision: identity.revision.clone(),
                    auth_types,
                }),
                MessageCode::ConfigGetConnectionType => {
                    ReplyBody::ConnectionType(vec![AddrType::Local, AddrType::Tcp])
                }
                MessageCode::ConfigGetTapeInfo => {
                    return self.ask_device(asked, Stage::Device, DeviceRequest::ListTapes);
                }
                MessageCode::ConfigGetScsiInfo => {
                    return self.ask_device(asked, Stage::Device, DeviceRequest::ListScsi);
                }
                // No backup types, file systems or extensions: empty lists are legal.
                code => ReplyBody::empty(*code),
            },
            _ => return self.refuse_request(asked, ErrorCode::NotSupported, now),
        };
        self.reply(asked, &Reply::ok(body), now);
    }

    fn auth_attr(&self, kind: AuthType) -> Reply {
        let code = MessageCode::ConfigGetAuthAttr;
        match kind {
            AuthType::Unknown(_) => Reply::failed(code, ErrorCode::IllegalArgs),
            kind if !self.config.users.methods().contains(&kind) => {
                Reply::failed(code, ErrorCode::NotSupported)
            }
            AuthType::Md5 => Reply::ok(ReplyBody::AuthAttr(AuthAttr::Challenge(self.challenge))),
            kind => Reply::ok(ReplyBody::AuthAttr(AuthAttr::Plain(kind))),
        }
    }

    /// The answer to a list, or to something asked of the SCSI device.
    pub(super) fn on_plain_answer(&mut self, asked: Asked, reply: DeviceReply, now: u32) {
        let reply = match reply {
            DeviceReply::Done => Reply::failed(asked.code, ErrorCode::NoErr),
            DeviceReply::Failed(failure) => Reply::failed(asked.code, error_of(failure.kind)),
            DeviceReply::Devices(list) => {
                let raw =
                    asked.code == MessageCode::ConfigGetTapeInfo && self.version == Version::V4;
                let attributes = if raw { TAPE_ATTR_RAW } else { 0 };
                Reply::ok(ReplyBody::Devices(by_model(list, attributes)))
            }
            DeviceReply::Cdb(outcome) => Reply::ok(ReplyBody::Cdb(outcome.into())),
            DeviceReply::Step(_) => Reply::failed(asked.code, ErrorCode::Undefined),
        };
        self.reply(asked, &reply, now);
    }
}

/// Who it is, `None` for anybody.
fn check(
    users: &Users,
    data: &AuthData,
    challenge: &[u8; 64],
) -> Result<Option<String>, ErrorCode> {
    let (id, method, proof): (&String, AuthType, &[u8]) = match data {
        AuthData::Unknown(_) => return Err(ErrorCode::IllegalArgs),
        AuthData::None if users.allow_none => return Ok(None),
        AuthData::None => return Err(ErrorCode::NotAuthorized),
        AuthData::Text { id, password } => (id, AuthType::Text, password.as_slice()),
        AuthData::Md5 { id, digest } => (id, AuthType::Md5, digest.as_slice()),
    };
    let user = users.by_name.get(id).filter(|user| user.methods.contains(&method));
    // An unknown user costs the same work as a known one.
    let secret = user.map_or(&b"nobody"[..], |user| user.secret.0.as_slice());
    let proven = match method {
        AuthType::Md5 => {
            auth::md5_digest(secret, challenge).is_some_and(|digest| auth::same(&digest, proof))
        }
        _ => !secret.is_empty() && auth::same(secret, proof),
    };
    match user {
        Some(_) if proven => Ok(Some(id.clone())),
        _ => Err(ErrorCode::NotAuthorized),
    }
}

/// Devices of one model together, as the lists have them.
fn by_model(list: Vec<DeviceEntry>, attributes: u32) -> Vec<DeviceInfo> {
    let mut models: Vec<DeviceInfo> = Vec::new();
    for entry in list {
        let device = DeviceCapability {
            device: entry.device,
            attributes,
            capability: entry
                .properties
                .into_iter()
                .map(|(name, value)| Pair { name, value })
                .collect(),
        };
        match models.last_mut().filter(|info| info.model == entry.model) {
            Some(info) => info.devices.push(device),
            None => models.push(DeviceInfo { model: entry.model, devices: vec![device] }),
        }
    }
    models
}
