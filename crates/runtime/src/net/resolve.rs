//! A stub resolver: `/etc/hosts`, then the name servers of `/etc/resolv.conf` over UDP.
//!
//! Not glibc's: `getaddrinfo` in a static program loads the shared objects that the image's `/etc/nsswitch.conf` names, which would run
//! code that is not measured. Answers are not trusted, nor need they be: the CAS is known by its key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use resolv_conf::Config;
use ring::rand::{SecureRandom, SystemRandom};
use simple_dns::rdata::RData;
use simple_dns::{Name, Packet, PacketFlag, Question, CLASS, TYPE};

/// How long one name server may take to answer.
const ANSWER_TIME: Duration = Duration::from_millis(1500);
/// The largest UDP answer without EDNS (RFC 1035 section 4.2.1) is 512 bytes; some servers send more.
const ANSWER_SIZE: usize = 4096;
const DNS_PORT: u16 = 53;

/// No address for a name.
#[derive(Debug, thiserror::Error)]
#[error("the name {host:?} can't be resolved: {reason}")]
pub struct ResolveError {
    host: String,
    reason: String,
}

/// The addresses of a host: an IP address, a name of `/etc/hosts`, or a DNS name; at least one.
pub fn resolve(host: &str, deadline: Instant) -> Result<Vec<IpAddr>, ResolveError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let hosts = std::fs::read("/etc/hosts").unwrap_or_default();
    let known = from_hosts(&String::from_utf8_lossy(&hosts), host);
    if !known.is_empty() {
        return Ok(known);
    }
    let failed = |reason: String| ResolveError {
        host: host.to_owned(),
        reason,
    };
    let text = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    let (configuration, _) = Config::parse_with_errors(&text);
    if configuration.nameservers.is_empty() {
        return Err(failed(
            "it is not in /etc/hosts, and /etc/resolv.conf names no server".to_owned(),
        ));
    }
    let mut reason = "there is no such name".to_owned();
    for name in candidates(host, &configuration) {
        for kind in [TYPE::A, TYPE::AAAA] {
            match ask_all(&configuration, &name, kind, deadline) {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(addresses) => return Ok(addresses),
                Err(error) => reason = error,
            }
        }
    }
    Err(failed(reason))
}

/// The addresses of a name in the text of `/etc/hosts`.
fn from_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut fields = line.split('#').next()?.split_ascii_whitespace();
        let address = fields.next()?.parse().ok()?;
        fields
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    };
    text.lines().filter_map(line).collect()
}

/// The full names to try for a name, by the search list and `ndots` (resolv.conf(5)).
fn candidates(host: &str, configuration: &Config) -> Vec<String> {
    if let Some(absolute) = host.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    let searched = configuration
        .get_last_search_or_domain()
        .map(|domain| format!("{host}.{}", domain.trim_end_matches('.')));
    let mut names: Vec<String> = searched.filter(|name| !name.ends_with('.')).collect();
    let at = if dots >= configuration.ndots as usize {
        0
    } else {
        names.len()
    };
    names.insert(at, host.to_owned());
    names
}

/// The answer of the first name server that has one; empty if the name does not exist.
fn ask_all(
    configuration: &Config,
    name: &str,
    kind: TYPE,
    deadline: Instant,
) -> Result<Vec<IpAddr>, String> {
    let mut reason = String::new();
    for server in &configuration.nameservers {
        let server = SocketAddr::new(server.into(), DNS_PORT);
        match ask(server, name, kind, deadline) {
            Ok(addresses) => return Ok(addresses),
            Err(error) => reason = format!("name server {server}: {error}"),
        }
    }
    Err(reason)
}

fn ask(
    server: SocketAddr,
    name: &str,
    kind: TYPE,
    deadline: Instant,
) -> Result<Vec<IpAddr>, String> {
    let mut id = [0; 2];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| "there are no random numbers")?;
    let id = u16::from_ne_bytes(id);
    let query = query(id, name, kind).ok_or("it is no DNS name")?;

    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let text = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind((any, 0)).map_err(text)?;
    // A connected socket gets datagrams of this server only.
    socket.connect(server).map_err(text)?;
    socket.send(&query).map_err(text)?;

    let patience = deadline.min(Instant::now() + ANSWER_TIME);
    let mut datagram = [0; ANSWER_SIZE];
    loop {
        let left = patience.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no answer in time".to_owned());
        }
        socket.set_read_timeout(Some(left)).map_err(text)?;
        let length = match socket.recv(&mut datagram) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            result => result.map_err(text)?,
        };
        if let Some(answer) = answer(&datagram[..length], id, kind) {
            return answer;
        }
    }
}

