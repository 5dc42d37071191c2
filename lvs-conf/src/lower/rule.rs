//! Rule lines of `virtual_rules` and `static_rules`.

use super::route::{Words, realms, skipped_word};
use super::{Context, address};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::lex::Word;
use crate::model::{Family, FwMark, Id, Prefix, Rule, RuleAction, TrackGroup};
use crate::tree::ValueLine;

/// Reads one line; `None` means that it is dropped. Static rules may follow one of the groups defined so far.
pub(super) fn read(
    cx: &mut Context,
    line: &ValueLine,
    groups: Option<&[TrackGroup]>,
) -> Option<Rule> {
    let mut draft = Draft {
        words: Words {
            words: &line.words,
            next: 0,
            what: "rule",
            code: Code::RuleInvalid,
        },
        family: None,
        action: None,
        rule: Rule {
            family: Family::Inet,
            action: RuleAction::Nop,
            not: false,
            from: None,
            to: None,
            preference: None,
            tos: None,
            fwmark: None,
            realms: None,
            suppress_prefix_length: None,
            suppress_group: None,
            iif: None,
            oif: None,
            tunnel_id: None,
            uid_range: None,
            protocol: None,
            ip_protocol: None,
            source_ports: None,
            destination_ports: None,
            no_track: false,
            track_group: None,
        },
    };
    while let Some(word) = draft.words.next() {
        if !draft.selector(cx, word)? && !draft.action(cx, word, groups)? {
            let why = format!("`{}` is no option of a rule", word.text);
            return draft.words.dropped(cx, word, &why);
        }
    }
    draft.finish(cx, line)
}

struct Draft<'a> {
    words: Words<'a>,
    family: Option<Family>,
    action: Option<RuleAction>,
    rule: Rule,
}

