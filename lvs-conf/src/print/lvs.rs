//! Virtual servers, real servers and checkers.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Writer, quoted};
use crate::model::{
    Checker, Config, DnsCheck, DnsType, Family, FileCheck, GlobalDefs, Granularity, HttpCheck,
    HttpVersion, LvsMethod, MiscCheck, Probe, RealServer, Regex, Script, ServiceAddress, SmtpCheck,
    Ssl, Tunnel, TunnelChecksum, UdpCheck, Url, VirtualServer,
};
use crate::settings::{Setting as _, Settings as _};

pub(super) fn write(config: &Config, out: &mut Writer) {
    for group in &config.server_groups {
        let name = format!("virtual_server_group {}", quoted(&group.name));
        out.values(&name, group.entries.iter().map(ToString::to_string));
    }
    for group in &config.local_address_groups {
        let name = format!("local_address_group {}", quoted(&group.name));
        out.values(&name, group.addresses.iter().map(ToString::to_string));
    }
    for server in &config.virtual_servers {
        let marked = match &server.service {
            ServiceAddress::Mark(_) => true,
            ServiceAddress::Address { .. } => false,
            ServiceAddress::Group(name) => {
                let group = config
                    .server_groups
                    .iter()
                    .find(|group| group.name == *name);
                group.is_some_and(|group| {
                    group
                        .entries
                        .iter()
                        .all(|entry| matches!(entry, crate::model::GroupEntry::Mark { .. }))
                })
            }
        };
        virtual_server(server, marked, &config.global, out);
    }
    if let Some(ssl) = &config.ssl {
        out.block("SSL", |out| ssl.write(&Ssl::default(), out));
    }
}

fn endpoint(address: SocketAddr) -> String {
    match address.port() {
        0 => address.ip().to_string(),
        port => format!("{} {port}", address.ip()),
    }
}

fn method(method: LvsMethod) -> String {
    let checksum = |checksum: TunnelChecksum| match checksum {
        TunnelChecksum::None => "",
        TunnelChecksum::Full => " csum",
        TunnelChecksum::Remote => " remcsum",
    };
    match method {
        LvsMethod::Nat => "NAT".to_owned(),
        LvsMethod::Dr => "DR".to_owned(),
        LvsMethod::FullNat => "FNAT".to_owned(),
        LvsMethod::Tun(Tunnel::Ipip) => "TUN".to_owned(),
        LvsMethod::Tun(Tunnel::Gue { port, checksum: c }) => {
            format!("TUN type gue port {port}{}", checksum(c))
        }
        LvsMethod::Tun(Tunnel::Gre { checksum: c }) => format!("TUN type gre{}", checksum(c)),
    }
}

fn virtual_server(server: &VirtualServer, marked: bool, global: &GlobalDefs, out: &mut Writer) {
    let head = match &server.service {
        ServiceAddress::Address { address, port } => {
            endpoint(SocketAddr::new(*address, port.unwrap_or(0)))
        }
        ServiceAddress::Mark(mark) => format!("fwmark {mark}"),
        ServiceAddress::Group(name) => format!("group {}", quoted(name)),
    };
    let default = VirtualServer::with_defaults(server.service.clone(), global);
    out.block(format!("virtual_server {head}"), |out| {
        out.line(format!("lvs_sched {}", server.scheduler));
        out.line(format!("lvs_method {}", method(server.method)));
        if !marked {
            out.line(format!("protocol {}", server.protocol));
        }
        if let (ServiceAddress::Mark(_), Some(family)) = (&server.service, server.family) {
            out.line(match family {
                Family::Inet => "ip_family inet",
                Family::Inet6 => "ip_family inet6",
            });
        }
        if let Some(timeout) = server.persistence_timeout {
            timeout.write("persistence_timeout", out);
        }
        match server.persistence_granularity {
            None => {}
            Some(Granularity::Mask(mask)) => out.line(format!("persistence_granularity {mask}")),
            Some(Granularity::Prefix(len)) => out.line(format!("persistence_granularity {len}")),
        }
        server.write(&default, out);
        flag("ops", server.one_packet, out);
        flag("alpha", server.alpha, out);
        flag("ha_suspend", server.ha_suspend, out);
        if server.quorum != 1 {
            out.line(format!("quorum {}", server.quorum));
        }
        if server.hysteresis != 0 {
            out.line(format!("hysteresis {}", server.hysteresis));
        }
        if let Some(sorry) = &server.sorry_server {
            out.line(format!("sorry_server {}", endpoint(sorry.address)));
            if sorry.method != server.method {
                out.line(format!("sorry_server_lvs_method {}", method(sorry.method)));
            }
            flag("sorry_server_inhibit", sorry.inhibit, out);
        }
        for (at, real) in server.real_servers.iter().enumerate() {
            // Servers may only be equal in the end, when a port has been filled in or reset.
            let twin = server.real_servers[..at]
                .iter()
                .any(|old| old.address == real.address);
            real_server(real, server, twin, global, out);
        }
    });
}

