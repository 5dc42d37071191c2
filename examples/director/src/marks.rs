//! Rules of marks: which packets a `fwmark` service gets.
//!
//! In the kernel, netfilter marks packets before its balancer sees them. Here the director looks at packets first, so it has a
//! table of its own, in a file beside the configuration (`keepalived.marks`) and changed by `director mark`:
//!
//! ```text
//! # The first rule that matches decides. Mark 0 is no mark.
//! daddr 198.51.100.100 tcp dport 22 mark 0
//! daddr 198.51.100.100 tcp dport { 80, 443, 8000-8099 } mark 1
//! iif eth0 ip saddr 203.0.113.0/24 udp sport 5060 mark 2
//! ip6 daddr 2001:db8::100 tcp mark 1
//! ```
//!
//! | words | match |
//! |---|---|
//! | `iif NAME` | packets that come in at this interface |
//! | `ip`, `ip6` | packets of this family; an address says it too |
//! | `saddr PREFIX`, `daddr PREFIX` | senders, receivers: an address, or one with `/LENGTH` |
//! | `tcp`, `udp` | packets of this protocol |
//! | `sport PORTS`, `dport PORTS` | ports, ranges, and lists of both with or without braces |
//! | `mark NUMBER` | nothing: what matches gets this mark; decimal or `0x…` |

use std::net::IpAddr;
use std::ops::RangeInclusive;

use lvs_fwd::marks::MarkRule;
use lvs_fwd::route::Prefix;

use crate::beside::Fault;

/// Reads rules, one a line.
///
/// # Errors
///
/// Everything that is wrong, by line and column.
pub fn parse(text: &str) -> Result<Vec<MarkRule>, Vec<Fault>> {
    let (mut rules, mut faults) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let rule = line.split('#').next().unwrap_or_default();
        if rule.trim().is_empty() {
            continue;
        }
        match parse_rule(rule) {
            Ok(rule) => rules.push(rule),
            Err(fault) => faults.push(Fault {
                line: number,
                ..fault
            }),
        }
    }
    if faults.is_empty() {
        Ok(rules)
    } else {
        Err(faults)
    }
}

/// Reads one rule.
///
/// # Errors
///
/// What is wrong, by column.
pub fn parse_rule(text: &str) -> Result<MarkRule, Fault> {
    let mut words = Words { text, rest: text };
    let mut rule = MarkRule::default();
    let mut mark = None;
    while let Some(word) = words.next() {
        let twice = match word {
            "iif" | "iifname" => {
                let name = words.value(word, "an interface's name")?;
                if name.len() > 15 {
                    let message = format!("`{name}` is too long for an interface's name");
                    return Err(words.fault(name, message, None));
                }
                rule.interface
                    .replace(name.trim_matches('"').to_owned())
                    .is_some()
            }
            "ip" => rule.ipv6.replace(false).is_some(),
            "ip6" => rule.ipv6.replace(true).is_some(),
            "saddr" => rule.source.replace(words.prefix(word)?).is_some(),
            "daddr" => rule.destination.replace(words.prefix(word)?).is_some(),
            "tcp" => rule.protocol.replace(TCP).is_some(),
            "udp" => rule.protocol.replace(UDP).is_some(),
            "sctp" => rule.protocol.replace(SCTP).is_some(),
            "sport" => {
                let ports = words.ports(word)?;
                !std::mem::replace(&mut rule.source_ports, ports).is_empty()
            }
            "dport" => {
                let ports = words.ports(word)?;
                !std::mem::replace(&mut rule.destination_ports, ports).is_empty()
            }
            "mark" => {
                let at = words.value(word, "a number")?;
                let number = match at.strip_prefix("0x") {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => at.parse(),
                };
                let message = || format!("`{at}` is no mark: it is a number up to {}", u32::MAX);
                let number = number.map_err(|_| words.fault(at, message(), None))?;
                mark.replace(number).is_some()
            }
            other => {
                let message = format!("`{other}` is not known here");
                return Err(words.fault(other, message, nearest(other)));
            }
        };
        if twice {
            return Err(words.fault(word, format!("`{word}` stands here twice"), None));
        }
    }
    let end = &text[text.trim_end().len()..];
    let Some(mark) = mark else {
        let hint = Some("end it with `mark NUMBER`".to_owned());
        return Err(words.fault(end, "the rule gives no mark".into(), hint));
    };
    rule.mark = mark;
    if !rule.is_of(false) && !rule.is_of(true) {
        let message = "nothing can match: the rule speaks of both address families".into();
        return Err(words.fault(text.trim_start(), message, None));
    }
    Ok(rule)
}

