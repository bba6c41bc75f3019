//! A node's id and addresses on one line, for people to hand around.
//!
//! `madake1-` + the id in base32 (52 letters), then, if there are any, `@` + addresses joined by
//! commas: `madake1-aebag…@203.0.113.7:4040,[2001:db8::7]:4040,home.example.org:4040`.
//!
//! A ticket is a hint, unsigned: whoever answers at an address still has to prove that it is the
//! node. Mail programs change case and add spaces, so letters of any case are read (all are
//! written small) and spaces around the line don't matter.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use madake_log::AuthorId;

use super::NodeId;

/// A node's id, and where it may be found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    node: NodeId,
    addresses: Vec<String>,
}

impl Ticket {
    /// Checks the addresses as reading a ticket does, and brings them into their one spelling.
    pub fn new<A: AsRef<str>>(
        node: NodeId,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, TicketError> {
        let mut checked = Vec::new();
        for address in addresses {
            if checked.len() == MAX_ADDRESSES {
                return Err(TicketError::TooManyAddresses);
            }
            checked.push(check_address(address.as_ref())?);
        }
        Ok(Self { node, addresses: checked })
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its addresses, each `host:port`, at most [`MAX_ADDRESSES`]; maybe none.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Takes the ticket apart.
    pub fn into_parts(self) -> (NodeId, Vec<String>) {
        (self.node, self.addresses)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", encode_node_id(self.node))?;
        if !self.addresses.is_empty() {
            write!(f, "@{}", self.addresses.join(","))?;
        }
        Ok(())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > MAX_TICKET {
            return Err(TicketError::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(TicketError::Spaces);
        }
        let (head, tail) = match text.split_once('@') {
            Some((head, tail)) => (head, Some(tail)),
            None => (text, None),
        };
        let node = decode_node_id(after_prefix(head)?)?;
        match tail {
            None => Self::new(node, [""; 0]),
            Some("") => Err(TicketError::NothingAfterAt),
            Some(tail) => Self::new(node, tail.split(',')),
        }
    }
}

/// What is wrong with a ticket, an id or an address, for the person who has typed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// Longer than any ticket can be.
    #[error("this is too long for a ticket")]
    TooLong,
    /// Spaces or line breaks inside.
    #[error("a ticket is one line without spaces; this one has a space or a line break inside")]
    Spaces,
    /// It doesn't start as tickets do.
    #[error("this is not a ticket: a ticket starts with \"{PREFIX}\"")]
    NotATicket,
    /// It starts as tickets of another version do.
    #[error("this ticket is of another version of madake: this one reads \"{PREFIX}…\"")]
    OtherVersion,
    /// The id has not 52 letters.
    #[error("the node id has {0} letters instead of {NODE_ID_LETTERS}: it may have been cut")]
    IdLength(usize),
    /// A letter that is not of base32.
    #[error("the node id has a {0:?} in it: only the letters a to z and the digits 2 to 7 occur")]
    IdLetter(char),
    /// 52 letters that stand for no id: the last one says more than 256 bits.
    #[error("the node id ends with a letter that can't be there: it may have been mistyped")]
    IdEnd,
    /// 256 bits that are no node's key.
    #[error("the node id is no key that a node can have: it may have been mistyped")]
    IdNoKey,
    /// An `@`, and nothing behind it.
    #[error("no address follows the \"@\"")]
    NothingAfterAt,
    /// Too many addresses.
    #[error("a ticket holds at most {MAX_ADDRESSES} addresses")]
    TooManyAddresses,
    /// An address that can't be used.
    #[error("the address {address:?} can't be used: {problem}")]
    Address {
        /// The address as it was given, its beginning if it is long.
        address: String,
        /// What is wrong with it.
        problem: AddressProblem,
    },
}

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// Nothing between two commas.
    #[error("it is empty")]
    Empty,
    /// Over [`MAX_ADDRESS`] bytes.
    #[error("it is longer than {MAX_ADDRESS} bytes")]
    TooLong,
    /// No `:port`.
    #[error("the port is missing (host:port)")]
    NoPort,
    /// Not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    BadPort,
    /// No host before the port.
    #[error("the host is missing (host:port)")]
    NoHost,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address needs brackets, like [2001:db8::1]:4040")]
    NoBrackets,
    /// What stands in brackets is no IPv6 address (a zone, `%eth0`, means nothing elsewhere).
    #[error("there is no IPv6 address in the brackets")]
    BadIpv6,
    /// Digits and dots, but no IPv4 address.
    #[error("it is no IPv4 address")]
    BadIpv4,
    /// Not a host name either.
    #[error("it is neither a host name nor an IP address")]
    BadName,
    /// `0.0.0.0` or `[::]`, all addresses of a machine: one can listen there, but not call.
    #[error("nobody can be called at it: it stands for all addresses of a machine")]
    Unspecified,
}

/// A node's id as tickets and server names have it: base32, small letters, no padding.
pub fn encode_node_id(id: NodeId) -> String {
    BASE32_NOPAD.encode(id.as_bytes()).to_ascii_lowercase()
}

/// Reads what [`encode_node_id`] writes, in letters of any case. The key is checked too.
pub fn decode_node_id(text: &str) -> Result<NodeId, TicketError> {
    let strange = |c: &char| !matches!(c, 'a'..='z' | 'A'..='Z' | '2'..='7');
    if let Some(letter) = text.chars().find(strange) {
        return Err(TicketError::IdLetter(letter));
    }
    if text.len() != NODE_ID_LETTERS {
        return Err(TicketError::IdLength(text.len()));
    }
    // Length and letters are right, so what is left to go wrong are the four bits too many.
    let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| TicketError::IdEnd)?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| TicketError::IdEnd)?;
    let id = AuthorId::from_bytes(bytes);
    id.check_key().map_err(|_| TicketError::IdNoKey)?;
    Ok(id)
}

