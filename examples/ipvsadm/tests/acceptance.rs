//! Against a stand-in for the director: the listings and exit statuses that the real ipvsadm gave for the same rules
//! (`$LVS_SHARED/corpus/ipvsadm`), and the binary itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them")]

mod fake;
mod generated;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use ipvsadm::listing::names::Names;
use ipvsadm::protocol::{ConnectionInfo, Reply, SocketAddress};
use ipvsadm::run::run;

use fake::{FakeDirector, Folder, answer};

#[test]
fn recorded_listings_come_out_to_the_byte() {
    let Some(corpus) = corpus() else { return };
    let director = FakeDirector::with_rules("golden", &rules(&corpus));
    let mut compared = 0;
    for file in fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap().to_owned();
        // The kernel's hash order is tested below.
        if !name.ends_with(".txt") || name == "Ln--nosort.txt" {
            continue;
        }
        let recorded = fs::read_to_string(&path).unwrap();
        assert_eq!(replay(&recorded, &director), recorded, "{name}");
        compared += 1;
    }
    assert!(compared >= 18, "only {compared} listings found");
}

#[test]
fn nosort_keeps_the_kernels_order() {
    let Some(corpus) = corpus() else { return };
    let director = FakeDirector::with_rules("nosort", &rules(&corpus));
    // Real servers stand newest first, services in the order of the kernel's hash table.
    director.change(|services| {
        let mut rest: Vec<_> = services.drain(..).map(Some).collect();
        services.extend(
            [2, 0, 1, 5, 6, 3, 4]
                .into_iter()
                .map(|index: usize| rest[index].take().unwrap()),
        );
    });
    let recorded = fs::read_to_string(corpus.join("Ln--nosort.txt")).unwrap();
    assert_eq!(replay(&recorded, &director), recorded);
}

#[test]
fn exit_statuses_are_the_originals() {
    let Some(corpus) = corpus() else { return };
    let director = FakeDirector::with_rules("status", &rules(&corpus));
    let table = fs::read_to_string(corpus.join("exit-status.tsv")).unwrap();
    let mut compared = 0;
    for line in table.lines().skip(1) {
        let (arguments, status) = line.rsplit_once('\t').unwrap();
        let (_, actual) = in_process(arguments, &director.address);
        assert_eq!(actual.to_string(), status, "ipvsadm {arguments}");
        compared += 1;
    }
    assert!(compared >= 24, "only {compared} lines found");
}

#[test]
fn what_was_saved_restores_to_the_same() {
    let Some(corpus) = corpus() else { return };
    let director = FakeDirector::with_rules("round", &rules(&corpus));
    for options in ["-S -n", "-S"] {
        let saved = done(options, &director);
        done("-C", &director);
        assert_eq!(done(options, &director), "");
        assert_eq!(restore(&saved, &director), (String::new(), 0));
        assert_eq!(done(options, &director), saved, "{options}");
    }
}

#[test]
fn a_thousand_services_survive_save_and_restore() {
    let director = FakeDirector::with_rules("thousand", "");
    let rules = generated::rules(1000, &fake::SCHEDULERS);
    assert_eq!(restore(&rules, &director), (String::new(), 0));
    let saved = done("-S -n", &director);
    assert_eq!(
        saved.lines().filter(|line| line.starts_with("-A")).count(),
        1000
    );
    assert_eq!(saved.lines().count(), rules.lines().count());
    done("-C", &director);
    assert_eq!(restore(&saved, &director), (String::new(), 0));
    assert_eq!(done("-S -n", &director), saved);
}

#[test]
fn restore_takes_lines_as_the_original_does() {
    let director = FakeDirector::with_rules("lines", "");
    let lines = "\
# a comment\r
ipvsadm -A -t 192.0.2.1:80 -s rr\r

\t-a -t\t192.0.2.1:80   -r 10.0.0.1:80 -m ipvsadm
-L -n
--set 10 20 30";
    let (text, status) = restore(lines, &director);
    assert_eq!(status, 0);
    assert_eq!(
        text,
        "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.1:80 rr
  -> 10.0.0.1:80                  Masq    1      0          0         
"
    );
    assert_eq!(
        done("-L --timeout", &director),
        "Timeout (tcp tcpfin udp): 10 20 30\n"
    );
    assert_eq!(restore("", &director), (String::new(), 0));
}

