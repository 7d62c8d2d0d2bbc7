//! The default gateway from the kernel's routing table. No I/O.

use std::net::Ipv4Addr;

const RTF_UP: u16 = 1;
const RTF_GATEWAY: u16 = 2;

/// The default gateway of lowest metric in the text of `/proc/net/route`; lines that can't be read are passed over.
pub fn default_gateway(table: &str) -> Option<Ipv4Addr> {
    table
        .lines()
        .skip(1)
        .filter_map(gateway)
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, address)| address)
}

/// Metric and gateway of one line, if it is the default route and is up.
fn gateway(line: &str) -> Option<(u32, Ipv4Addr)> {
    // Iface Destination Gateway Flags RefCnt Use Metric Mask …; addresses are hexadecimal numbers in the byte order of this machine.
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    let flags = u16::from_str_radix(fields.get(3)?, 16).ok()?;
    let metric = fields.get(6)?.parse().ok()?;
    let default =
        number(1)? == 0 && number(7)? == 0 && flags & RTF_UP != 0 && flags & RTF_GATEWAY != 0;
    default.then_some((metric, Ipv4Addr::from(number(2)?.to_ne_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    #[test]
    fn the_gateway_of_a_docker_bridge_is_found() {
        let table = format!(
            "{HEAD}eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        );
        assert_eq!(default_gateway(&table), Some(Ipv4Addr::new(172, 17, 0, 1)));
    }

    #[test]
    fn the_lowest_metric_wins() {
        let table = format!(
            "{HEAD}eth0 00000000 0100000A 0003 0 0 200 00000000 0 0 0\neth1 00000000 0200000A 0003 0 0 100 00000000 0 0 0\n"
        );
        assert_eq!(default_gateway(&table), Some(Ipv4Addr::new(10, 0, 0, 2)));
    }

    #[test]
    fn routes_that_are_down_direct_or_partial_are_none() {
        for line in [
            "eth0 00000000 0100000A 0002 0 0 0 00000000 0 0 0",
            "eth0 00000000 0100000A 0001 0 0 0 00000000 0 0 0",
            "eth0 00000000 0100000A 0003 0 0 0 00000080 0 0 0",
            "eth0 00000000 0100000A 0003",
        ] {
            assert_eq!(default_gateway(&format!("{HEAD}{line}\n")), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,200}") {
            let _ = default_gateway(&text);
        }
    }
}
