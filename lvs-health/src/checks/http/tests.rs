use super::*;
use proptest::prelude::*;
use std::ops::RangeInclusive;

/// One attempt against a server that sends these segments and then closes, unless it keeps the connection open.
fn verdict(config: HttpConfig, segments: &[&[u8]], closes: bool) -> Outcome {
    let mut check = HttpCheck::new(config).unwrap();
    check.begin(&Attempt::new("127.0.0.1:80".parse().unwrap(), 0));
    assert!(matches!(check.handle_connected(), Next::Send(_)));
    for segment in segments {
        if let Next::Done(outcome) = check.handle_data(segment) {
            return outcome;
        }
    }
    if closes {
        check.handle_closed()
    } else {
        check.handle_timeout()
    }
}

fn asking(rules: HttpRules, digest: Option<&str>, statuses: &[RangeInclusive<u16>]) -> HttpConfig {
    let mut url = Url::new("/");
    url.digest = digest.map(|text| text.parse().unwrap());
    if !statuses.is_empty() {
        url.status = StatusSet::new(statuses.iter().cloned()).unwrap();
    }
    HttpConfig {
        rules,
        ..HttpConfig::new(vec![url])
    }
}

const HELLO: &str = "5d41402abc4b2a76b9719d911017c592";
const EMPTY: &str = "d41d8cd98f00b204e9800998ecf8427e";

#[test]
fn verdicts_are_those_observed_of_keepalived() {
    use Failure::{BadStatus, BadStatusLine, DigestMismatch, NoData, ReadTimeout};
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\nhello", "x".repeat(5000));
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\nhello", "x".repeat(66000));
    let upper = HELLO.to_uppercase();
    let zeros = "0".repeat(32);
    let down = Outcome::Down;
    let up = || Outcome::Up;
    // response, digest, statuses, closes, historical verdict, default verdict
    type Row<'a> = (
        &'a str,
        Option<&'a str>,
        &'a [RangeInclusive<u16>],
        bool,
        Outcome,
        Outcome,
    );
    let table: Vec<Row<'_>> = vec![
        ("HTTP/1.1 200 OK\r\n\r\nhello", None, &[], true, up(), up()),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            Some(HELLO),
            &[],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            Some(&upper),
            &[],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello",
            Some("46356afe55fa3cea9cbe73ad442cad47"),
            &[],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
            Some(HELLO),
            &[],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Some("79e9489e3bd3f0cb0158215341de046d"),
            &[],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            None,
            &[],
            false,
            down(ReadTimeout),
            up(),
        ),
        (
            "HTTP/1.1 200\r\n\r\nhello",
            None,
            &[],
            true,
            down(BadStatusLine),
            up(),
        ),
        ("HTTP/1.1 200 \r\n\r\nhello", None, &[], true, up(), up()),
        (
            "HTTP/1.1 200 OK\n\nhello",
            None,
            &[],
            true,
            down(NoData),
            down(NoData),
        ),
        ("", None, &[], true, down(NoData), down(NoData)),
        (
            "HTTP/1.1 200 OK\r\nServer: x\r\n",
            None,
            &[],
            true,
            down(NoData),
            down(NoData),
        ),
        (&long, None, &[], true, down(NoData), up()),
        (&huge, None, &[], true, down(NoData), down(NoData)),
        ("HTTP/1.1 200 OK\r\n\r\n", None, &[], true, up(), up()),
        (
            "HTTP/1.1 200 OK\r\n\r\n",
            Some(EMPTY),
            &[],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 302 Found\r\n\r\n",
            None,
            &[],
            true,
            down(BadStatus(302)),
            down(BadStatus(302)),
        ),
        (
            "HTTP/1.1 302 Found\r\n\r\n",
            None,
            &[200..=302],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 404 No\r\n\r\n",
            None,
            &[],
            true,
            down(BadStatus(404)),
            down(BadStatus(404)),
        ),
        (
            "HTTP/1.1 404 No\r\n\r\n",
            None,
            &[404..=404],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 404 No\r\n\r\n",
            None,
            &[200..=200, 404..=405, 503..=503],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\n",
            None,
            &[],
            true,
            up(),
            up(),
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\n",
            None,
            &[],
            false,
            down(ReadTimeout),
            up(),
        ),
        ("HTTP/1.1 299 x\r\n\r\n", None, &[], true, up(), up()),
        (
            "HTTP/1.1 300 x\r\n\r\n",
            None,
            &[],
            true,
            down(BadStatus(300)),
            down(BadStatus(300)),
        ),
        (
            "HTTP/1.1 99 x\r\n\r\n",
            None,
            &[],
            true,
            down(BadStatusLine),
            down(BadStatusLine),
        ),
        (
            "HTTP/1.1 1000 x\r\n\r\n",
            None,
            &[],
            true,
            down(BadStatusLine),
            down(BadStatusLine),
        ),
        (
            "HTTP/1.1 200 OK\r\nX: y",
            None,
            &[],
            false,
            down(ReadTimeout),
            down(ReadTimeout),
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nhello",
            Some(&zeros),
            &[],
            true,
            down(DigestMismatch),
            down(DigestMismatch),
        ),
        ("nonsense 200 OK\r\n\r\n", None, &[], true, up(), up()),
        (" 200 OK\r\n\r\n", None, &[], true, up(), up()),
        (
            "HTTP/1.1\r\nX: 200 OK\r\n\r\n",
            None,
            &[],
            true,
            down(BadStatusLine),
            down(BadStatusLine),
        ),
        (
            "\r\n\r\n",
            None,
            &[],
            true,
            down(BadStatusLine),
            down(BadStatusLine),
        ),
    ];
    for (response, digest, statuses, closes, historical, default) in table {
        let shown = &response[..response.len().min(60)];
        let bytes = response.as_bytes();
        for (rules, wanted) in [
            (HttpRules::keepalived(), historical),
            (HttpRules::default(), default),
        ] {
            let config = asking(rules, digest, statuses);
            let whole: &[&[u8]] = if bytes.is_empty() { &[] } else { &[bytes] };
            assert_eq!(
                verdict(config.clone(), whole, closes),
                wanted,
                "{shown:?} at once"
            );
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(
                verdict(config, &single, closes),
                wanted,
                "{shown:?} byte by byte"
            );
        }
    }
}