#[test]
fn restore_goes_on_after_a_refusal_and_says_where_it_was() {
    let director = FakeDirector::with_rules("refusals", "");
    let lines = "\
-A -t 192.0.2.1:80 -s rr
-A -t 192.0.2.1:80 -s rr
-A -t 192.0.2.2:80 -s nosuch
-a -t 192.0.2.3:80 -r 10.0.0.1
-d -t 192.0.2.1:80 -r 10.0.0.1:80
-A -t 192.0.2.4:80 --nonsense
-E -t
-A -t 192.0.2.5:80
";
    let expected = "\
Service already exists (line 2)
Scheduler or persistence engine not found: unknown scheduler (line 3)
Service not defined (line 4)
No such destination (line 5)
ipvsadm: line 6: --nonsense: unknown option
ipvsadm: line 7: -t: missing argument
";
    assert_eq!(restore(lines, &director), (expected.into(), 0));
    let saved = done("-Sn", &director);
    assert_eq!(
        saved,
        "-A -t 192.0.2.1:80 -s rr\n-A -t 192.0.2.5:80 -s wlc\n"
    );
    // The status is the last line's.
    for (last, status) in [
        ("-A -t 192.0.2.1:80", 255),
        ("-L -t 192.0.2.99:80", 1),
        ("-L -q", 255),
        ("-L --timeout", 0),
    ] {
        let lines = format!("-A -t 192.0.2.1:80\n{last}");
        assert_eq!(restore(&lines, &director).1, status, "{last}");
    }
}

#[test]
fn restore_stops_at_a_line_that_makes_no_sense() {
    let director = FakeDirector::with_rules("fatal", "");
    for (number, (wrong, status)) in [
        ("-A -t 192.0.2.1", 2),
        ("-A -t 192.0.2.1:80 word", 2),
        ("-a -t 192.0.2.1:80", 2),
        ("-R", 255),
        ("word", 255),
        ("-n -L", 255),
    ]
    .into_iter()
    .enumerate()
    {
        let lines = format!("-A -f {}\n{wrong}\n-A -f 99\n", number + 1);
        let (text, actual) = restore(&lines, &director);
        assert_eq!(actual, status, "{wrong}");
        assert!(text.starts_with("ipvsadm: line 2: "), "{text}");
    }
    let saved = done("-Sn", &director);
    assert_eq!(saved.lines().count(), 6, "lines before stay applied");
    assert!(!saved.contains("-f 99"));
    let long = format!("-A -f 50\n-A -t {}", "x".repeat(1 << 17));
    let (text, status) = restore(&long, &director);
    assert_eq!(
        (text.as_str(), status),
        ("ipvsadm: line 2: the line is too long\n", 2)
    );
    assert!(done("-Sn", &director).contains("-f 50"));
}

