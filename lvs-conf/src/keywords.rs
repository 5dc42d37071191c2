//! The one table of keywords: name, places, shape, arguments, one line of documentation.
//!
//! It drives the parser, the hints, the ranges that values are read with and [`reference()`], the listing of the language.
//! A row may be valid in several places.

use std::fmt;
use std::sync::LazyLock;

use crate::dialect::Dialect;

pub use preset::DefaultValue;
pub use range::{Range, Unit};
pub use reference::reference;

/// A block of the language, seen from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the blocks' own
pub enum Place {
    Top,
    GlobalDefs,
    TrackGroup,
    GarpGroup,
    TrackFile,
    VrrpScript,
    TrackProcess,
    BfdInstance,
    SyncGroup,
    Instance,
    Authentication,
    AuthHmac,
    VirtualServer,
    RealServer,
    TcpCheck,
    PingCheck,
    HttpGet,
    SslGet,
    HttpUrl,
    SslUrl,
    SmtpCheck,
    SmtpHost,
    DnsCheck,
    MiscCheck,
    UdpCheck,
    BfdCheck,
    FileCheck,
    Ssl,
}

impl Place {
    /// Every place, in the order of the reference.
    pub const ALL: &'static [Self] = &[
        Self::Top,
        Self::GlobalDefs,
        Self::TrackGroup,
        Self::GarpGroup,
        Self::TrackFile,
        Self::VrrpScript,
        Self::TrackProcess,
        Self::BfdInstance,
        Self::SyncGroup,
        Self::Instance,
        Self::Authentication,
        Self::AuthHmac,
        Self::VirtualServer,
        Self::RealServer,
        Self::TcpCheck,
        Self::PingCheck,
        Self::HttpGet,
        Self::SslGet,
        Self::HttpUrl,
        Self::SslUrl,
        Self::SmtpCheck,
        Self::SmtpHost,
        Self::DnsCheck,
        Self::MiscCheck,
        Self::UdpCheck,
        Self::BfdCheck,
        Self::FileCheck,
        Self::Ssl,
    ];

    /// How the block is written, `top level` for the outside.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "top level",
            Self::GlobalDefs => "global_defs",
            Self::TrackGroup => "track_group",
            Self::GarpGroup => "garp_group",
            Self::TrackFile => "track_file",
            Self::VrrpScript => "vrrp_script",
            Self::TrackProcess => "vrrp_track_process",
            Self::BfdInstance => "bfd_instance",
            Self::SyncGroup => "vrrp_sync_group",
            Self::Instance => "vrrp_instance",
            Self::Authentication => "authentication",
            Self::AuthHmac => "auth_hmac",
            Self::VirtualServer => "virtual_server",
            Self::RealServer => "real_server",
            Self::TcpCheck => "TCP_CHECK",
            Self::PingCheck => "PING_CHECK",
            Self::HttpGet => "HTTP_GET",
            Self::SslGet => "SSL_GET",
            Self::HttpUrl | Self::SslUrl => "url",
            Self::SmtpCheck => "SMTP_CHECK",
            Self::SmtpHost => "host",
            Self::DnsCheck => "DNS_CHECK",
            Self::MiscCheck => "MISC_CHECK",
            Self::UdpCheck => "UDP_CHECK",
            Self::BfdCheck => "BFD_CHECK",
            Self::FileCheck => "FILE_CHECK",
            Self::Ssl => "SSL",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What follows a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Arguments on the line.
    Leaf,
    /// Statements in braces.
    Block(Place),
    /// Lines of data in braces.
    Values,
}

/// How words of the line are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splitting {
    /// Ordinary words.
    Words,
    /// The rules of script commands.
    Script,
}

/// What becomes of a line whose required argument is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// keepalived stops with status 2.
    Fatal,
    /// The line is ignored with a complaint.
    Ignored,
}