/// A rule as it is read.
pub fn format_rule(rule: &MarkRule) -> String {
    let mut words = Vec::new();
    words.extend(rule.interface.as_ref().map(|name| format!("iif {name}")));
    words.extend(
        rule.ipv6
            .map(|ipv6| if ipv6 { "ip6" } else { "ip" }.to_owned()),
    );
    words.extend(
        rule.source
            .map(|prefix| format!("saddr {}", text_of(prefix))),
    );
    words.extend(
        rule.destination
            .map(|prefix| format!("daddr {}", text_of(prefix))),
    );
    words.extend(rule.protocol.map(|protocol| {
        match protocol {
            TCP => "tcp",
            SCTP => "sctp",
            _ => "udp",
        }
        .to_owned()
    }));
    for (word, ports) in [
        ("sport", &rule.source_ports),
        ("dport", &rule.destination_ports),
    ] {
        let text = |range: &RangeInclusive<u16>| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{}-{}", range.start(), range.end()),
        };
        let list: Vec<String> = ports.iter().map(text).collect();
        match list.len() {
            0 => {}
            1 => words.push(format!("{word} {}", list[0])),
            _ => words.push(format!("{word} {{ {} }}", list.join(", "))),
        }
    }
    words.push(format!("mark {}", rule.mark));
    words.join(" ")
}

/// The table of a running director: the file's rules, and before and behind them those that were added by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    before: Vec<MarkRule>,
    /// What the file said last, and what is left of it.
    file: Vec<MarkRule>,
    left: Vec<MarkRule>,
    behind: Vec<MarkRule>,
}

impl Marks {
    /// The file was read again. Rules by hand stay; a rule of the file that was deleted by hand comes back when the file
    /// has changed. Returns whether it has.
    pub fn set_file(&mut self, rules: &[MarkRule]) -> bool {
        if self.file == rules {
            return false;
        }
        self.file = rules.to_vec();
        self.left = rules.to_vec();
        true
    }

    /// Adds a rule by hand, before all others or behind them.
    pub fn add(&mut self, rule: MarkRule, first: bool) {
        if first {
            self.before.insert(0, rule);
        } else {
            self.behind.push(rule);
        }
    }

    /// Deletes the first rule that is this one. `false` if there is none.
    pub fn delete(&mut self, rule: &MarkRule) -> bool {
        let mut lists = [&mut self.before, &mut self.left, &mut self.behind].into_iter();
        lists.any(|list| {
            let at = list.iter().position(|one| one == rule);
            at.map(|at| list.remove(at)).is_some()
        })
    }

    /// Deletes all.
    pub fn flush(&mut self) {
        self.before.clear();
        self.left.clear();
        self.behind.clear();
    }

    /// All in their order.
    pub fn rules(&self) -> Vec<MarkRule> {
        self.listed().map(|(rule, _)| rule.clone()).collect()
    }

    /// All in their order, each with whether it comes from the file.
    pub fn listed(&self) -> impl Iterator<Item = (&MarkRule, bool)> {
        let by_hand = |rule| (rule, false);
        let before = self.before.iter().map(by_hand);
        let file = self.left.iter().map(|rule| (rule, true));
        before.chain(file).chain(self.behind.iter().map(by_hand))
    }
}