/// Whoever writes lines slowly sees each carried out at once.
#[test]
fn restore_does_not_wait_for_the_end() {
    let director = FakeDirector::with_rules("slow", "");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ipvsadm"))
        .arg("-R")
        .env("LVS_SOCKET", director.address.to_string())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for mark in 1..=3 {
        writeln!(input, "-A -f {mark}").unwrap();
        let started = std::time::Instant::now();
        while director.services().len() < mark {
            assert!(
                started.elapsed().as_secs() < 10,
                "line {mark} is not carried out"
            );
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    drop(input);
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(errors, "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn every_edit_arrives() {
    let director = FakeDirector::with_rules("edits", "");
    for (arguments, saved) in [
        ("-A -t 192.0.2.1:80 -s rr", "-A -t 192.0.2.1:80 -s rr\n"),
        (
            "-E -t 192.0.2.1:80 -s wrr -p 9",
            "-A -t 192.0.2.1:80 -s wrr -p 9\n",
        ),
        ("-E -t 192.0.2.1:80", "-A -t 192.0.2.1:80 -s wlc\n"),
        (
            "-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m -w 5",
            "-A -t 192.0.2.1:80 -s wlc\n-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m -w 5\n",
        ),
        (
            "-e -t 192.0.2.1:80 -r 10.0.0.1:8080 -m",
            "-A -t 192.0.2.1:80 -s wlc\n-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m -w 1\n",
        ),
        (
            "-d -t 192.0.2.1:80 -r 10.0.0.1:8080",
            "-A -t 192.0.2.1:80 -s wlc\n",
        ),
        ("-D -t 192.0.2.1:80", ""),
    ] {
        assert_eq!(done(arguments, &director), "", "{arguments}");
        assert_eq!(done("-Sn", &director), saved, "{arguments}");
    }
    done("-Z", &director);
    done("--set 0 60 0", &director);
    assert_eq!(
        done("-L --timeout", &director),
        "Timeout (tcp tcpfin udp): 900 60 300\n"
    );
}

#[test]
fn an_engine_without_persistence_is_saved_and_not_listed() {
    let director = FakeDirector::with_rules("engine", "");
    let rules = "\
-A -u 192.0.2.1:5060 -s rr --pe sip -o
-A -u 192.0.2.2:5060 -s rr -p 60 -M 255.255.255.0 --pe sip -o -b flag-1
";
    assert_eq!(restore(rules, &director), (String::new(), 0));
    assert_eq!(done("-Sn", &director), rules);
    let listing = done("-Ln", &director);
    let lines: Vec<&str> = listing.lines().skip(3).collect();
    assert_eq!(
        lines,
        [
            "UDP  192.0.2.1:5060 rr ops",
            "UDP  192.0.2.2:5060 rr (flag-1) persistent 60 mask 255.255.255.0 pe sip ops"
        ]
    );
}

/// Parsers that were written for the original read columns by their number.
#[test]
fn awk_reads_what_it_read_before() {
    let Some(corpus) = corpus() else { return };
    let director = FakeDirector::with_rules("awk", &rules(&corpus));
    let listing = done("-Ln", &director);
    let program = "/^(TCP|UDP|FWM)/ {service = $2} $3 == \"Masq\" {print service, $2, $4}";
    let awk = Command::new("awk")
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut awk = match awk {
        Ok(awk) => awk,
        Err(error) => return println!("skipped: awk can't be started: {error}"),
    };
    awk.stdin
        .take()
        .unwrap()
        .write_all(listing.as_bytes())
        .unwrap();
    let output = awk.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text,
        "\
192.0.2.10:80 10.1.0.2:80 1
192.0.2.10:80 10.1.0.3:8080 3
[2001:db8::10]:80 [fd00:1::2]:80 5
"
    );
}

#[test]
fn sync_daemons_are_refused() {
    let director = FakeDirector::with_rules("daemons", "");
    let (text, status) = in_process("--stop-daemon backup", &director.address);
    assert_eq!((text.as_str(), status), ("No daemon is running\n", 255));
    let (text, status) = in_process("--start-daemon master", &director.address);
    assert_eq!(
        (text.as_str(), status),
        ("ipvsadm: this director has no connection sync yet\n", 255)
    );
}

#[test]
fn the_binary_lists_what_the_director_says() {
    let connection = ConnectionInfo {
        protocol: 6,
        client: "203.0.113.5:50000".parse().unwrap(),
        vip: "192.0.2.10:80".parse().unwrap(),
        destination: "10.0.0.11:8080".parse().unwrap(),
        local: None,
        state: "ESTABLISHED".into(),
        expires: 894,
        engine: None,
    };
    let rules = "-A -t 192.0.2.10:80 -s wlc\n-a -t 192.0.2.10:80 -r 10.0.0.11:8080 -m -w 2\n";
    let director = FakeDirector::with_rules("binary", rules);
    director.set_connections(vec![connection; 5000]);

    let output = binary(&["-Ln"], &director.address.to_string());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.10:80 wlc
  -> 10.0.0.11:8080               Masq    2      0          0         
"
    );
    assert!(output.stderr.is_empty());

    let output = binary(&["-Lnc"], &director.address.to_string());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 5002);
    assert!(text.ends_with(
        "\nTCP 14:54  ESTABLISHED 203.0.113.5:50000  192.0.2.10:80      10.0.0.11:8080\n"
    ));

    let output = binary(
        &["-L", "-t", "192.0.2.99:80"],
        &director.address.to_string(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"No such service\n");
    assert!(output.stdout.is_empty());
}

#[test]
fn without_a_director_the_binary_says_where_it_looked() {
    let output = binary(&["-Ln"], "@lvs-no-director-here");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.starts_with("ipvsadm: can't reach the director at @lvs-no-director-here: "));
    assert!(text.contains("LVS_SOCKET"));
}