/// Whether a keyword should be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It should.
    Current,
    /// Another spelling of the named keyword.
    Alias(&'static str),
    /// An old spelling of the named keyword that is only logged.
    Old(&'static str),
    /// Still understood, with a complaint; the text says what to do instead.
    Deprecated(&'static str),
    /// No keyword any more or never one, but common in files; the text says what to do.
    Unknown(&'static str),
}

/// One row of the table.
#[derive(Debug)]
pub struct Keyword {
    /// The keyword.
    pub name: &'static str,
    /// Where it may stand.
    pub places: &'static [Place],
    /// What follows it.
    pub shape: Shape,
    required: usize,
    /// Its arguments: `<x>` required, `[x]` optional.
    pub args: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
    /// Whether to use it.
    pub status: Status,
    /// How its line is split.
    pub splitting: Splitting,
    /// What a missing argument does.
    pub missing: Missing,
    /// Range and unit of a number, or the longest text.
    pub range: Option<Range>,
    /// What applies when the keyword is absent.
    pub default: DefaultValue,
    /// When another default applies, and which; empty: never.
    pub exception: &'static str,
    /// What the keyword stands for when its optional arguments are absent, if it is as if they had been written.
    pub bare: Option<&'static str>,
    /// First release that knows the keyword; `old`: before 1.2, `unrel`: after 2.4.3,
    /// `director`: not keepalived's, but of the director that this crate is made for.
    pub since: &'static str,
    /// Given twice, the first one stays; otherwise the last one does.
    pub first_wins: bool,
}

impl Keyword {
    /// How many arguments must be there.
    pub fn required(&self) -> usize {
        self.required
    }

    /// The current spelling of an alias, else the name itself.
    pub fn canonical(&self) -> &'static str {
        match self.status {
            Status::Alias(name) | Status::Old(name) => name,
            Status::Current | Status::Deprecated(_) | Status::Unknown(_) => self.name,
        }
    }

    /// The block and its name take exactly one argument, otherwise the block is skipped.
    pub fn is_named_block(&self) -> bool {
        matches!(
            self.name,
            "vrrp_instance" | "vrrp_sync_group" | "track_group"
        )
    }

    /// The release that the dialect stands for knows the keyword.
    pub fn is_known_to(&self, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Newest => true,
            // The build that the dialect stands for has no iptables.
            Dialect::V2_2_7 => self.name != "vrrp_ipsets" && !is_after(self.since, [2, 2, 7]),
        }
    }

    const fn range(mut self, least: i64, most: i64, unit: Unit) -> Self {
        self.range = Some(Range::new(least, most, unit));
        self
    }

    const fn number(self, least: i64, most: i64) -> Self {
        self.range(least, most, Unit::None)
    }

    /// Whole seconds.
    const fn seconds(self, least: i64, most: i64) -> Self {
        self.range(
            least * 1_000_000,
            most.saturating_mul(1_000_000),
            Unit::Seconds(0),
        )
    }

    /// Seconds with three decimals, bounds in microseconds.
    const fn thousandths(self, least: i64, most: i64) -> Self {
        self.range(least, most, Unit::Seconds(3))
    }

    /// Seconds with six decimals, bounds in microseconds.
    const fn decimal(self, least: i64, most: i64) -> Self {
        self.range(least, most, Unit::Seconds(6))
    }

    /// Milliseconds with three decimals, bounds in milliseconds.
    const fn millis(self, least: i64, most: i64) -> Self {
        self.range(least * 1_000, most * 1_000, Unit::Milliseconds(3))
    }

    const fn micros(self, least: i64, most: i64) -> Self {
        self.range(least, most, Unit::Microseconds)
    }

    /// Text that is cut to a number of bytes.
    const fn cut(self, most: i64) -> Self {
        self.range(0, most, Unit::Bytes)
    }

    const fn raised(mut self) -> Self {
        if let Some(range) = &mut self.range {
            range.raise_zero = true;
        }
        self
    }

    const fn clamped(mut self) -> Self {
        if let Some(range) = &mut self.range {
            range.clamp = true;
        }
        self
    }

    const fn default(mut self, text: &'static str) -> Self {
        self.default = DefaultValue::Value(text);
        self
    }

    const fn off(mut self) -> Self {
        self.default = DefaultValue::Off;
        self
    }

    const fn of(mut self, keyword: &'static str) -> Self {
        self.default = DefaultValue::Of(keyword);
        self
    }

    const fn told(mut self, text: &'static str) -> Self {
        self.default = DefaultValue::Told(text);
        self
    }

    const fn except(mut self, exception: &'static str) -> Self {
        self.exception = exception;
        self
    }

    const fn bare(mut self, args: &'static str) -> Self {
        self.bare = Some(args);
        self
    }

    const fn since(mut self, since: &'static str) -> Self {
        self.since = since;
        self
    }

    const fn first(mut self) -> Self {
        self.first_wins = true;
        self
    }

    const fn script(mut self) -> Self {
        self.splitting = Splitting::Script;
        self
    }

    const fn ignored(mut self) -> Self {
        self.missing = Missing::Ignored;
        self
    }

    const fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }
}