impl Draft<'_> {
    /// The outer `None` drops the line.
    fn selector(&mut self, cx: &mut Context, word: &Word) -> Option<bool> {
        let rule = &mut self.rule;
        match word.text.as_str() {
            name @ ("inet" | "inet6") => {
                let family = if name == "inet" {
                    Family::Inet
                } else {
                    Family::Inet6
                };
                self.takes(cx, family, word)?;
                if self.words.peek().is_some() {
                    skipped_word(cx, word);
                    if cx.dialect == Dialect::V2_2_7 {
                        self.words.next();
                    }
                }
            }
            "from" => self.rule.from = self.prefix(cx, word)?,
            "to" => self.rule.to = self.prefix(cx, word)?,
            "not" => rule.not = true,
            "preference" | "order" | "priority" => {
                rule.preference = self.words.number(cx, word, u64::from(u32::MAX))?;
            }
            "tos" | "dsfield" => rule.tos = self.words.id(cx, word, 255)?,
            "fwmark" => {
                let value = self.words.value(cx, word)?;
                rule.fwmark = fwmark(&value.text);
                if rule.fwmark.is_none() {
                    return self.words.dropped(cx, value, "the mark cannot be read");
                }
            }
            "realms" => {
                self.takes(cx, Family::Inet, word)?;
                let value = self.words.value(cx, word)?;
                self.rule.realms = realms(&value.text);
                if self.rule.realms.is_none() {
                    self.words.ignored(cx, value, "these realms cannot be read");
                }
            }
            "suppress_prefixlength" | "sup_pl" => {
                rule.suppress_prefix_length = self.words.number(cx, word, i32::MAX as u64)?;
            }
            "suppress_ifgroup" | "sup_group" => {
                rule.suppress_group = self.words.id(cx, word, u32::MAX)?;
            }
            "dev" | "iif" => rule.iif = Some(self.words.interface(cx, word)?),
            "oif" => rule.oif = Some(self.words.interface(cx, word)?),
            "tunnel-id" => rule.tunnel_id = self.words.number(cx, word, u64::MAX)?,
            "uidrange" => {
                let value = self.words.value(cx, word)?;
                rule.uid_range = range(&value.text);
                if rule.uid_range.is_none() {
                    self.words.ignored(cx, value, "a range of users is `A-B`");
                }
            }
            "protocol" => rule.protocol = self.words.id(cx, word, 255)?,
            "ipproto" => rule.ip_protocol = self.words.id(cx, word, 127)?,
            side @ ("sport" | "dport") => {
                let value = self.words.value(cx, word)?;
                let ports = range(&value.text);
                if ports.is_none() {
                    self.words.ignored(cx, value, "a range of ports is `A-B`");
                }
                if side == "sport" {
                    rule.source_ports = ports;
                } else {
                    rule.destination_ports = ports;
                }
            }
            _ => return Some(false),
        }
        Some(true)
    }

    fn action(
        &mut self,
        cx: &mut Context,
        word: &Word,
        groups: Option<&[TrackGroup]>,
    ) -> Option<bool> {
        let action = match word.text.as_str() {
            "type" => return Some(true),
            "table" | "lookup" => match self.words.id(cx, word, u32::MAX)? {
                Some(Id::Number(0)) | None => {
                    return self.words.dropped(cx, word, "there is no such table");
                }
                Some(table) => RuleAction::Table(table),
            },
            "l3mdev" => RuleAction::L3mdev,
            "goto" => match self.words.number(cx, word, u64::from(u32::MAX))? {
                Some(target) => RuleAction::Goto(target),
                None => return self.words.dropped(cx, word, "there is no such rule"),
            },
            "nop" => RuleAction::Nop,
            "blackhole" => RuleAction::Blackhole,
            "unreachable" => RuleAction::Unreachable,
            "prohibit" => RuleAction::Prohibit,
            "no_track" => {
                self.rule.no_track = true;
                return Some(true);
            }
            "track_group" if let Some(groups) = groups => {
                let value = self.words.value(cx, word)?;
                address::track_group(cx, value, groups, &mut self.rule.track_group);
                return Some(true);
            }
            _ => return Some(false),
        };
        if self.action.replace(action).is_some() {
            return self.words.dropped(cx, word, "a rule has one action");
        }
        Some(true)
    }

    fn prefix(&mut self, cx: &mut Context, option: &Word) -> Option<Option<Prefix>> {
        let prefix = self.words.prefix(cx, option)?;
        if let Some(prefix) = prefix {
            self.takes(cx, Family::of(prefix.address), option)?;
        }
        Some(prefix)
    }

    fn takes(&mut self, cx: &mut Context, family: Family, word: &Word) -> Option<()> {
        if *self.family.get_or_insert(family) == family {
            return Some(());
        }
        self.words.dropped(cx, word, "IPv4 and IPv6 are mixed")
    }

    fn finish(self, cx: &mut Context, line: &ValueLine) -> Option<Rule> {
        let first = line.words.first()?;
        let span = line.span()?;
        let mut rule = self.rule;
        rule.family = self.family.unwrap_or(Family::Inet);
        let Some(action) = self.action else {
            return self.words.dropped(cx, first, "a rule needs an action");
        };
        if let RuleAction::Goto(target) = action
            && rule.preference.is_none_or(|own| own >= target)
        {
            return self
                .words
                .dropped(cx, first, "`goto` leads to a later rule only");
        }
        if !matches!(action, RuleAction::Table(_)) {
            let needless = rule.realms.take().is_some()
                | rule.suppress_prefix_length.take().is_some()
                | rule.suppress_group.take().is_some();
            if needless {
                self.words
                    .ignored(cx, first, "realms and suppression need a table");
            }
        }
        rule.action = action;
        if rule.preference.is_none() {
            cx.push(
                Diagnostic::new(
                    Code::RuleWithoutPreference,
                    Consequence::Adjust,
                    span,
                    "a rule without preference gets one automatically",
                )
                .expected("`preference <UINT>`"),
            );
        }
        self.words
            .settle_protocol(cx, span, &mut rule.protocol, rule.no_track);
        if rule.track_group.is_some() && rule.iif.is_none() {
            self.words.ignored(cx, first, "`track_group` needs `dev`");
            rule.track_group = None;
        }
        Some(rule)
    }
}

fn fwmark(text: &str) -> Option<FwMark> {
    let number =
        |text: &str| super::scalar::any_base(text).and_then(|value| u32::try_from(value).ok());
    let (mark, mask) = match text.split_once('/') {
        Some((mark, mask)) => (mark, Some(number(mask)?)),
        None => (text, None),
    };
    Some(FwMark {
        mark: number(mark)?,
        mask,
    })
}

fn range<T: std::str::FromStr + PartialOrd>(text: &str) -> Option<(T, T)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}
