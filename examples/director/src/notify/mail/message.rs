//! A mail's text (RFC 5322).

/// One mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When, as RFC 5322 writes it.
    pub date: String,
    /// Sender: an address, or `Name <address>`.
    pub from: String,
    /// Recipients, likewise.
    pub to: Vec<String>,
    /// What it is about.
    pub subject: String,
    /// One line.
    pub body: String,
}

impl Message {
    /// The sender's address alone.
    pub fn envelope_from(&self) -> String {
        envelope(&self.from)
    }

    /// The recipients' addresses alone.
    pub fn envelope_to(&self) -> impl Iterator<Item = String> {
        self.to.iter().map(|to| envelope(to))
    }

    /// Headers and body, with the dot that ends them. Headers stand in keepalived's order.
    pub fn text(&self) -> String {
        let to: Vec<String> = self.to.iter().map(|to| mailbox(to)).collect();
        let mut line = to.join(", ");
        if line.len() > LONGEST_LINE {
            line = to.join(",\r\n ");
        }
        let body = clean(&self.body);
        let stuffing = if body.starts_with('.') { "." } else { "" };
        format!(
            "Date: {}\r\nFrom: {}\r\nSubject: {}\r\nX-Mailer: Keepalived\r\nTo: {line}\r\n\r\n{stuffing}{body}\r\n\r\n.\r\n",
            clean(&self.date),
            mailbox(&self.from),
            clean(&self.subject),
        )
    }
}

/// What stands in the angle brackets, or all of it.
fn envelope(text: &str) -> String {
    let bracketed = text
        .rsplit_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(address, _)| address);
    clean(bracketed.unwrap_or(text)).replace(['<', '>', ' '], "")
}

/// A name with characters that mean something in a list of addresses is quoted.
fn mailbox(text: &str) -> String {
    let text = clean(text);
    let Some((name, address)) = text.rsplit_once('<') else {
        return text;
    };
    let name = name.trim();
    let is_quoted = name.len() > 1 && name.starts_with('"') && name.ends_with('"');
    let needs_quotes = name.contains(|character: char| SPECIAL.contains(character));
    if is_quoted || !needs_quotes {
        return text;
    }
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\" <{address}")
}

/// Nothing that could begin another line.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .collect()
}

/// RFC 5322 section 3.2.3.
const SPECIAL: &str = "()<>[]:;@\\,.\"";

/// RFC 5322 section 2.1.1, less the header's name.
const LONGEST_LINE: usize = 74;

/// The date of RFC 5322 section 3.3.
pub(super) fn date(time: &super::super::sys::LocalTime) -> String {
    let (sign, offset) = (
        if time.offset < 0 { '-' } else { '+' },
        time.offset.unsigned_abs() / 60,
    );
    format!(
        "{}, {:02} {} {} {:02}:{:02}:{:02} {sign}{:02}{:02}",
        DAYS[time.weekday % 7],
        time.day,
        MONTHS[time.month % 12],
        time.year,
        time.hour,
        time.minute,
        time.second,
        offset / 60,
        offset % 60
    )
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::sys::LocalTime;

    #[test]
    fn an_address_in_brackets_is_what_the_server_hears() {
        for (text, address) in [
            ("a@b", "a@b"),
            ("Name <a@b>", "a@b"),
            ("\"N, <x>\" <a@b>", "a@b"),
            ("<a@b>", "a@b"),
            ("a@b\r\nRCPT TO:<c@d>", "c@d"),
            ("Name <a@b", "Namea@b"),
        ] {
            assert_eq!(envelope(text), address, "{text}");
        }
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(mailbox("Lvs Admin <a@b>"), "Lvs Admin <a@b>");
        assert_eq!(mailbox("Admin, Lvs <a@b>"), "\"Admin, Lvs\" <a@b>");
        assert_eq!(mailbox("\"Admin, Lvs\" <a@b>"), "\"Admin, Lvs\" <a@b>");
        assert_eq!(mailbox("A \"x\" <a@b>"), "\"A \\\"x\\\"\" <a@b>");
    }

    #[test]
    fn no_value_begins_another_line() {
        let message = Message {
            date: "d".to_owned(),
            from: "a@b\nX: y".to_owned(),
            to: vec!["c@d".to_owned()],
            subject: "s\r\nBcc: e@f".to_owned(),
            body: ".\r\n.\r\nQUIT".to_owned(),
        };
        assert_eq!(
            message.text(),
            "Date: d\r\nFrom: a@bX: y\r\nSubject: sBcc: e@f\r\nX-Mailer: Keepalived\r\nTo: c@d\r\n\r\n...QUIT\r\n\r\n.\r\n"
        );
    }

    #[test]
    fn many_recipients_stand_on_lines_of_their_own() {
        let to: Vec<String> = (0..40).map(|n| format!("admin{n}@example.org")).collect();
        let message = Message {
            date: "d".to_owned(),
            from: "a@b".to_owned(),
            to,
            subject: "s".to_owned(),
            body: "b".to_owned(),
        };
        let text = message.text();
        assert!(text.lines().all(|line| line.len() <= 78));
        assert!(text.ends_with(" admin39@example.org\r\n\r\nb\r\n\r\n.\r\n"));
    }

    #[test]
    fn dates_have_their_zone() {
        let time = LocalTime {
            year: 2026,
            month: 10,
            day: 5,
            hour: 9,
            minute: 8,
            second: 7,
            weekday: 4,
            offset: -(3 * 3600 + 1800),
        };
        assert_eq!(date(&time), "Thu, 05 Nov 2026 09:08:07 -0330");
    }
}