/// The row for a keyword at a place. Names that are known only to give a hint are not found here.
pub fn find(place: Place, name: &str) -> Option<&'static Keyword> {
    let rows = &INDEX[place as usize][bucket(name)];
    rows.iter().copied().find(|row| row.name == name)
}

/// Every row of a place, those that are known only to give a hint included.
pub fn at(place: Place) -> impl Iterator<Item = &'static Keyword> {
    TABLE
        .iter()
        .copied()
        .flatten()
        .filter(move |row| row.places.contains(&place))
}

/// What was probably meant by an unknown keyword.
///
/// In order: a name that is known to be a mistake here, a name that belongs elsewhere, the nearest name of this place.
pub fn hint(place: Place, name: &str) -> Option<String> {
    if let Some(row) = at(place).find(|row| row.name == name)
        && let Status::Unknown(what) = row.status
    {
        return Some(what.to_owned());
    }
    let known = |row: &&Keyword| !matches!(row.status, Status::Unknown(_));
    if let Some(row) = TABLE
        .iter()
        .copied()
        .flatten()
        .filter(known)
        .find(|row| row.name == name)
    {
        if row.places.contains(&Place::Top) {
            return Some(format!(
                "`{name}` belongs at the top level, a `}}` may be missing before it"
            ));
        }
        let places: Vec<_> = row
            .places
            .iter()
            .take(4)
            .map(|p| format!("`{p}`"))
            .collect();
        return Some(format!("`{name}` belongs in {}", places.join(", ")));
    }
    nearest(name, at(place).filter(known).map(|row| row.name))
        .map(|near| format!("did you mean `{near}`?"))
}

/// The candidate with the smallest edit distance, if it is small enough to be a slip of the pen.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = name.chars().count();
    let limit = (length / 3).clamp(1, 3);
    if length > LONGEST_GUESS {
        return None;
    }
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance, adjacent transpositions counted as one edit.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

const fn row(
    name: &'static str,
    places: &'static [Place],
    shape: Shape,
    args: &'static str,
    doc: &'static str,
) -> Keyword {
    Keyword {
        name,
        places,
        shape,
        required: required(args),
        args,
        doc,
        status: Status::Current,
        splitting: Splitting::Words,
        missing: Missing::Fatal,
        range: None,
        default: DefaultValue::None,
        exception: "",
        bare: None,
        since: "old",
        first_wins: false,
    }
}

/// The `<x>` of an argument text that are not in `[...]`.
const fn required(args: &str) -> usize {
    let bytes = args.as_bytes();
    let (mut at, mut depth, mut count) = (0, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b'<' if depth == 0 => count += 1,
            _ => {}
        }
        at += 1;
    }
    count
}

/// Whether a release number lies after another one.
fn is_after(since: &str, release: [u32; 3]) -> bool {
    let mut numbers = since.split('.').map(|part| part.parse::<u32>().ok());
    let since = match since {
        "old" => return false,
        "unrel" | "director" => return true,
        _ => [(); 3].map(|()| numbers.next().flatten().unwrap_or(0)),
    };
    since > release
}

