//! Real servers on loopback, ended with the value that stands for them.
#![allow(clippy::unwrap_used)] // without a test in this file clippy does not see that it belongs to tests

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A process, killed when dropped, and where it listens.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) address: SocketAddr,
    _dir: Option<Dir>,
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A directory, removed when dropped.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lvs-health-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Says so if a program is not here; on a machine that is to have all of them this is a failure.
pub(crate) fn skip_without(program: &str) -> bool {
    let found = match program {
        "aiosmtpd" => Command::new(PYTHON)
            .args(["-c", "import aiosmtpd"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success()),
        program => ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]
            .iter()
            .any(|dir| Path::new(dir).join(program).exists()),
    };
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing");
        println!("skipped: {program} is not installed");
    }
    !found
}

/// A server of this process: each connection on a thread of its own.
pub(crate) fn serve(answer: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

/// An executable file. Another process writes it: a program that this one started meanwhile would hold it open for
/// writing, and then it could not be run.
pub(crate) fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(shell.wait().unwrap().success());
}

/// nginx with a page `/` of `hello`, `/broken` of 500, nothing else, and 503 for the host `other.example`.
#[derive(Debug)]
pub(crate) struct Nginx {
    _process: Child,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

pub(crate) fn nginx() -> Nginx {
    let dir = certificates();
    let (http, https) = (free_port(), free_port());
    let root = dir.path().display();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/log;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;\n\
         uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;\n\
         server {{ listen {http} default_server; listen {https} ssl default_server; ssl_certificate {root}/server.pem;\n\
         ssl_certificate_key {root}/server.key; location = / {{ return 200 hello; }} location = /broken {{ return 500; }}\n\
         location / {{ return 404; }} }}\n\
         server {{ listen {http}; server_name other.example; location / {{ return 503; }} }} }}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(&file).arg("-p").arg(dir.path());
    let process = start(command, http, Some(dir));
    wait_for_port(https);
    Nginx {
        _process: process,
        http,
        https,
    }
}

/// A directory with `ca.pem`, and `server`, `client`, `expired`, `self` as `.pem` and `.key`.
pub(crate) fn certificates() -> Dir {
    let dir = Dir::new("tls");
    let openssl = |arguments: &str| {
        let status = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "openssl {arguments}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -days 30 -addext basicConstraints=critical,CA:TRUE"
    ));
    openssl(&format!(
        "req -x509 {key} -keyout self.key -out self.pem -subj /CN=self -days 30"
    ));
    std::fs::write(
        dir.path().join("extensions"),
        "subjectAltName=DNS:web.example\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    for name in ["server", "client", "expired"] {
        openssl(&format!(
            "req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
    }
    for name in ["server", "client"] {
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 30 -extfile extensions"
        ));
    }
    // `x509` knows no dates in the past; `ca` does.
    std::fs::write(
        dir.path().join("ca.conf"),
        "[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=.\ndatabase=index\nserial=serial\ndefault_md=sha256\npolicy=p\n\
         x509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:web.example\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("index"), "").unwrap();
    std::fs::write(dir.path().join("serial"), "1000\n").unwrap();
    openssl(
        "ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in expired.csr -out expired.pem -notext \
         -startdate 20200101000000Z -enddate 20200201000000Z",
    );
    dir
}

/// `openssl s_server` with a page for everybody.
pub(crate) fn tls_server(dir: &Path, name: &str, more: &[&str]) -> Child {
    let address = free_port();
    let mut command = Command::new("openssl");
    command
        .args([
            "s_server",
            "-quiet",
            "-www",
            "-accept",
            &address.to_string(),
        ])
        .args([
            "-cert",
            &format!("{name}.pem"),
            "-key",
            &format!("{name}.key"),
        ])
        .args(more)
        .current_dir(dir);
    start(command, address, None)
}

pub(crate) fn smtp_server() -> Child {
    let address = free_port();
    let mut command = Command::new(PYTHON);
    command
        .args(["-m", "aiosmtpd", "-n", "-l", &address.to_string()])
        .args(["-c", "aiosmtpd.handlers.Sink"]);
    start(command, address, None)
}

/// dnsmasq that knows `web.example`, nothing else below `example`, and refuses all the rest.
pub(crate) fn name_server() -> Child {
    let address = free_port();
    let mut command = Command::new("/usr/sbin/dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=",
        "--pid-file",
        "--bind-interfaces",
        "--listen-address=127.0.0.1",
        "--local=/example/",
        "--address=/web.example/192.0.2.1",
        &format!("--port={}", address.port()),
    ]);
    start(command, address, None)
}

pub(crate) fn udp_echo() -> Child {
    let address = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = Command::new("socat");
    command.arg(format!(
        "UDP4-RECVFROM:{},bind=127.0.0.1,fork",
        address.port()
    ));
    command.arg("EXEC:cat");
    let child = spawn(command, address, None);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(10);
    while Instant::now() < limit {
        let _ = client.send_to(b"there?", address);
        if client.recv(&mut [0; 16]).is_ok() {
            return child;
        }
    }
    panic!("no echo");
}

pub(crate) fn wait_for_port(address: SocketAddr) {
    let limit = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < limit, "nobody listens at {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(command: Command, address: SocketAddr, dir: Option<Dir>) -> Child {
    let child = spawn(command, address, dir);
    wait_for_port(address);
    child
}

fn spawn(mut command: Command, address: SocketAddr, dir: Option<Dir>) -> Child {
    let process = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Child {
        process,
        address,
        _dir: dir,
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The one that Debian's packages of modules are for; the first in the path may be another.
const PYTHON: &str = "/usr/bin/python3";
