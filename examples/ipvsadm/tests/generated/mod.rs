//! Rules for many services of all kinds, the same ones each time.

use std::fmt::Write as _;

/// Command lines for so many services with their real servers, using these schedulers.
pub(crate) fn rules(services: usize, schedulers: &[&str]) -> String {
    let mut draw = Draw(0x5eed);
    let mut text = String::new();
    for n in 0..services {
        let (high, low) = (n / 200, n % 200 + 1);
        let is_ipv6 = n % 5 == 3;
        let is_mark = n % 5 == 4;
        let port = 1 + draw.below(65_535);
        let is_udp = n % 5 == 1;
        let id = match n % 5 {
            0 => format!("-t 192.0.{high}.{low}:{port}"),
            1 => format!("-u 192.0.{high}.{low}:{port}"),
            2 => format!("--sctp-service 192.0.{high}.{low}:{port}"),
            3 => format!("-t [2001:db8::{high}:{low}]:{port}"),
            _ => format!("-f {}", n + 1),
        };
        let scheduler = schedulers[draw.below(schedulers.len())];
        write!(text, "-A {id} -s {scheduler}").unwrap();
        if draw.below(2) == 0 {
            write!(text, " -p {}", 1 + draw.below(2_678_400)).unwrap();
            match (draw.below(2), is_ipv6) {
                (0, true) => write!(text, " -M {}", 1 + draw.below(127)).unwrap(),
                (0, false) => text.push_str(" -M 255.255.255.0"),
                _ => {}
            }
        }
        if (is_udp || is_mark) && draw.below(3) == 0 {
            text.push_str(" -o");
        }
        match (scheduler, draw.below(3)) {
            ("sh", 0) => text.push_str(" -b sh-fallback,sh-port"),
            ("mh", 0) => text.push_str(" -b mh-port"),
            (_, 0) => text.push_str(" -b flag-1,flag-3"),
            _ => {}
        }
        text.push('\n');
        for server in 1..=draw.below(5) {
            let address = if is_ipv6 {
                format!("[fd00::{server}]:{port}")
            } else {
                format!(
                    "10.0.{}.{server}:{}",
                    draw.below(250),
                    if is_mark { 0 } else { port }
                )
            };
            let method = match draw.below(6) {
                0 => "-g",
                1 => "-i --tun-type ipip",
                2 => "-i --tun-type gue --tun-port 6080 --tun-csum",
                3 => "-i --tun-type gre --tun-nocsum",
                _ => "-m",
            };
            writeln!(
                text,
                "-a {id} -r {address} {method} -w {}",
                draw.below(70_000)
            )
            .unwrap();
        }
    }
    text
}

/// A linear congruential generator: good enough for variety, and always the same.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}