struct Words<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn fault(&self, part: &str, message: String, hint: Option<String>) -> Fault {
        Fault::at(self.text, part, message, hint)
    }

    fn value(&mut self, word: &'a str, what: &str) -> Result<&'a str, Fault> {
        self.next().ok_or_else(|| {
            let end = &self.text[self.text.trim_end().len()..];
            self.fault(end, format!("`{word}` needs {what}"), None)
        })
    }

    fn prefix(&mut self, word: &'a str) -> Result<Prefix, Fault> {
        let value = self.value(word, "an address")?;
        let (addr, length) = match value.split_once('/') {
            Some((addr, length)) => (addr, Some(length)),
            None => (value, None),
        };
        let message = |what: &str| format!("`{value}` is no {what}");
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| self.fault(value, message("address"), None))?;
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits,
            Some(length) => length
                .parse()
                .ok()
                .filter(|length| *length <= bits)
                .ok_or_else(|| {
                    let hint = Some(format!("a length is 0 to {bits}"));
                    self.fault(value, message("prefix"), hint)
                })?,
        };
        let prefix = Prefix::new(addr, length);
        if prefix.addr() != addr {
            let hint = Some(format!("the prefix is {prefix}"));
            let message = format!("`{value}` has bits behind its length");
            return Err(self.fault(value, message, hint));
        }
        Ok(prefix)
    }

    /// One value, or several with commas between them or braces around them.
    fn ports(&mut self, word: &'a str) -> Result<Vec<RangeInclusive<u16>>, Fault> {
        let start = self.rest.trim_start();
        let (list, rest) = if let Some(inside) = start.strip_prefix('{') {
            let Some((list, rest)) = inside.split_once('}') else {
                let message = "the brace is not closed".into();
                return Err(self.fault(start, message, None));
            };
            (list, rest)
        } else {
            // A comma joins words.
            let mut end = 0;
            for part in start.split_inclusive(char::is_whitespace) {
                let (before, this) = (start[..end].trim_end(), part.trim());
                if end > 0 && !before.ends_with(',') && !this.starts_with(',') {
                    break;
                }
                end += part.len();
            }
            start.split_at(end)
        };
        self.rest = rest;
        let mut ports = Vec::new();
        for part in list.split(',').map(str::trim) {
            if part.is_empty() {
                let at = if list.trim().is_empty() { rest } else { list };
                return Err(self.fault(at, format!("`{word}` needs ports"), None));
            }
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let bounds = (from.trim().parse::<u16>(), to.trim().parse::<u16>());
            match bounds {
                (Ok(from), Ok(to)) if from <= to => ports.push(from..=to),
                _ => {
                    let hint = Some("ports are numbers up to 65535, ranges FROM-TO".to_owned());
                    return Err(self.fault(part, format!("`{part}` is no port"), hint));
                }
            }
        }
        Ok(ports)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let start = self.rest.trim_start();
        let end = start
            .find(|c: char| c.is_whitespace())
            .unwrap_or(start.len());
        let (word, rest) = start.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }
}

