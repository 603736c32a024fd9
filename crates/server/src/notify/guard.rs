//! Keeps what is sent over HTTP from places where nobody means it to go: the metadata service of a cloud, a machine inside
//! that a public name suddenly leads to.
//!
//! Where a URL names an address, the address is judged when the configuration is read; where it names a name, its addresses
//! are judged each time a connection is made ([`GuardedResolver`]), so a name that changes (DNS rebinding) gains nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Names that end so are known only to a resolver of one's own.
const LOCAL_ENDINGS: [&str; 11] =
    [".local", ".internal", ".lan", ".home.arpa", ".svc", ".cluster.local", ".intranet", ".corp", ".test", ".localhost", ".localdomain"];

/// An address over http or https that a channel may be told. Shows no more than its host: a path or a query may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong; without the text, as it may be a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "must be an address such as https://example.org/path";
        let url = Url::parse(text.trim()).map_err(|error| format!("{SHAPE}: {error}"))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(format!("{SHAPE}, not one of {}:", url.scheme()));
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else { return Err(SHAPE.to_owned()) };
        // The parser has made one form of each: 0x7f.1 and 2130706433 are 127.0.0.1 by now.
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if let Ok(Reach::Never(why)) = address.map(reach) {
            return Err(format!("{host} is {why}: nothing is ever sent there"));
        }
        Ok(Self(url))
    }

    /// Where PagerDuty takes events.
    pub fn pagerduty() -> Self {
        Self(Url::parse(PAGERDUTY).unwrap_or_else(|_| unreachable!("a constant")))
    }

    /// The address itself.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The address with a path behind its own.
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}/{path}", self.0.path().trim_end_matches('/')));
        url
    }

    /// Whether it is one of https.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

/// Where PagerDuty takes events of its API v2.
pub const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        let more = self.0.path() != "/" || self.0.query().is_some();
        f.write_str(if more { "/…" } else { "" })
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who may be sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Anybody.
    Public,
    /// Only who named it, or a local name of it.
    Private,
    /// Nobody; what it is.
    Never(&'static str),
}

/// Who may be sent to an address.
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach4(address),
        IpAddr::V6(address) => reach6(address),
    }
}

fn reach4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [0, ..] => Reach::Never("an unspecified address"),
        [169, 254, ..] => Reach::Never("a link-local address, where clouds keep their metadata"),
        // Metadata of Oracle Cloud and of Alibaba Cloud.
        [192, 0, 0, _] | [100, 100, 100, 200] => Reach::Never("an address where clouds keep their metadata"),
        [255, 255, 255, 255] => Reach::Never("the broadcast address"),
        [224..=239, ..] => Reach::Never("a multicast address"),
        [240..=255, ..] => Reach::Never("a reserved address"),
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Never("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // One address has one form: the other is a way around whoever compares.
        [0, 0, 0, 0, 0, 0xffff | 0, ..] => Reach::Never("an IPv4 address in the form of IPv6"),
        [0xfe80..=0xfebf, ..] => Reach::Never("a link-local address"),
        [0xff00..=0xffff, ..] => Reach::Never("a multicast address"),
        [0xfd00, 0xec2, ..] => Reach::Never("an address where clouds keep their metadata"),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Reach::Private,
        // NAT64 and 6to4 lead to the IPv4 address in them: a network with IPv6 alone reaches public ones so.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => match reach4(embedded(high, low)) {
            Reach::Public => Reach::Public,
            _ => Reach::Never("a private address in the form of IPv6"),
        },
        _ => Reach::Public,
    }
}

/// Whether only a resolver of one's own knows such a name, so that whoever writes it means what is inside.
pub fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    !name.contains('.') || LOCAL_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Why no connection is made to a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It leads to where nothing is sent.
    #[error("{name} leads to {address}, which is {why}: nothing is ever sent there")]
    Never {
        /// The name.
        name: String,
        /// Its address.
        address: IpAddr,
        /// What that is.
        why: &'static str,
    },
    /// A public name leads inside.
    #[error(
        "the public name {name} leads to the private address {address}: if that is meant, put the address itself in the URL, or a \
         local name of it (without a dot, or ending in .internal, .lan, .local and the like)"
    )]
    Private {
        /// The name.
        name: String,
        /// Its address.
        address: IpAddr,
    },
    /// It has no address.
    #[error("{0} has no address")]
    Nowhere(String),
}