/// Checks one `host:port` and returns its one spelling (small letters, the shortest IPv6).
pub fn check_address(address: &str) -> Result<String, TicketError> {
    normal_address(address).map_err(|problem| TicketError::Address {
        address: address.chars().take(80).collect(), // a line of a terminal
        problem,
    })
}

/// The addresses to put into a ticket for a node that is bound to `bound`.
///
/// That is the address itself; or, if it stands for all addresses of the machine, those of its
/// interfaces, at most [`MAX_ADDRESSES`]: without loopback (unless there is nothing else) and
/// without link-local IPv6, which means nothing without a zone. A socket on `[::]` counts as
/// dual-stack, as [`Endpoint::bind`](super::Endpoint::bind) makes it.
pub fn reachable_addresses(bound: SocketAddr) -> Vec<String> {
    if !bound.ip().is_unspecified() {
        return vec![bound.to_string()];
    }
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "can't list the addresses of this machine");
        Vec::new()
    });
    let found: Vec<IpAddr> = found.iter().map(if_addrs::Interface::ip).collect();
    choose_addresses(bound, &found)
}

fn choose_addresses(bound: SocketAddr, found: &[IpAddr]) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::new();
    for &ip in found {
        let usable = match ip {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => bound.is_ipv6() && !ip.is_unicast_link_local(),
        };
        let address = SocketAddr::new(ip, bound.port()).to_string();
        if usable
            && !ip.is_loopback()
            && !ip.is_unspecified()
            && !chosen.contains(&address)
            && chosen.len() < MAX_ADDRESSES
        {
            chosen.push(address);
        }
    }
    if chosen.is_empty() {
        // Both kinds of socket hear this one.
        chosen.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bound.port()).to_string());
    }
    chosen
}

fn after_prefix(head: &str) -> Result<&str, TicketError> {
    if let Some((prefix, id)) = head.split_at_checked(PREFIX.len())
        && prefix.eq_ignore_ascii_case(PREFIX)
    {
        return Ok(id);
    }
    let lower = head.to_ascii_lowercase();
    let version = lower.strip_prefix("madake").and_then(|rest| rest.split_once('-'));
    match version {
        Some((number, _)) if !number.is_empty() && all_digits(number) => Err(TicketError::OtherVersion),
        _ => Err(TicketError::NotATicket),
    }
}

fn normal_address(address: &str) -> Result<String, AddressProblem> {
    if address.is_empty() {
        return Err(AddressProblem::Empty);
    }
    if address.len() > MAX_ADDRESS {
        return Err(AddressProblem::TooLong);
    }
    if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressProblem::BadIpv6)?;
        let ip: Ipv6Addr = host.parse().map_err(|_| AddressProblem::BadIpv6)?;
        let port = rest.strip_prefix(':').ok_or(AddressProblem::NoPort)?;
        return normal_ip(ip.into(), port);
    }
    if address.parse::<Ipv6Addr>().is_ok() {
        return Err(AddressProblem::NoBrackets);
    }
    let (host, port) = address.rsplit_once(':').ok_or(AddressProblem::NoPort)?;
    if host.is_empty() {
        return Err(AddressProblem::NoHost);
    }
    if host.contains(':') {
        return Err(AddressProblem::NoBrackets);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return normal_ip(ip.into(), port);
    }
    let port = parse_port(port)?;
    check_name(host)?;
    Ok(format!("{}:{port}", host.to_ascii_lowercase()))
}

fn normal_ip(ip: IpAddr, port: &str) -> Result<String, AddressProblem> {
    let port = parse_port(port)?;
    if ip.is_unspecified() {
        return Err(AddressProblem::Unspecified);
    }
    Ok(SocketAddr::new(ip, port).to_string())
}

