//! The PROXY protocol's header: the first bytes that a backend reads, which name the client (haproxy's proxy-protocol.txt).

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl HeaderVersion {
    /// The header of a connection from `client` to `vip`, which are of one family: that of the VIP, whatever the backend's is.
    ///
    /// # Errors
    /// None that these addresses can lead to: the crate's builder has one for headers that are too long.
    pub(super) fn bytes(self, client: SocketAddr, vip: SocketAddr) -> io::Result<Vec<u8>> {
        match self {
            Self::V1 => Ok(v1::Addresses::from((client, vip)).to_string().into_bytes()),
            Self::V2 => {
                let command = v2::Version::Two | v2::Command::Proxy;
                v2::Builder::with_addresses(command, v2::Protocol::Stream, (client, vip)).build()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: HeaderVersion, client: &str, vip: &str) -> Vec<u8> {
        version.bytes(client.parse().unwrap(), vip.parse().unwrap()).unwrap()
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        let v4 = header(HeaderVersion::V1, "192.0.2.7:51234", "10.0.0.50:443");
        assert_eq!(v4, b"PROXY TCP4 192.0.2.7 10.0.0.50 51234 443\r\n");
        let v6 = header(HeaderVersion::V1, "[2001:db8::7]:51234", "[fd00::50]:443");
        assert_eq!(v6, b"PROXY TCP6 2001:db8::7 fd00::50 51234 443\r\n");
    }

    #[test]
    fn version_2_is_a_signature_and_addresses_in_network_order() {
        let signature = b"\r\n\r\n\0\r\nQUIT\n";
        let v4 = header(HeaderVersion::V2, "192.0.2.7:51234", "10.0.0.50:443");
        let rest = [0x21, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 50, 0xc8, 0x22, 0x01, 0xbb];
        assert_eq!(v4, [&signature[..], &rest].concat());
        let v6 = header(HeaderVersion::V2, "[2001:db8::7]:51234", "[fd00::50]:443");
        let client = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        let vip = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50];
        let ports = [0xc8, 0x22, 0x01, 0xbb];
        assert_eq!(v6, [&signature[..], &[0x21, 0x21, 0, 36], &client, &vip, &ports].concat());
    }
}
