//! `api`: where the HTTP API listens, and who may ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::field::{Field, Mapping};
use super::secrets::Secrets;
use crate::api::{ServerIdentity, Token};

/// Where it listens unless the file says otherwise: for this host alone.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9870);

/// `api`, where it is not null. Its serialised form holds neither key nor token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Address and port; the port is not 0.
    pub listen: SocketAddr,
    /// HTTPS; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// What a client must know; `None`: anybody may ask.
    pub token: Option<TokenFile>,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: DEFAULT_LISTEN, tls: None, token: None }
    }
}

/// `api.tls`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tls {
    /// Certificate chain in PEM, the server's own first. Absolute.
    pub cert_file: PathBuf,
    /// Its private key in PEM. Absolute.
    pub key_file: PathBuf,
    /// What they held when the configuration was read.
    #[serde(skip)]
    pub identity: ServerIdentity,
}

/// `api.token_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    /// Absolute.
    pub path: PathBuf,
    /// What it held when the configuration was read.
    pub token: Token,
}

impl Serialize for Api {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut api = serializer.serialize_struct("Api", 3)?;
        api.serialize_field("listen", &self.listen)?;
        api.serialize_field("tls", &self.tls)?;
        api.serialize_field("token_file", &self.token.as_ref().map(|token| &token.path))?;
        api.end()
    }
}

/// `api` of the file: null, or a mapping.
pub(super) fn api(file: &Mapping<'_>, secrets: &Secrets<'_>) -> Option<Option<Api>> {
    file.or("api", Some(Api::default()), |field| {
        if field.is_null() { Some(None) } else { read(field, secrets).map(Some) }
    })
}

fn read(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<Api> {
    let api = field.mapping(&["listen", "tls", "token_file"])?;
    let listen = api.or("listen", DEFAULT_LISTEN, listen);
    let tls =
        api.or("tls", None, |field| if field.is_null() { Some(None) } else { tls(field, secrets).map(Some) });
    let token = api.or("token_file", None, |field| {
        if field.is_null() { Some(None) } else { token_file(field, secrets).map(Some) }
    });
    let api = Api { listen: listen?, tls: tls?, token: token? };
    if api.token.is_some() && api.tls.is_none() && !api.listen.ip().is_loopback() {
        field.warn("without `tls` the token crosses the network in the clear");
    }
    Some(api)
}

pub(super) fn listen(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.text()?;
    match text.parse::<SocketAddr>() {
        Ok(listen) if listen.port() != 0 => Some(listen),
        Ok(_) => field.refuse("must name a port, 1-65535: nobody would find another"),
        Err(_) => field
            .refuse(format_args!("must be IP:PORT as in \"127.0.0.1:9870\" or \"[::1]:9870\", not {text:?}")),
    }
}

fn tls(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<Tls> {
    let tls = field.mapping(&["cert_file", "key_file"])?;
    let (cert, key) = (tls.required("cert_file"), tls.required("key_file"));
    let (cert, key) = (cert?, key?);
    let (cert_file, key_file) = (cert.absolute_path(), key.absolute_path());
    let (cert_file, key_file) = (cert_file?, key_file?);
    let identity = field.accept((secrets.server_identity)(&cert_file, &key_file))?;
    Some(Tls { cert_file, key_file, identity })
}

fn token_file(field: &Field<'_>, secrets: &Secrets<'_>) -> Option<TokenFile> {
    let path = field.absolute_path()?;
    match (secrets.token_file)(&path) {
        Ok(token) => Some(TokenFile { path, token }),
        Err(error) => field.refuse(format_args!("{} {error}", path.display())),
    }
}