fn flag(name: &str, on: bool, out: &mut Writer) {
    if on {
        out.line(name);
    }
}

fn real_server(
    real: &RealServer,
    server: &VirtualServer,
    twin: bool,
    global: &GlobalDefs,
    out: &mut Writer,
) {
    let head = if twin {
        real.address.ip().to_string()
    } else {
        endpoint(real.address)
    };
    let mut default = RealServer::with_defaults(real.address, server.method, global);
    default.alpha = server.alpha;
    out.block(format!("real_server {head}"), |out| {
        if real.method != server.method {
            out.line(format!("lvs_method {}", method(real.method)));
        }
        real.write(&default, out);
        for check in &real.checkers {
            out.block(check.keyword(), |out| checker(check, real, global, out));
        }
    });
}

fn checker(check: &Checker, real: &RealServer, global: &GlobalDefs, out: &mut Writer) {
    let second = Duration::from_secs(1);
    let connection = |probe: &Probe, out: &mut Writer| connection(probe, real, out);
    let timing = |probe: &Probe, retry: u32, delay: Duration, out: &mut Writer| {
        timing(probe, retry, delay, real, global, out);
    };
    match check {
        Checker::TcpCheck(probe) | Checker::PingCheck(probe) => {
            connection(probe, out);
            timing(probe, 1, second, out);
        }
        Checker::HttpGet(http) | Checker::SslGet(http) => {
            connection(&http.probe, out);
            timing(&http.probe, 1, second * 3, out);
            self::http(http, out);
        }
        Checker::SmtpCheck(SmtpCheck { probe, helo_name }) => {
            connection(probe, out);
            timing(probe, 1, second, out);
            if helo_name != SmtpCheck::DEFAULT_HELO {
                out.line(format!("helo_name {}", quoted(helo_name)));
            }
        }
        Checker::DnsCheck(DnsCheck { probe, kind, name }) => {
            connection(probe, out);
            timing(probe, 3, probe.delay_loop, out);
            if *kind != DnsType::DEFAULT {
                out.line(format!("type {kind}"));
            }
            if !name.is_empty() {
                out.line(format!("name {}", quoted(name)));
            }
        }
        Checker::MiscCheck(MiscCheck {
            probe,
            script,
            timeout,
            dynamic,
        }) => {
            timing(probe, 0, second, out);
            let command = Script {
                user: None,
                ..script.clone()
            };
            out.script("misc_path", &command);
            if *timeout != probe.delay_loop {
                timeout.write("misc_timeout", out);
            }
            flag("misc_dynamic", *dynamic, out);
            script.user.write("user", out);
        }
        Checker::UdpCheck(udp) => {
            connection(&udp.probe, out);
            timing(&udp.probe, 1, second, out);
            self::udp(udp, out);
        }
        Checker::BfdCheck(bfd) => {
            out.line(format!("name {}", quoted(&bfd.name)));
            if bfd.probe.alpha != real.alpha {
                bfd.probe.alpha.write("alpha", out);
            }
        }
        Checker::FileCheck(FileCheck {
            name,
            weight,
            reverse,
            ..
        }) => {
            out.line(format!("track_file {}", quoted(name)));
            if let Some(weight) = weight {
                let reverse = match reverse {
                    None => "",
                    Some(true) => " reverse",
                    Some(false) => " noreverse",
                };
                out.line(format!("weight {weight}{reverse}"));
            }
        }
    }
}

