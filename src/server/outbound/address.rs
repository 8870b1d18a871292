//! Which addresses may be called.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The rules for every destination.
#[derive(Debug)]
pub(super) struct AddressRules {
    private_networks: Vec<IpNet>,
    /// Hosts whose private and loopback addresses may be called.
    private_hosts: HashSet<String>,
    /// Hosts that are called over plain http: loopback and nothing else, or the text would leave the machine.
    plain_hosts: HashSet<String>,
}

impl AddressRules {
    pub(super) fn new(
        private_networks: Vec<IpNet>,
        private_hosts: HashSet<String>,
        plain_hosts: HashSet<String>,
    ) -> Self {
        Self { private_networks, private_hosts, plain_hosts }
    }

    /// Whether `ip`, as `host` is or resolves to, may be called.
    pub(super) fn allows(&self, host: &str, ip: IpAddr) -> bool {
        let ip = underlying(ip);
        if never(ip) {
            return false;
        }
        let host = host.to_ascii_lowercase();
        if self.plain_hosts.contains(&host) {
            return ip.is_loopback();
        }
        is_public(ip)
            || self.private_hosts.contains(&host)
            || self.private_networks.iter().any(|net| net.contains(&ip))
    }
}

/// The IPv4 address inside a mapped (`::ffff:a.b.c.d`) or NAT64 (`64:ff9b::a.b.c.d`) one: it is what gets called.
fn underlying(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            _ => IpAddr::V6(v6),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Addresses no configuration opens: unspecified, multicast, broadcast, link-local, and where clouds keep the
/// credentials of their machines.
fn never(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_link_local()
                || matches!(v4.octets(), [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192])
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || v6 == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// Globally reachable, by the IANA special-purpose registries.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(a == 0
                || v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_documentation()
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && (18..20).contains(&b))
                || a >= 224)
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            // Only 2000::/3 is global unicast; the exceptions inside it are protocol assignments (Teredo
            // among them), documentation and 6to4, which wraps an IPv4 address.
            (0x2000..0x4000).contains(&a)
                && !(a == 0x2001 && b < 0x0200)
                && !(a == 0x2001 && b == 0x0db8)
                && a != 0x2002
                && !(a == 0x3fff && b < 0x1000)
        }
    }
}