#[test]
fn header_of_exactly_the_limit_is_accepted() {
    let filler = "HTTP/1.0 200 OK\r\nX: \r\n\r\n".len();
    for (size, good) in [(4094, true), (4095, true), (4096, false)] {
        let text = format!(
            "HTTP/1.0 200 OK\r\nX: {}\r\n\r\n",
            "y".repeat(size - filler)
        );
        let outcome = verdict(
            asking(HttpRules::keepalived(), None, &[]),
            &[text.as_bytes(), b"body"],
            true,
        );
        assert_eq!(outcome == Outcome::Up, good, "{size} bytes");
    }
}

#[test]
fn body_digests_match_the_reference_values() {
    let table: [(Vec<u8>, &str); 12] = [
        (b"".to_vec(), EMPTY),
        (b"hello".to_vec(), HELLO),
        (b"hello\n".to_vec(), "b1946ac92492d2347c6235b4d2611184"),
        (b"hello\r\n".to_vec(), "af5597c29467a96523a70787c319f4db"),
        ("\u{e9}".into(), "66ddcd97cfdeabb2f6fb8a999b4bc76f"),
        (vec![0; 16], "4ae71336e44bf9bf79d2752e234818a5"),
        ((0..=255).collect(), "e2c865db4162bed963bfaa9ef6ac18f0"),
        (vec![b'a'; 4095], "559110baa849c7608ee70abe1d76273e"),
        (vec![b'a'; 4096], "21a199c53f422a380e20b162fb6ebe9c"),
        (vec![b'a'; 4097], "8cfc1a0bd8cd76599e76e5e721c6e62e"),
        (
            b"0123456789".repeat(10000),
            "13572e9e296cff52b79c52148313c3a5",
        ),
        (vec![0; 1 << 20], "b6d81b360a5672d80c27430f39153e2c"),
    ];
    for (body, digest) in table {
        let config = asking(HttpRules::keepalived(), Some(digest), &[]);
        let mut segments: Vec<&[u8]> = vec![b"HTTP/1.0 200 OK\r\n\r\n"];
        segments.extend(body.chunks(1460));
        assert_eq!(
            verdict(config, &segments, true),
            Outcome::Up,
            "{} bytes",
            body.len()
        );
    }
}