#[test]
fn help_and_version_need_no_director() {
    for argument in ["-h", "--help", "-v", "--version"] {
        let output = binary(&[argument], "@lvs-no-director-here");
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert!(output.stdout.starts_with(b"ipvsadm v"), "{argument}");
    }
}

#[test]
fn changes_need_a_director() {
    for arguments in [
        &["-C"][..],
        &["-A", "-t", "192.0.2.10:80"],
        &["-S"],
        &["-R"],
    ] {
        let output = binary(arguments, "@lvs-no-director-here");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            output
                .stderr
                .starts_with(b"ipvsadm: can't reach the director")
        );
    }
}

#[test]
fn a_director_of_another_version_is_reported() {
    let folder = Folder::new("older");
    let address = SocketAddress::Path(folder.0.join("socket"));
    let socket = address.bind().unwrap();
    thread::spawn(move || {
        for stream in socket.incoming() {
            answer(stream.unwrap(), |_| vec![Reply::unknown("services")]);
        }
    });
    let (text, status) = in_process("-Ln", &address);
    assert_eq!(status, 1);
    assert_eq!(
        text,
        "ipvsadm: the director refused: unknown operation 'services'\n"
    );
    assert_eq!(
        in_process("-C", &address),
        (
            "ipvsadm: this director is too old to be edited\n".into(),
            255
        )
    );
}

/// The recorded command's output here, in the form of a recording.
fn replay(recorded: &str, director: &FakeDirector) -> String {
    let first = recorded.lines().next().unwrap();
    let arguments = first.strip_prefix("$ ipvsadm").unwrap();
    let (text, status) = in_process(arguments, &director.address);
    format!("{first}\n{text}exit {status}\n")
}

/// Both outputs together and the exit status, with the names of a usual system.
fn in_process(arguments: &str, address: &SocketAddress) -> (String, u8) {
    run_with(arguments, "", address)
}

fn run_with(arguments: &str, input: &str, address: &SocketAddress) -> (String, u8) {
    let names = Names::new(
        "domain 53/tcp\ndomain 53/udp\nhttp 80/tcp www\nhttps 443/tcp\nhttp-alt 8080/tcp webcache\n",
        "127.0.0.1 localhost\n",
    );
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let status = run(
        arguments.split_whitespace(),
        address,
        &names,
        input.as_bytes(),
        &mut output,
        &mut errors,
    );
    output.append(&mut errors);
    (String::from_utf8(output).unwrap(), status)
}

/// What a command prints that must succeed.
fn done(arguments: &str, director: &FakeDirector) -> String {
    let (text, status) = in_process(arguments, &director.address);
    assert_eq!(status, 0, "ipvsadm {arguments}: {text}");
    text
}

fn restore(lines: &str, director: &FakeDirector) -> (String, u8) {
    run_with("-R", lines, &director.address)
}

fn rules(corpus: &Path) -> String {
    fs::read_to_string(corpus.join("rules")).unwrap()
}

fn binary(arguments: &[&str], socket: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipvsadm"))
        .args(arguments)
        .env("LVS_SOCKET", socket)
        .output()
        .unwrap()
}

/// The recordings. They lie beside the repository; where they must not be missing, `CI` is `true`.
fn corpus() -> Option<PathBuf> {
    let shared = env::var_os("LVS_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let corpus = shared.join("corpus/ipvsadm");
    if corpus.is_dir() {
        return Some(corpus);
    }
    let message = format!("no recordings at {} (LVS_SHARED)", corpus.display());
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{message}");
    println!("skipped: {message}");
    None
}