fn query(id: u16, name: &str, kind: TYPE) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).ok()?;
    packet
        .questions
        .push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().ok()
}

/// The addresses in a datagram, empty if the name does not exist; an error if the server has one; None if it is no answer to this query.
fn answer(datagram: &[u8], id: u16, kind: TYPE) -> Option<Result<Vec<IpAddr>, String>> {
    let packet = Packet::parse(datagram).ok()?;
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    match packet.rcode() {
        simple_dns::RCODE::NoError | simple_dns::RCODE::NameError => {}
        code => return Some(Err(format!("it answers {code:?}"))),
    }
    let address = |record: &simple_dns::ResourceRecord| match (&record.rdata, kind) {
        (RData::A(a), TYPE::A) => Some(Ipv4Addr::from(a.address).into()),
        (RData::AAAA(aaaa), TYPE::AAAA) => Some(Ipv6Addr::from(aaaa.address).into()),
        _ => None,
    };
    Some(Ok(packet.answers.iter().filter_map(address).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use simple_dns::{rdata, ResourceRecord, RCODE};

    fn names(host: &str, text: &str) -> Vec<String> {
        candidates(host, &Config::parse(text).unwrap())
    }

    fn reply(id: u16, code: RCODE, address: Option<Ipv4Addr>) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = code;
        if let Some(address) = address {
            let data = RData::A(rdata::A {
                address: address.into(),
            });
            packet.answers.push(ResourceRecord::new(
                Name::new("cas.example").unwrap(),
                CLASS::IN,
                1,
                data,
            ));
        }
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn addresses_need_no_server() {
        let now = Instant::now();
        assert_eq!(
            resolve("10.1.2.3", now).unwrap(),
            [IpAddr::from([10, 1, 2, 3])]
        );
        assert!(resolve("localhost", now)
            .unwrap()
            .iter()
            .all(IpAddr::is_loopback));
    }

    #[test]
    fn the_hosts_file_is_read_by_name_and_alias() {
        let text = "127.0.0.1 localhost # cas\n\n# 9.9.9.9 cas\n10.0.0.7\tcas.example CAS\nfd00::7 cas\nbroken cas\n";
        let expected: [IpAddr; 2] = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(from_hosts(text, "cas"), expected);
        assert!(from_hosts(text, "ca").is_empty());
    }

    #[test]
    fn the_search_list_comes_first_for_names_with_few_dots() {
        let text = "nameserver 10.0.0.10\nsearch default.svc.cluster.local svc.cluster.local.\noptions ndots:5\n";
        assert_eq!(
            names("cas", text),
            [
                "cas.default.svc.cluster.local",
                "cas.svc.cluster.local",
                "cas"
            ]
        );
        assert_eq!(names("cas.", text), ["cas"]);
        assert_eq!(names("a.b", "search x\n"), ["a.b", "a.b.x"]);
        assert_eq!(names("cas", "nameserver 127.0.0.11\n"), ["cas"]);
    }

    #[test]
    fn only_the_answer_to_the_query_counts() {
        let address = Ipv4Addr::new(10, 0, 0, 7);
        let datagram = reply(7, RCODE::NoError, Some(address));
        assert_eq!(
            answer(&datagram, 7, TYPE::A),
            Some(Ok(vec![address.into()]))
        );
        assert_eq!(answer(&datagram, 7, TYPE::AAAA), Some(Ok(vec![])));
        assert_eq!(answer(&datagram, 8, TYPE::A), None);
        assert_eq!(answer(&query(7, "cas", TYPE::A).unwrap(), 7, TYPE::A), None);
    }

    #[test]
    fn no_such_name_is_told_from_a_server_that_fails() {
        assert_eq!(
            answer(&reply(7, RCODE::NameError, None), 7, TYPE::A),
            Some(Ok(vec![]))
        );
        assert!(matches!(
            answer(&reply(7, RCODE::ServerFailure, None), 7, TYPE::A),
            Some(Err(_))
        ));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(datagram in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = answer(&datagram, 7, TYPE::A);
        }

        #[test]
        fn no_damaged_answer_makes_it_panic(at in 0usize..64, value: u8) {
            let mut datagram = reply(7, RCODE::NoError, Some(Ipv4Addr::LOCALHOST));
            let at = at % datagram.len();
            datagram[at] = value;
            let _ = answer(&datagram, 7, TYPE::A);
        }

        #[test]
        fn no_hosts_file_makes_it_panic(text in "(?s).{0,200}") {
            let _ = from_hosts(&text, "cas");
        }
    }
}