fn parse_port(text: &str) -> Result<u16, AddressProblem> {
    // `parse` alone would take "+1" and "007".
    if !all_digits(text) || text.starts_with('0') {
        return Err(AddressProblem::BadPort);
    }
    text.parse().map_err(|_| AddressProblem::BadPort)
}

/// A host name: labels of letters, digits, `-` and `_`, 1 to 63 each (RFC 1123, and `_` because
/// people's machines have it). A last label of digits only would be a mistyped IPv4 address.
fn check_name(host: &str) -> Result<(), AddressProblem> {
    let fine = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if !name.split('.').all(fine) {
        return Err(AddressProblem::BadName);
    }
    match name.rsplit('.').next() {
        Some(last) if all_digits(last) => Err(AddressProblem::BadIpv4),
        _ => Ok(()),
    }
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// What a ticket starts with; the 1 is the version of the line's form.
pub const PREFIX: &str = "madake1-";

/// Letters of a node id: 256 bits at 5 a letter, rounded up.
pub const NODE_ID_LETTERS: usize = 52;

/// Addresses in a ticket: more than a machine's networks, few enough to try all in 5 s.
pub const MAX_ADDRESSES: usize = 16;

/// Bytes of an address: a DNS name has at most 253, and real ones leave room for the port.
pub const MAX_ADDRESS: usize = 255;

/// Bytes of a whole ticket; each address has an `@` or a comma before it.
const MAX_TICKET: usize = PREFIX.len() + NODE_ID_LETTERS + MAX_ADDRESSES * (1 + MAX_ADDRESS);

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        madake_log::AuthorKey::from_seed([7; 32]).author()
    }

    fn id() -> String {
        encode_node_id(node())
    }

    fn error(text: &str) -> TicketError {
        text.parse::<Ticket>().expect_err(text)
    }

    fn problem(address: &str) -> AddressProblem {
        match error(&format!("{PREFIX}{}@{address}", id())) {
            TicketError::Address { problem, .. } => problem,
            other => panic!("{address}: {other}"),
        }
    }

    #[test]
    fn tickets_come_back() {
        let full: Vec<String> = (1..=MAX_ADDRESSES).map(|n| format!("10.0.0.{n}:{n}")).collect();
        let some = ["203.0.113.7:4040", "[2001:db8::7]:1", "home.example.org:65535", "nas:4040"];
        for addresses in [vec![], vec![some[0].to_owned()], some.map(String::from).to_vec(), full] {
            let ticket = Ticket::new(node(), &addresses).unwrap();
            assert_eq!(ticket.addresses(), addresses);
            let line = ticket.to_string();
            assert_eq!(line.parse::<Ticket>().unwrap(), ticket);
            assert_eq!(line.to_ascii_uppercase().parse::<Ticket>().unwrap(), ticket);
            assert_eq!(format!(" \t{line}\r\n").parse::<Ticket>().unwrap(), ticket);
        }
    }

    #[test]
    fn the_longest_ticket_is_read() {
        let long = format!("{}:65535", [&"a".repeat(63)[..]; 4].join("."));
        let long = &long[long.len() - MAX_ADDRESS..];
        let ticket = Ticket::new(node(), [long; MAX_ADDRESSES]).unwrap();
        assert_eq!(ticket.to_string().len(), MAX_TICKET);
        assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
        assert_eq!(error(&format!("{ticket}x")), TicketError::TooLong);
    }

    #[test]
    fn addresses_get_one_spelling() {
        for (given, normal) in [
            ("[2001:DB8:0::0001]:80", "[2001:db8::1]:80"),
            ("Home.Example.ORG:80", "home.example.org:80"),
            ("example.org.:80", "example.org.:80"),
            ("my_nas:80", "my_nas:80"),
            ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
        ] {
            assert_eq!(check_address(given).unwrap(), normal);
            assert_eq!(check_address(normal).unwrap(), normal);
        }
    }

    #[test]
    fn wrong_tickets_are_told_apart() {
        let id = id();
        for nonsense in ["", "@", "hello", "madake", "madake-x", "madakex1-", &id, "mädake1-x"] {
            assert_eq!(error(nonsense), TicketError::NotATicket, "{nonsense}");
        }
        assert_eq!(error(&format!("madake2-{id}")), TicketError::OtherVersion);
        assert_eq!(error(&format!("madake10-{id}")), TicketError::OtherVersion);
        assert_eq!(error("madake1-"), TicketError::IdLength(0));
        assert_eq!(error(&format!("madake1-{}", &id[1..])), TicketError::IdLength(51));
        assert_eq!(error(&format!("madake1-{id}a")), TicketError::IdLength(53));
        assert_eq!(error(&format!("madake1-1{}", &id[1..])), TicketError::IdLetter('1'));
        assert_eq!(error(&format!("madake1-{id}====")), TicketError::IdLetter('='));
        assert_eq!(error(&format!("madake1-é{}", &id[2..])), TicketError::IdLetter('é'));
        assert_eq!(error(&format!("madake1-{id}@")), TicketError::NothingAfterAt);
        assert_eq!(error(&format!("madake1-{} {}", &id[..9], &id[9..])), TicketError::Spaces);
        assert_eq!(error(&format!("madake1-{id}@a:1, b:1")), TicketError::Spaces);
        assert_eq!(error(&"x".repeat(1 << 20)), TicketError::TooLong);
        let many = vec!["a:1"; MAX_ADDRESSES + 1].join(",");
        assert_eq!(error(&format!("madake1-{id}@{many}")), TicketError::TooManyAddresses);
    }

    #[test]
    fn padding_bits_must_be_zero() {
        // The last letter holds one bit of the id, so only a and q can stand there.
        let id = id();
        for last in "bcdefghijklmnoprstuvwxyz234567".chars() {
            assert_eq!(error(&format!("madake1-{}{last}", &id[..51])), TicketError::IdEnd);
        }
    }

    #[test]
    fn ids_must_be_keys() {
        let zero = encode_node_id(AuthorId::from_bytes([0; 32]));
        assert_eq!(error(&format!("madake1-{zero}")), TicketError::IdNoKey);
    }

    #[test]
    fn wrong_addresses_are_told_apart() {
        use AddressProblem as P;
        for (address, expected) in [
            (",a:1", P::Empty),
            ("a:1,,b:1", P::Empty),
            ("a:1,", P::Empty),
            ("example.org", P::NoPort),
            ("10.0.0.1", P::NoPort),
            ("[::1]", P::NoPort),
            ("[::1]4040", P::NoPort),
            ("example.org:", P::BadPort),
            ("10.0.0.1:0", P::BadPort),
            ("10.0.0.1:65536", P::BadPort),
            ("10.0.0.1:+80", P::BadPort),
            ("10.0.0.1:080", P::BadPort),
            ("[::1]:x", P::BadPort),
            (":4040", P::NoHost),
            ("::1", P::NoBrackets),
            ("2001:db8::1:4040", P::NoBrackets),
            ("[::1:4040", P::BadIpv6),
            ("[fe80::1%3]:4040", P::BadIpv6),
            ("[10.0.0.1]:4040", P::BadIpv6),
            ("10.0.0.256:4040", P::BadIpv4),
            ("10.0.1:4040", P::BadIpv4),
            ("1:4040", P::BadIpv4),
            ("-a.org:4040", P::BadName),
            ("a..org:4040", P::BadName),
            (".:4040", P::BadName),
            ("a/b:4040", P::BadName),
            ("a@b:4040", P::BadName),
            ("bücher.example:4040", P::BadName),
            ("0.0.0.0:4040", P::Unspecified),
            ("[::]:4040", P::Unspecified),
        ] {
            assert_eq!(problem(address), expected, "{address}");
        }
        assert_eq!(problem(&format!("{}:1", "a".repeat(254))), P::TooLong);
        assert_eq!(problem(&format!("{}:1", "a".repeat(64))), P::BadName);
    }

    #[test]
    fn the_addresses_of_a_machine_are_chosen() {
        let ips = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>();
        let all = ips(&["127.0.0.1", "::1", "10.0.0.5", "fe80::1", "2001:db8::5", "10.0.0.5"]);
        let at = |bound: &str, found: &[IpAddr]| choose_addresses(bound.parse().unwrap(), found);
        assert_eq!(at("0.0.0.0:9", &all), ["10.0.0.5:9"]);
        assert_eq!(at("[::]:9", &all), ["10.0.0.5:9", "[2001:db8::5]:9"]);
        assert_eq!(at("[::]:9", &ips(&["::1", "127.0.0.1", "fe80::1"])), ["127.0.0.1:9"]);
        assert_eq!(at("0.0.0.0:9", &[]), ["127.0.0.1:9"]);
        let many: Vec<IpAddr> = (0..99).map(|n| Ipv4Addr::new(10, 0, 0, n).into()).collect();
        assert_eq!(at("0.0.0.0:9", &many).len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_bound_address_is_its_own() {
        for bound in ["127.0.0.1:9", "[::1]:9"] {
            assert_eq!(reachable_addresses(bound.parse().unwrap()), [bound]);
        }
        let found = reachable_addresses("[::]:9".parse().unwrap());
        assert!(Ticket::new(node(), &found).is_ok_and(|ticket| ticket.addresses() == found));
    }
}