fn text_of(prefix: Prefix) -> String {
    let bits = if prefix.addr().is_ipv4() { 32 } else { 128 };
    if prefix.length() == bits {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

/// What may have been meant.
fn nearest(word: &str) -> Option<String> {
    let meant = match word {
        "src" | "source" | "-s" => "saddr",
        "dst" | "destination" | "-d" => "daddr",
        "in" | "interface" | "-i" | "iifnam" => "iif",
        "inet" | "ipv4" => "ip",
        "inet6" | "ipv6" => "ip6",
        "--dport" | "dports" | "port" => "dport",
        "--sport" | "sports" => "sport",
        "icmp" | "proto" | "protocol" | "-p" => {
            return Some("protocols are `tcp`, `udp` and `sctp`".into());
        }
        "meta" | "set" | "fwmark" | "--set-mark" => {
            return Some("write `mark NUMBER`".into());
        }
        _ => {
            return Some(
                "known are iif, ip, ip6, saddr, daddr, tcp, udp, sctp, sport, dport, mark".into(),
            );
        }
    };
    Some(format!("did you mean `{meant}`?"))
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_are_written_as_they_are_read() {
        for rule in [
            "mark 1",
            "daddr 198.51.100.100 tcp dport { 80, 443, 8000-8099 } mark 1",
            "iif eth0 ip saddr 203.0.113.0/24 udp sport 5060 mark 2",
            "ip6 daddr 2001:db8::100 tcp mark 4294967295",
        ] {
            assert_eq!(format_rule(&parse_rule(rule).unwrap()), rule);
        }
        for (written, canonical) in [
            (
                "dport 80 , 443 tcp mark 0x10",
                "tcp dport { 80, 443 } mark 16",
            ),
            ("mark 1 tcp dport 80,443", "tcp dport { 80, 443 } mark 1"),
            ("dport {80} mark 1", "dport 80 mark 1"),
            ("daddr 192.0.2.1/32 mark 1", "daddr 192.0.2.1 mark 1"),
            ("iifname \"eth0\" mark 1", "iif eth0 mark 1"),
        ] {
            assert_eq!(format_rule(&parse_rule(written).unwrap()), canonical);
        }
    }

    #[test]
    fn a_fault_has_its_place_and_says_what_to_do() {
        let text = "# a comment\n\ndaddr 192.0.2.1 tcp dport 80 mark 1 # another\n\
                    daddr 192.0.2.1 dst 5 mark 1\n  tcp dport 80,x mark 1\ntcp dport 80\n\
                    saddr 192.0.2.1/24 mark 1\nsaddr 192.0.2.1 daddr 2001:db8::1 mark 1\nmark 1 mark 2\n";
        let faults = parse(text).unwrap_err();
        let shown: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}:{} {fault}", fault.line, fault.column))
            .collect();
        assert_eq!(
            shown,
            [
                "4:17 `dst` is not known here; did you mean `daddr`?",
                "5:16 `x` is no port; ports are numbers up to 65535, ranges FROM-TO",
                "6:13 the rule gives no mark; end it with `mark NUMBER`",
                "7:7 `192.0.2.1/24` has bits behind its length; the prefix is 192.0.2.0/24",
                "8:1 nothing can match: the rule speaks of both address families",
                "9:8 `mark` stands here twice",
            ]
        );
    }

    #[test]
    fn rules_by_hand_stay_around_those_of_the_file() {
        let rule = |mark: u32| MarkRule {
            mark,
            ..MarkRule::default()
        };
        let marks_of =
            |marks: &Marks| -> Vec<u32> { marks.rules().iter().map(|rule| rule.mark).collect() };
        let mut marks = Marks::default();
        assert!(marks.set_file(&[rule(1), rule(2)]));
        marks.add(rule(3), false);
        marks.add(rule(4), true);
        assert_eq!(marks_of(&marks), [4, 1, 2, 3]);
        assert!(marks.delete(&rule(1)) && !marks.delete(&rule(1)));
        assert!(!marks.set_file(&[rule(1), rule(2)]), "the file is the same");
        assert_eq!(marks_of(&marks), [4, 2, 3]);
        assert!(marks.set_file(&[rule(1)]));
        assert_eq!(marks_of(&marks), [4, 1, 3]);
        marks.flush();
        assert!(marks.rules().is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z0-9{},./:# \\n-]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn words_in_any_order(words in prop::sample::subsequence(
            vec!["iif eth0", "ip", "saddr 10.0.0.0/8", "daddr 192.0.2.1", "tcp", "sport {1,2-3}", "dport 80, 443"], 0..=7,
        ).prop_shuffle()) {
            let rule = parse_rule(&format!("{} mark 5", words.join(" "))).unwrap();
            prop_assert_eq!(parse_rule(&format_rule(&rule)).unwrap(), rule);
        }
    }
}