#[test]
fn requests_have_the_observed_bytes() {
    let request = |config: HttpConfig, destination: &str| {
        let mut check = HttpCheck::new(config).unwrap();
        check.begin(&Attempt::new(destination.parse().unwrap(), 0));
        match check.handle_connected() {
            Next::Send(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let with_host = |path, host: &str, protocol| HttpConfig {
        protocol,
        virtualhost: Some(host.to_owned()),
        ..HttpConfig::new(vec![Url::new(path)])
    };
    assert_eq!(
        request(
            with_host("/a?b=c", "vs.example", HttpProtocol::Http10),
            "10.0.0.1:80"
        ),
        "GET /a?b=c HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: vs.example\r\n\r\n"
    );
    assert_eq!(
        request(
            with_host("/hello", "rs.example", HttpProtocol::Http11),
            "10.0.0.1:80"
        ),
        "GET /hello HTTP/1.1\r\nUser-Agent: KeepAliveClient\r\nConnection: close\r\nHost: rs.example\r\n\r\n"
    );
    assert_eq!(
        request(
            with_host("/", "x", HttpProtocol::Http10Close),
            "10.0.0.1:80"
        ),
        "GET / HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nConnection: close\r\nHost: x\r\n\r\n"
    );
    let plain = HttpConfig::new(vec![Url::new("/")]);
    assert_eq!(
        request(plain.clone(), "[::1]:8006"),
        "GET / HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: [::1]:8006\r\n\r\n"
    );
    assert!(request(plain.clone(), "10.0.0.1:80").contains("Host: 10.0.0.1:80\r\n"));
    assert!(request(plain, "[fe80::1%3]:80").contains("Host: [fe80::1]:80\r\n"));
}

#[test]
fn unusable_configurations_are_refused() {
    let with_path = |path: &str| {
        HttpCheck::new(HttpConfig::new(vec![Url::new("/"), Url::new(path)])).unwrap_err()
    };
    assert_eq!(
        HttpCheck::new(HttpConfig::new(vec![])).unwrap_err(),
        HttpConfigError::NoUrl
    );
    assert_eq!(with_path(""), HttpConfigError::NoPath { url: 1 });
    assert_eq!(
        with_path("/\r\nX: y"),
        HttpConfigError::ControlCharacter { url: 1 }
    );
    assert_eq!(
        with_path(&"/".repeat(2000)),
        HttpConfigError::RequestTooLong { url: 1 }
    );
    assert!(
        "5d41402abc4b2a76b9719d911017c59"
            .parse::<BodyDigest>()
            .is_err()
    );
    assert!(
        "+d41402abc4b2a76b9719d911017c592"
            .parse::<BodyDigest>()
            .is_err()
    );
    assert!(StatusSet::new([99..=200]).is_err());
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = StatusSet::new([300..=200]);
    assert!(reversed.is_err());
}

#[test]
fn a_differing_length_is_noted_once() {
    let mut check = HttpCheck::new(asking(HttpRules::keepalived(), None, &[])).unwrap();
    let mut notes = Vec::new();
    for body in ["hello", "hello", "hell"] {
        check.begin(&Attempt::new("127.0.0.1:80".parse().unwrap(), 0));
        check.handle_data(format!("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n{body}").as_bytes());
        assert_eq!(check.handle_closed(), Outcome::Up);
        notes.extend(check.poll_note());
    }
    let lengths: Vec<_> = notes
        .into_iter()
        .map(|Note::BodyLength { received, .. }| received)
        .collect();
    assert_eq!(lengths, [5, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Nor does any response cause a panic.
    #[test]
    fn verdict_does_not_depend_on_how_the_response_is_cut(
        pieces in prop::collection::vec(
            prop_oneof![
                Just(b"HTTP/1.1 200 OK".to_vec()),
                Just(b"\r\n".to_vec()),
                Just(b"\r\n\r\n".to_vec()),
                Just(b"Content-Length: ".to_vec()),
                Just(b"5".to_vec()),
                Just(b"hello".to_vec()),
                prop::collection::vec(any::<u8>(), 0..40),
            ],
            0..12,
        ),
        cuts in prop::collection::vec(1usize..9, 1..6),
        historical: bool,
        closes: bool,
    ) {
        let rules = if historical { HttpRules::keepalived() } else { HttpRules::default() };
        let rules = HttpRules { header_limit: 60, ..rules };
        let bytes = pieces.concat();
        let mut rest = &bytes[..];
        let mut segments = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (segment, left) = rest.split_at((*cut).min(rest.len()));
            segments.push(segment);
            rest = left;
        }
        let whole: &[&[u8]] = if bytes.is_empty() { &[] } else { &[&bytes] };
        let config = asking(rules, Some(HELLO), &[]);
        prop_assert_eq!(verdict(config.clone(), whole, closes), verdict(config, &segments, closes));
    }
}