/// The addresses of a name to which a connection may be made.
///
/// # Errors
/// None of them may be.
pub fn allowed(name: &str, addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let local = is_local_name(name);
    let mut refused = Refused::Nowhere(name.to_owned());
    let mut kept = Vec::new();
    for address in addresses {
        match reach(address.ip()) {
            Reach::Public => kept.push(address),
            Reach::Private if local => kept.push(address),
            Reach::Private => refused = Refused::Private { name: name.to_owned(), address: address.ip() },
            Reach::Never(why) => refused = Refused::Never { name: name.to_owned(), address: address.ip(), why },
        }
    }
    if kept.is_empty() { Err(refused) } else { Ok(kept) }
}

/// Asks the system's resolver and leaves out what must not be reached.
#[derive(Clone, Copy, Debug)]
pub struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let kept = allowed(name.as_str(), found)?;
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_public_private_or_never() {
        let never = |text: &str| matches!(reach(text.parse().unwrap()), Reach::Never(_));
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "192.0.0.192",
            "100.100.100.200",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(never(text), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.255.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "::1",
            "fc00::1",
            "fd12:3456::1",
            "fec0::1",
        ] {
            assert_eq!(reach(text.parse().unwrap()), Reach::Private, "{text}");
        }
        for text in ["8.8.8.8", "172.32.0.1", "192.0.2.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::"] {
            assert_eq!(reach(text.parse().unwrap()), Reach::Public, "{text}");
        }
    }

    #[test]
    fn local_names_are_those_that_only_a_local_resolver_knows() {
        for name in
            ["localhost", "alertmanager", "db.local", "x.internal", "a.lan", "a.home.arpa", "am.monitoring.svc", "a.corp.", "A.TEST"]
        {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["example.org", "local.example.org", "internal.com", "hooks.slack.com", "localhost.example.org", "notlocal.org"] {
            assert!(!is_local_name(name), "{name}");
        }
    }

    #[test]
    fn a_name_leads_only_where_it_may() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let private = allowed("hooks.example.org", [at("10.0.0.5")]).unwrap_err().to_string();
        assert!(private.contains("private address 10.0.0.5") && private.contains("put the address itself in the URL"), "{private}");
        assert!(allowed("hooks.example.org", [at("127.0.0.1")]).is_err() && allowed("localhost", [at("127.0.0.1")]).is_ok());
        assert_eq!(allowed("example.org", [at("10.0.0.5"), at("8.8.8.8")]).unwrap(), [at("8.8.8.8")]);
        for name in ["metadata.google.internal", "example.org", "localhost"] {
            assert!(matches!(allowed(name, [at("169.254.169.254")]), Err(Refused::Never { .. })), "{name}");
        }
        assert!(allowed("hooks.example.org", [at("::ffff:127.0.0.1")]).is_err());
        assert_eq!(allowed("example.org", []), Err(Refused::Nowhere("example.org".into())));
    }

    #[test]
    fn urls_are_judged_when_they_are_read_and_show_only_their_host() {
        for text in [
            "http://169.254.169.254/latest",
            "http://[fd00:ec2::254]/",
            "http://0.0.0.0:1",
            "http://[::ffff:7f00:1]/",
            "http://2852039166/",
        ] {
            assert!(HttpUrl::parse(text).unwrap_err().ends_with("nothing is ever sent there"), "{text}");
        }
        for text in ["", "hooks.example.org", "ftp://example.org/secret", "file:///etc/passwd", "http://", "http://a b/"] {
            let message = HttpUrl::parse(text).unwrap_err();
            assert!(message.starts_with("must be an address such as https://") && !message.contains("secret"), "{text}: {message}");
        }
        let url = HttpUrl::parse("https://u:p@hooks.slack.com:8443/services/T0/B0/secret").unwrap();
        assert_eq!(
            (url.to_string().as_str(), format!("{url:?}").as_str()),
            ("https://hooks.slack.com:8443/…", "https://hooks.slack.com:8443/…")
        );
        let alertmanager = HttpUrl::parse("http://127.0.0.1:9093/prefix/").unwrap();
        assert_eq!(alertmanager.join("api/v2/alerts").as_str(), "http://127.0.0.1:9093/prefix/api/v2/alerts");
        assert_eq!(HttpUrl::pagerduty().url().as_str(), PAGERDUTY);
    }
}