fn connection(probe: &Probe, real: &RealServer, out: &mut Writer) {
    if probe.destination.ip() != real.address.ip() {
        out.line(format!("connect_ip {}", probe.destination.ip()));
    }
    if probe.destination.port() != real.address.port() {
        out.line(format!("connect_port {}", probe.destination.port()));
    }
    if let Some(address) = probe.bind_address {
        out.line(format!("bindto {address}"));
    }
    if let Some(name) = &probe.bind_interface {
        out.line(format!("bind_if {}", quoted(name)));
    }
    let default = Probe {
        bind_port: None,
        fwmark: 0,
        ..probe.clone()
    };
    probe.write(&default, out);
    if probe.connect_timeout != Duration::from_secs(5) {
        probe.connect_timeout.write("connect_timeout", out);
    }
}

fn timing(
    probe: &Probe,
    retry: u32,
    delay: Duration,
    real: &RealServer,
    global: &GlobalDefs,
    out: &mut Writer,
) {
    if probe.delay_loop != Duration::from_secs(60) {
        probe.delay_loop.write("delay_loop", out);
    }
    if probe.retry != retry {
        probe.retry.write("retry", out);
    }
    if probe.delay_before_retry != delay {
        probe.delay_before_retry.write("delay_before_retry", out);
    }
    if probe.warmup != probe.delay_loop {
        probe.warmup.write("warmup", out);
    }
    if probe.alpha != real.alpha {
        probe.alpha.write("alpha", out);
    }
    if probe.log_all_failures != global.checker_log_all_failures {
        probe.log_all_failures.write("log_all_failures", out);
    }
}

fn http(http: &HttpCheck, out: &mut Writer) {
    if http.version != HttpVersion::DEFAULT {
        out.line(format!("http_protocol {}", http.version));
    }
    if let Some(name) = &http.sni_name {
        out.line(format!("sni_name {}", quoted(name)));
    }
    let default = HttpCheck {
        enable_sni: http.sni_name.is_some(),
        fast_recovery: false,
        tls_compliant: false,
        ..http.clone()
    };
    http.write(&default, out);
    for one in &http.urls {
        out.block("url", |out| url(one, out));
    }
}

fn url(url: &Url, out: &mut Writer) {
    out.line(format!("path {}", quoted(&url.path)));
    if let Some(digest) = url.digest {
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        out.line(format!("digest {hex}"));
    }
    if url.status_codes != [Url::DEFAULT_STATUS] {
        let ranges = url.status_codes.iter().map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        });
        out.line(format!(
            "status_code {}",
            ranges.collect::<Vec<_>>().join(" ")
        ));
    }
    if let Some(name) = &url.virtualhost {
        out.line(format!("virtualhost {}", quoted(name)));
    }
    if let Some(regex) = &url.regex {
        self::regex(regex, out);
    }
    flag("tls_compliant", url.tls_compliant, out);
}

fn regex(regex: &Regex, out: &mut Writer) {
    let quote = if regex.pattern.contains('"') {
        '\''
    } else {
        '"'
    };
    out.line(format!("regex {quote}{}{quote}", regex.pattern));
    flag("regex_no_match", regex.negated, out);
    if !regex.options.is_empty() {
        let options: Vec<String> = regex.options.iter().map(|option| quoted(option)).collect();
        out.line(format!("regex_options {}", options.join(" ")));
    }
    if regex.min_offset != 0 {
        regex.min_offset.write("regex_min_offset", out);
    }
    regex.max_offset.write("regex_max_offset", out);
    if let Some((start, most)) = regex.stack {
        out.line(format!("regex_stack {start} {most}"));
    }
}

fn udp(udp: &UdpCheck, out: &mut Writer) {
    if !udp.payload.is_empty() {
        let hex: String = udp
            .payload
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        out.line(format!("payload {hex}"));
    }
    if udp.require_reply {
        let nibble = |nibble: &Option<u8>| match nibble {
            Some(value) => format!("{value:x}"),
            None => "x".to_owned(),
        };
        let reply: String = udp.reply.iter().flatten().map(nibble).collect();
        out.line(format!("require_reply {reply}").trim_end());
    }
    let default = UdpCheck {
        min_reply_length: UdpCheck::DEFAULT_MIN_REPLY,
        max_reply_length: UdpCheck::DEFAULT_MAX_REPLY,
        ..udp.clone()
    };
    udp.write(&default, out);
}
