//! Probes of backends: `{address}` in what they ask stands for the address of the backend that names them.

use std::net::{IpAddr, SocketAddr};

use super::check::{Check, CommandLine, Http, Question, Url};
use super::model::Probe;

/// What stands for a backend's address.
pub(super) const ADDRESS: &str = "{address}";

impl Question {
    /// Whether it can only be asked of a backend.
    pub fn is_of_backends(&self) -> bool {
        match self {
            Self::Http(http) => http.url.is_of_backends(),
            Self::TcpPort(_) => true,
            Self::Exec(command) => command.arguments.iter().any(|argument| argument.contains(ADDRESS)),
            Self::Tcp(_) | Self::File(_) | Self::Preset(_) => false,
        }
    }

    /// The same, asked of that backend.
    pub fn at(&self, backend: IpAddr) -> Self {
        match self {
            Self::Http(http) => {
                let url = http.url.at(backend);
                Self::Http(Box::new(Http { url, ..(**http).clone() }))
            }
            Self::TcpPort(port) => Self::Tcp(SocketAddr::new(backend, port.get())),
            Self::Exec(CommandLine { program, arguments }) => {
                let address = backend.to_string();
                let arguments =
                    arguments.iter().map(|argument| argument.replace(ADDRESS, &address)).collect();
                Self::Exec(CommandLine { program: program.clone(), arguments })
            }
            Self::Tcp(_) | Self::File(_) | Self::Preset(_) => self.clone(),
        }
    }
}

impl Url {
    /// Whether a backend's address is to be put in.
    pub fn is_of_backends(&self) -> bool {
        self.as_str().contains(ADDRESS)
    }

    /// With a backend's address put in: in brackets where it is an IPv6 host.
    pub fn at(&self, backend: IpAddr) -> Self {
        let text = self.as_str();
        let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + 3));
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host = match backend {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let authority = authority.replace(&format!("[{ADDRESS}]"), ADDRESS).replace(ADDRESS, &host);
        let text = format!("{scheme}{authority}{}", path.replace(ADDRESS, &backend.to_string()));
        // It is one by the check of the template; were it none, the template is asked and says so.
        text.parse().unwrap_or_else(|_| self.clone())
    }
}

/// Whether `{address}`, where a URL's authority holds it, is the whole host, with or without a port.
pub(super) fn is_whole_host(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    !authority.contains(ADDRESS) || host == ADDRESS
}

impl Probe {
    /// Whether it can only be asked of backends: instances cannot track it.
    pub fn is_of_backends(&self) -> bool {
        matches!(&self.check, Check::Polled(question, _) if question.is_of_backends())
    }

    /// The probe that a backend which names this one has: this one, unless its address is to be put in.
    pub fn at(&self, backend: IpAddr) -> Self {
        match &self.check {
            Check::Polled(question, polling) if question.is_of_backends() => Self {
                name: self.name.at(backend),
                check: Check::Polled(question.at(backend), *polling),
                weight: self.weight,
            },
            _ => self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_put_in_as_urls_want_it() {
        let (v4, v6) = ("10.0.1.7".parse().unwrap(), "fd00::7".parse().unwrap());
        for (template, at_v4, at_v6) in [
            ("http://{address}/", "http://10.0.1.7/", "http://[fd00::7]/"),
            ("https://{address}:8443/live", "https://10.0.1.7:8443/live", "https://[fd00::7]:8443/live"),
            ("http://[{address}]:80/", "http://10.0.1.7:80/", "http://[fd00::7]:80/"),
            ("http://a/?of={address}", "http://a/?of=10.0.1.7", "http://a/?of=fd00::7"),
        ] {
            assert!(url(template).is_of_backends());
            assert_eq!(url(template).at(v4), url(at_v4));
            assert_eq!(url(template).at(v6), url(at_v6));
            assert!(!url(at_v6).is_of_backends());
        }
    }

    #[test]
    fn an_address_is_a_whole_host_or_none() {
        for fits in ["{address}", "{address}:80", "[{address}]", "[{address}]:80", "a:80"] {
            assert!(is_whole_host(fits), "{fits}");
        }
        for part in ["a.{address}", "{address}.b:80", "10.0.0.{address}"] {
            assert!(!is_whole_host(part), "{part}");
        }
    }

    #[test]
    fn commands_and_connections_are_told_the_address() {
        let backend = "fd00::7".parse().unwrap();
        let tcp = Question::TcpPort(std::num::NonZeroU16::MIN);
        assert_eq!(tcp.at(backend), Question::Tcp("[fd00::7]:1".parse().unwrap()));
        let command = |argument: &str| {
            Question::Exec(CommandLine {
                program: "check".into(),
                arguments: vec!["-a".into(), argument.into()],
            })
        };
        assert!(command("{address}").is_of_backends() && !command("x").is_of_backends());
        assert_eq!(command("[{address}]:25").at(backend), command("[fd00::7]:25"));
    }
}