const fn leaf(
    name: &'static str,
    places: &'static [Place],
    args: &'static str,
    doc: &'static str,
) -> Keyword {
    row(name, places, Shape::Leaf, args, doc)
}

const fn block(
    name: &'static str,
    places: &'static [Place],
    inside: Place,
    args: &'static str,
    doc: &'static str,
) -> Keyword {
    row(name, places, Shape::Block(inside), args, doc)
}

const fn values(
    name: &'static str,
    places: &'static [Place],
    args: &'static str,
    doc: &'static str,
) -> Keyword {
    row(name, places, Shape::Values, args, doc)
}

fn bucket(name: &str) -> usize {
    let bytes = name.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return 0;
    };
    (usize::from(*first) * 31 + usize::from(*last) * 7 + bytes.len()) % BUCKETS
}

const BUCKETS: usize = 128;
const LONGEST_GUESS: usize = 40;

/// The whole table, in parts by subject.
const TABLE: &[&[Keyword]] = &[
    table::TOP,
    table::GLOBAL,
    table::SMALL,
    table::VRRP,
    table::SERVER,
    table::CHECKER,
];

/// The usable rows of each place, by [`bucket`]. Every line of a configuration asks for one.
static INDEX: LazyLock<Vec<Vec<Vec<&'static Keyword>>>> = LazyLock::new(|| {
    Place::ALL
        .iter()
        .map(|place| {
            let mut buckets = vec![Vec::new(); BUCKETS];
            for row in at(*place).filter(|row| !matches!(row.status, Status::Unknown(_))) {
                buckets[bucket(row.name)].push(row);
            }
            buckets
        })
        .collect()
});

pub(crate) mod preset;
mod range;
mod reference;
mod table;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_has_two_rows_of_one_name() {
        let mut seen = std::collections::HashSet::new();
        for row in TABLE.iter().copied().flatten() {
            for place in row.places {
                assert!(seen.insert((*place, row.name)), "{} in {place}", row.name);
            }
        }
    }

    #[test]
    fn every_alias_names_a_row_of_the_same_place() {
        for row in TABLE.iter().copied().flatten() {
            for place in row.places {
                assert!(
                    find(*place, row.canonical()).is_some()
                        || matches!(row.status, Status::Unknown(_)),
                    "{}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn places_are_listed_in_the_order_of_the_enumeration() {
        for (at, place) in Place::ALL.iter().enumerate() {
            assert_eq!(at, *place as usize);
        }
    }

    #[test]
    fn releases_are_compared_by_number() {
        assert!(is_after("2.2.8", [2, 2, 7]) && is_after("2.10.0", [2, 2, 7]));
        assert!(!is_after("2.2.7", [2, 2, 7]) && !is_after("old", [2, 2, 7]));
        let smtp = find(Place::GlobalDefs, "json_version").unwrap();
        assert!(smtp.is_known_to(Dialect::Newest) && !smtp.is_known_to(Dialect::V2_2_7));
    }

    #[test]
    fn required_arguments_are_counted_from_the_argument_text() {
        assert_eq!(find(Place::Instance, "priority").unwrap().required(), 1);
        assert_eq!(
            find(Place::Instance, "notify_deleted").unwrap().required(),
            0
        );
        assert_eq!(find(Place::HttpUrl, "regex_stack").unwrap().required(), 2);
    }

    #[test]
    fn hints_name_the_nearest_keyword_of_the_same_block() {
        assert_eq!(
            hint(Place::Authentication, "autp_pass").unwrap(),
            "did you mean `auth_pass`?"
        );
        assert_eq!(
            hint(Place::Instance, "preemtp_delay").unwrap(),
            "did you mean `preempt_delay`?"
        );
        assert_eq!(
            hint(Place::Instance, "auth_pass").unwrap(),
            "`auth_pass` belongs in `authentication`"
        );
        assert_eq!(hint(Place::Instance, "//comment"), None);
        assert!(
            hint(Place::VirtualServer, "nat_mask")
                .unwrap()
                .contains("remove")
        );
    }

    #[test]
    fn a_transposition_is_one_edit() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
